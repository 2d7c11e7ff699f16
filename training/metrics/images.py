"""Scores of pictures.

Shape letters: `C H W` image.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WINDOW_PX = 11
SIGMA_PX = 1.5


def ssim(a_CHW: npt.ArrayLike, b_CHW: npt.ArrayLike) -> float:
    """Structural similarity of two images with values in [0, 1]: 1 for equal ones, never above.

    Convention: a Gaussian window of 11 x 11 px and sigma 1.5 px, only where it lies inside the image; variances are weighted
    by the window; the mean is over places and colours. To score a person alone, black out the rest of both images.

    Raises:
        ValueError: shapes differ, an image is smaller than the window, or a value is outside [0, 1] or NaN.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, TIP 2004.
    """
    a, b = np.asarray(a_CHW, dtype=np.float64), np.asarray(b_CHW, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 3 or min(a.shape[1:]) < WINDOW_PX:
        raise ValueError(f"two images (C, H, W) of at least {WINDOW_PX} px are needed, not {a.shape} and {b.shape}")
    if not all(((image >= 0) & (image <= 1)).all() for image in (a, b)):
        raise ValueError("an image has a value outside [0, 1]")
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    shade = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float((shade * structure).mean())


def _blurred(image_CHW: Floats) -> Floats:
    offset = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weight = np.exp(-(offset**2) / (2 * SIGMA_PX**2))
    weight /= weight.sum()
    for axis in (1, 2):
        image_CHW = np.lib.stride_tricks.sliding_window_view(image_CHW, WINDOW_PX, axis=axis) @ weight
    return image_CHW

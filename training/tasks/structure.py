"""Structural similarity as Texformer computes it, as a loss and as a score. `training.metrics.images.ssim` is the usual one.

It differs in three ways: values lie in [-1, 1] while the constants stay those of [0, 1], so that what is cut away and set to 0 is grey; the window goes on
beyond the picture's rim, over zeros; and as a loss, of its three factors the structure alone is looked at.

Shape letters: `B` pictures, `C H W` picture.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.metrics.images import SIGMA_PX, WINDOW_PX

_C1, _C2 = 0.01**2, 0.03**2
_LEAST_VARIANCE = 1e-5


def structure(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """(B,) how far two pictures rise and fall together, mean over places and colours: 1 for equal ones, a little less where both are flat."""
    _, _, var_a, var_b, both = _moments(a_BCHW, b_BCHW)
    var_a, var_b = var_a.clamp(min=_LEAST_VARIANCE), var_b.clamp(min=_LEAST_VARIANCE)
    return ((2 * both + _C2) / (2 * (var_a * var_b).sqrt() + _C2)).mean(dim=(1, 2, 3))


def similarity(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """(B,) structural similarity of pictures with values in [-1, 1]."""
    mean_a, mean_b, var_a, var_b, both = _moments(a_BCHW, b_BCHW)
    shade = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return (shade * (2 * both + _C2) / (var_a + var_b + _C2)).mean(dim=(1, 2, 3))


def _moments(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """Means, variances and the covariance within the window at each place."""
    mean_a, mean_b, square_a, square_b, product = (_blurred(x) for x in (a, b, a * a, b * b, a * b))
    return mean_a, mean_b, square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b


def _blurred(pictures_BCHW: Tensor) -> Tensor:
    offset = torch.arange(WINDOW_PX, dtype=pictures_BCHW.dtype, device=pictures_BCHW.device) - WINDOW_PX // 2
    weight = (-offset.square() / (2 * SIGMA_PX**2)).exp()
    weight = weight / weight.sum()
    flat_N1HW = pictures_BCHW.flatten(0, 1)[:, None]
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        flat_N1HW = functional.conv2d(flat_N1HW, weight.reshape(shape), padding="same")
    return flat_N1HW.reshape(pictures_BCHW.shape)

"""Scores of 3D points: joints and mesh vertices.

Shape letters: `B` images, `J` points of an image (joints or vertices), `X` mesh vertices.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Floats = npt.NDArray[np.float64]

MM = 1000.0  # millimetres of a metre


def mpjpe_mm(predicted_BJ3_m: npt.ArrayLike, true_BJ3_m: npt.ArrayLike, *, root: Sequence[int]) -> Floats:
    """Mean per-joint position error of each image, after moving the root of both to the origin.

    Args:
        predicted_BJ3_m: predicted joints.
        true_BJ3_m: annotated joints.
        root: joints whose mean is the root: one joint (the wrist, 3DPW's pelvis), both hips, or none at all (`()`), which
            leaves both in the camera's frame.

    Returns:
        (B,) millimetres.

    Raises:
        ValueError: shapes differ or are no points, or a value is not finite.
    """
    predicted, true = _both(predicted_BJ3_m, true_BJ3_m)
    if root:
        predicted, true = predicted - _midpoint(predicted, root), true - _midpoint(true, root)
    return _mean_mm(predicted, true)


def mpvpe_mm(
    predicted_BX3_m: npt.ArrayLike,
    true_BX3_m: npt.ArrayLike,
    *,
    roots_m: tuple[npt.ArrayLike, npt.ArrayLike] | None,
) -> Floats:
    """Mean per-vertex position error of each image, also called PVE.

    Papers differ in the alignment, and print the number under one name; see the keyword.

    Args:
        predicted_BX3_m: predicted vertices.
        true_BX3_m: vertices of the annotated mesh.
        roots_m: the predicted and the true root, (B, 3) each, that are moved to the origin: METRO's convention with the
            pelvis regressed from either mesh. None compares the meshes where they are, as VIBE does.

    Returns:
        (B,) millimetres.

    Raises:
        ValueError: shapes differ or are no points, or a value is not finite.
    """
    predicted, true = _both(predicted_BX3_m, true_BX3_m)
    if roots_m is not None:
        predicted_root, true_root = _both(*(np.asarray(r, np.float64)[..., None, :] for r in roots_m), what="roots")
        if predicted_root.shape != (len(predicted), 1, 3):
            raise ValueError(f"one root an image is needed, ({len(predicted)}, 3), not {predicted_root[:, 0].shape}")
        predicted, true = predicted - predicted_root, true - true_root
    return _mean_mm(predicted, true)


def pa_mpjpe_mm(predicted_BJ3_m: npt.ArrayLike, true_BJ3_m: npt.ArrayLike, *, mirror: bool = False) -> Floats:
    """Mean error of each image after `align_similarity`: PA-MPJPE of joints, PA-MPVPE of vertices.

    Returns:
        (B,) millimetres.
    """
    return _mean_mm(*_both(align_similarity(predicted_BJ3_m, true_BJ3_m, mirror=mirror), true_BJ3_m))


def align_similarity(predicted_BJ3_m: npt.ArrayLike, true_BJ3_m: npt.ArrayLike, *, mirror: bool = False) -> Floats:
    """Move, turn and scale each prediction onto its truth with the least sum of squared distances.

    A prediction whose points all coincide lands on the truth's centroid: no similarity does better.

    Args:
        predicted_BJ3_m: what is moved.
        true_BJ3_m: what it is moved onto.
        mirror: also allow reflections, as FreiHAND's official evaluation does: a mirrored hand then scores 0. The strict
            form is the default.

    Returns:
        (B, J, 3) metres.

    Raises:
        ValueError: shapes differ or are no points, a value is not finite, or the true points of an image all coincide.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
    """
    predicted, true = _both(predicted_BJ3_m, true_BJ3_m)
    true_mean = true.mean(axis=1, keepdims=True)
    predicted, true = predicted - predicted.mean(axis=1, keepdims=True), true - true_mean
    if flat := np.flatnonzero((np.abs(true) < 1e-9).all(axis=(1, 2))).tolist():
        raise ValueError(f"the true points of image {flat[0]} all coincide, so that nothing can be aligned to them")
    u, size_B3, vt = np.linalg.svd(predicted.transpose(0, 2, 1) @ true)
    sign_B3 = np.ones_like(size_B3)
    if not mirror:
        sign_B3[:, 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    spread_B = np.square(predicted).sum(axis=(1, 2))
    # Points that coincide up to rounding have no direction to turn and no size to scale.
    scale_B = np.divide((size_B3 * sign_B3).sum(axis=1), spread_B, out=np.zeros_like(spread_B), where=spread_B > 1e-18)
    aligned: Floats = scale_B[:, None, None] * (predicted @ (u * sign_B3[:, None]) @ vt) + true_mean
    return aligned


def pck(errors: npt.ArrayLike, threshold: float) -> float:
    """Share of points, of any number of images, whose error is at most the threshold; both in one unit of your choice."""
    return float(np.mean(_errors(errors) <= threshold))


def pck_auc(errors_mm: npt.ArrayLike, *, limit_mm: float = 50.0, num_thresholds: int = 100) -> float:
    """Area under the curve of `pck` over thresholds from 0 to the limit, divided by the limit, in [0, 1].

    Convention: the trapezoid rule on evenly spaced thresholds, both ends among them.
    Source: FreiHAND's evaluation: 100 thresholds up to 50 mm, of aligned joints.
    """
    thresholds_mm = np.linspace(0.0, limit_mm, num_thresholds)
    errors = np.sort(_errors(errors_mm), axis=None)
    share = np.searchsorted(errors, thresholds_mm, side="right") / errors.size
    return float((share[1:] + share[:-1]).mean() / 2)


def f_score(predicted_BX3_m: npt.ArrayLike, true_BX3_m: npt.ArrayLike, *, threshold_mm: float) -> Floats:
    """Harmonic mean of precision and recall of each image: which points have one of the other set nearer than the threshold.

    Nothing is aligned; FreiHAND's F@5 mm and F@15 mm are of vertices after `align_similarity`.

    Args:
        predicted_BX3_m: predicted vertices; precision is the share of these that have a true one near.
        true_BX3_m: true vertices, possibly of another number; recall is the share of these that have a predicted one near.
        threshold_mm: what is near: strictly less than this.

    Returns:
        (B,) in [0, 1]; 0 where nothing is near.
    """
    predicted, true = _points(predicted_BX3_m, "predicted points"), _points(true_BX3_m, "true points")
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predictions for {len(true)} images")
    scores = np.zeros(len(true))
    for index, (a_X3, b_X3) in enumerate(zip(predicted, true, strict=True)):
        precision, recall = (_is_near(a, b, threshold_mm).mean() for a, b in ((a_X3, b_X3), (b_X3, a_X3)))
        scores[index] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores


def _is_near(points_X3: Floats, others_X3: Floats, threshold_mm: float) -> npt.NDArray[np.bool_]:
    """Which points have one of the others nearer than the threshold; the search may end beyond it."""
    distance_X, _ = cKDTree(others_X3).query(points_X3, distance_upper_bound=1.001 * threshold_mm / MM)
    return np.asarray(distance_X * MM < threshold_mm)


def point_errors_mm(predicted_BJ3_m: npt.ArrayLike, true_BJ3_m: npt.ArrayLike) -> Floats:
    """Distance of each point, (B, J) millimetres, with nothing aligned: what `pck` and `pck_auc` read."""
    predicted, true = _both(predicted_BJ3_m, true_BJ3_m)
    return np.asarray(np.linalg.norm(predicted - true, axis=-1) * MM)


def _mean_mm(predicted: Floats, true: Floats) -> Floats:
    return np.asarray(np.linalg.norm(predicted - true, axis=-1).mean(axis=-1) * MM)


def _midpoint(points_BJ3: Floats, indices: Sequence[int]) -> Floats:
    return np.asarray(points_BJ3[:, list(indices)].mean(axis=1, keepdims=True))


def _both(predicted: npt.ArrayLike, true: npt.ArrayLike, *, what: str = "points") -> tuple[Floats, Floats]:
    a, b = _points(predicted, f"predicted {what}"), _points(true, f"true {what}")
    if a.shape != b.shape:
        raise ValueError(f"predicted {what} are {a.shape}, true ones {b.shape}")
    return a, b


def _points(points: npt.ArrayLike, name: str) -> Floats:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 3 or values.shape[2] != 3 or not values.size:
        raise ValueError(f"{name} must be (images, points, 3), not {values.shape}")
    if bad := np.flatnonzero(~np.isfinite(values).all(axis=(1, 2))).tolist():
        raise ValueError(f"{name} of image {bad[0]} are not finite ({len(bad)} of {len(values)} images)")
    return values


def _errors(errors: npt.ArrayLike) -> Floats:
    values = np.asarray(errors, dtype=np.float64)
    if not values.size:
        raise ValueError("there are no errors to score")
    if not (values >= 0).all():  # also false for NaN
        raise ValueError("errors must be distances: one is NaN or negative")
    return values

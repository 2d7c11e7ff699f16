"""Silhouettes from what a dataset ships: a mask image, the vertices of a body model, or keypoints.

Each is drawn straight into the stored crop: `crop_from_frame` is the (3, 3) matrix that maps pixels of the frame to pixels of
the crop. Rough is enough: the silhouette decides which 16 px patches show the person.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_SPLAT_PX = 64  # vertices are splatted on a grid of this side: denser than they lie apart
# Limb width over torso length: between .2 and .36 every share reaches a patch accuracy of .93 on people of COCO.
LIMB = 0.28
_FINE = 4  # bits behind the point of the coordinates that OpenCV draws with

# Pairs of joints that a limb joins, in the order of COCO's 17 keypoints; the torso and the head are filled besides.
COCO_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
COCO_TORSO = (5, 6, 12, 11)
COCO_HEAD = (0, 1, 2, 3, 4)
# Where COCO's 17 keypoints stand in other sets; -1: not there.
TO_COCO17 = {
    "coco17": tuple(range(17)),
    "coco18": (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10),  # of OpenPose
    "posetrack17": (0, 2, -1, -1, -1, *range(5, 17)),  # the top of the head stands for an eye
    "penn13": (0, -1, -1, -1, -1, *range(1, 13)),  # the head for the nose
}
LEAST_KEYPOINTS = 6  # seen, that tell where a person's body is
NEAR = 0.06  # of the crop's side: how far from the capsules of his keypoints a person's pixels may be
ROUND_BOX = 0.03  # of the box's longer side: the same, from his box, where there are no keypoints


def from_mask(mask: npt.NDArray[np.generic], crop_from_frame: Floats, size_px: int) -> Mask:
    """Carry a mask of the whole frame into the crop.

    Args:
        mask: (H, W); what is not 0 is the subject.
        crop_from_frame: (3, 3).
        size_px: side of the crop.

    Returns:
        (size_px, size_px); False outside the frame.
    """
    shape = (np.asarray(mask) != 0).astype(np.uint8) * 255
    carried = cv2.warpAffine(shape, crop_from_frame[:2], (size_px, size_px), flags=cv2.INTER_LINEAR)
    inside: Mask = np.asarray(carried) > 127
    return inside


def from_vertices(points_px: Floats, crop_from_frame: Floats, size_px: int) -> Mask:
    """Splat the projected vertices of a body or hand and close the gaps between them.

    Args:
        points_px: (V, 2) in the frame; those that are not finite are left out.
        crop_from_frame: (3, 3).
        size_px: side of the crop.
    """
    at = points_px[np.isfinite(points_px).all(axis=1)] @ crop_from_frame[:2, :2].T + crop_from_frame[:2, 2]
    cells = np.floor((at + 0.5) * (_SPLAT_PX / size_px)).astype(np.int64)
    cells = cells[((cells >= 0) & (cells < _SPLAT_PX)).all(axis=1)]
    grid = np.zeros((_SPLAT_PX, _SPLAT_PX), np.uint8)
    grid[cells[:, 1], cells[:, 0]] = 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    padded = cv2.copyMakeBorder(grid, 4, 4, 4, 4, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[4:-4, 4:-4]
    filled: Mask = cv2.resize(closed, (size_px, size_px), interpolation=cv2.INTER_NEAREST) > 0
    return filled


def from_coco17(keypoints_px: Floats, crop_from_frame: Floats, size_px: int, *, min_confidence: float = 0.3) -> Mask:
    """Draw a person's keypoints as capsules, with torso and head filled.

    Args:
        keypoints_px: (17, 3): x, y, confidence in the frame.
        crop_from_frame: (3, 3).
        size_px: side of the crop.
        min_confidence: below it, a keypoint is not drawn.
    """
    seen = np.isfinite(keypoints_px).all(axis=1) & (np.nan_to_num(keypoints_px[:, 2]) >= min_confidence)
    at = np.nan_to_num(keypoints_px[:, :2]) @ crop_from_frame[:2, :2].T + crop_from_frame[:2, 2]
    canvas = np.zeros((size_px, size_px), np.uint8)
    if seen[list(COCO_TORSO)].all():
        torso = float(np.linalg.norm(at[[5, 6]].mean(axis=0) - at[[11, 12]].mean(axis=0)))
    else:  # half of what is seen: a guess that keeps a person cut off at the hips drawn
        torso = 0.5 * float(np.ptp(at[seen], axis=0).max()) if seen.any() else 0.0
    width = max(1, round(LIMB * torso))
    for a, b in COCO_LIMBS:
        if seen[a] and seen[b]:
            _capsule(canvas, at[a], at[b], width)
    trunk = [joint for joint in COCO_TORSO if seen[joint]]
    for a, b in zip(trunk, trunk[1:] + trunk[:1], strict=True):
        _capsule(canvas, at[a], at[b], width)
    if len(trunk) > 2:
        cv2.fillPoly(canvas, [_fine(at[trunk])], 1, shift=_FINE)
    head = [joint for joint in COCO_HEAD if seen[joint]]
    if head:
        middle = at[head].mean(axis=0)
        cv2.circle(
            canvas, _fine(middle).tolist(), int(max(1.0, 0.3 * torso) * (1 << _FINE)), 1, cv2.FILLED, shift=_FINE
        )
        shoulders = [joint for joint in (5, 6) if seen[joint]]
        if shoulders:
            _capsule(canvas, middle, at[shoulders].mean(axis=0), width)
    drawn: Mask = canvas > 0
    return drawn


def coco17_of(keypoints_px: Sequence[float] | None, keypoints_set: str | None) -> Floats | None:
    """A frame's keypoints as COCO's 17.

    Args:
        keypoints_px: (J * 3,) x, y, confidence.
        keypoints_set: what they are.

    Returns:
        (17, 3), confidence 0 where the set lacks one; None for sets that are not known, or too few that are seen.
    """
    if keypoints_px is None or keypoints_set not in TO_COCO17:
        return None
    given = np.vstack([np.reshape(np.asarray(keypoints_px, np.float64), (-1, 3)), np.zeros((1, 3))])
    points: Floats = given[list(TO_COCO17[keypoints_set])]
    seen = np.isfinite(points).all(axis=1) & (np.nan_to_num(points[:, 2]) > 0)
    return points if seen.sum() >= LEAST_KEYPOINTS else None


def gate(points: Floats | None, box_xyxy_px: Floats, crop_from_frame: Floats, size_px: int) -> Mask:
    """Where in a crop the pixels of one person may be: near his keypoints, or else in his box.

    A parser of people takes neighbours along. On 12 people of COCO among others, held against their own pixels only, the patch
    accuracy of the default parser rose from .950 to .955 in the box and .958 near the keypoints.

    Args:
        points: (17, 3), see `coco17_of`; None: go by the box.
        box_xyxy_px: (4,) in the frame.
        crop_from_frame: (3, 3).
        size_px: side of the crop.
    """
    if points is not None:
        drawn = from_coco17(points, crop_from_frame, size_px).astype(np.uint8)
        side = 2 * round(NEAR * size_px) + 1
        near: Mask = cv2.dilate(drawn, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0
        return near
    more = ROUND_BOX * float((box_xyxy_px[2:] - box_xyxy_px[:2]).max())
    corners = (box_xyxy_px + np.array([-more, -more, more, more])).reshape(2, 2) @ crop_from_frame[
        :2, :2
    ].T + crop_from_frame[:2, 2]
    (x0, y0), (x1, y1) = np.clip(np.round(corners + 0.5), 0, size_px).astype(int)
    inside = np.zeros((size_px, size_px), bool)
    inside[y0:y1, x0:x1] = True
    return inside


def from_limbs(
    points_px: Floats, limbs: Sequence[tuple[int, int]], width_px: float, crop_from_frame: Floats, size_px: int
) -> Mask:
    """Draw limbs of one width, such as the fingers of a hand.

    Args:
        points_px: (J, 2) in the frame; a limb with an end that is not finite is left out.
        limbs: pairs of joints.
        width_px: of each limb, in the frame.
        crop_from_frame: (3, 3).
        size_px: side of the crop.
    """
    at = points_px @ crop_from_frame[:2, :2].T + crop_from_frame[:2, 2]
    canvas = np.zeros((size_px, size_px), np.uint8)
    for a, b in limbs:
        if np.isfinite(at[[a, b]]).all():
            _capsule(canvas, at[a], at[b], max(1, round(width_px * float(crop_from_frame[0, 0]))))
    drawn: Mask = canvas > 0
    return drawn


def _fine(points: Floats) -> npt.NDArray[np.int32]:
    return np.round(np.clip(points, -1e4, 1e4) * (1 << _FINE)).astype(np.int32)


def _capsule(canvas: npt.NDArray[np.uint8], a: Floats, b: Floats, width: int) -> None:
    cv2.line(canvas, _fine(a).tolist(), _fine(b).tolist(), 1, width, cv2.LINE_8, _FINE)

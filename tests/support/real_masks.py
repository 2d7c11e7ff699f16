"""People in real photos whose pixels were marked by hand: COCO's polygons and CIHP's part labels, from the sample recordings.

The samples hold no other true masks of people: the `mask` pictures of PoseTrack mark regions that were left without
keypoints, and HanCo's excerpt came without its masks.
"""

import json
from dataclasses import dataclass

import cv2
import numpy as np

from tests.support.samples import sample

COCO = "open-mmlab+mmpose/tests/data/coco"
CIHP = "Engineering-Course+CIHP_PGN/datasets/CIHP"
MIN_PERSON_PX = 64  # as the crop stage's: whoever is smaller is never stored
FACE, LEAST_FACE_PX = 13, 50  # of CIHP's labels
FINE = 8  # grid cells of a pixel's side, where polygons are drawn


@dataclass(frozen=True, eq=False)
class Marked:
    """One person in a photo of whom somebody drew a mask.

    Attributes:
        data: `coco` or `cihp`.
        photo: its name.
        name: of the person in the photo.
        image: (H, W, 3) uint8 RGB.
        everybody: (H, W) bool, all who are marked in the photo.
        own: (H, W) bool, this person alone; None where the mask does not tell them from others.
        box_xyxy_px: (4,) as given (COCO), or of what is nearest to the face (CIHP).
        keypoints_px: (17, 3) x, y, and 0 where not marked, else 1; None where the person has none.
        others_px: (K, 17, 3) the same of everybody else in the photo who has some.
    """

    data: str
    photo: str
    name: str
    image: np.ndarray
    everybody: np.ndarray
    own: np.ndarray | None
    box_xyxy_px: np.ndarray
    keypoints_px: np.ndarray | None
    others_px: np.ndarray


def coco_people() -> list[Marked]:
    """People of COCO's photos in the samples, `MIN_PERSON_PX` long at least; skips where the samples are absent."""
    folder = sample(COCO)
    table = json.loads((folder / "test_coco.json").read_text())
    found = []
    for photo in table["images"]:
        image = cv2.imread(str(folder / photo["file_name"]))[..., ::-1]
        shown = [a for a in table["annotations"] if a["image_id"] == photo["id"]]
        masks = [coco_mask(a["segmentation"], image.shape[:2]) for a in shown]
        points = [coco_keypoints(a) for a in shown]
        for number, (annotation, mask) in enumerate(zip(shown, masks, strict=True)):
            x, y, width, height = annotation["bbox"]
            if annotation["iscrowd"] or max(width, height) < MIN_PERSON_PX:
                continue
            others = [p for k, p in enumerate(points) if k != number and p is not None]
            found.append(
                Marked(
                    data="coco",
                    photo=str(photo["id"]),
                    name=str(number),
                    image=np.ascontiguousarray(image),
                    everybody=np.any(masks, axis=0),
                    own=mask,
                    # COCO counts from the corner of the first pixel, we from its centre.
                    box_xyxy_px=np.array([x, y, x + width, y + height]) - 0.5,
                    keypoints_px=points[number],
                    others_px=np.array(others).reshape(-1, 17, 3),
                )
            )
    return found


def cihp_people() -> list[Marked]:
    """People of CIHP's photos in the samples; skips where they are absent.

    Convention: `labels` are those of the photo; `labels_rev` are mirrored, with left and right parts swapped, and go with
    a mirrored photo. What is not 0 is a person. Labels do not tell people apart, see `people_of_labels`.
    """
    folder = sample(CIHP)
    found = []
    for path in sorted((folder / "images").iterdir()):
        image = cv2.imread(str(path))[..., ::-1]
        labels = cv2.imread(str(folder / "labels" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        for place, (box, own) in enumerate(people_of_labels(labels)):
            found.append(
                Marked(
                    data="cihp",
                    photo=path.stem,
                    name=str(place),
                    image=np.ascontiguousarray(image),
                    everybody=labels > 0,
                    own=own,
                    box_xyxy_px=box,
                    keypoints_px=None,
                    others_px=np.zeros((0, 17, 3)),
                )
            )
    return found


def coco_mask(segmentation: list | dict, shape: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) from COCO's `segmentation`: polygons of one person, or the plain run lengths of a crowd.

    Raises:
        ValueError: run lengths that are compressed, or do not fill the photo.
    """
    if isinstance(segmentation, list):
        fine = np.zeros((FINE * shape[0], FINE * shape[1]), np.uint8)  # OpenCV also paints the border: keep it thin
        for polygon in segmentation:
            corners = np.array(polygon).reshape(-1, 2) * FINE - 0.5  # COCO counts from the corner of the first pixel
            cv2.fillPoly(fine, [np.round(corners).astype(np.int32)], 255)
        return cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA) > 127
    counts = segmentation["counts"]
    if isinstance(counts, str) or tuple(segmentation["size"]) != shape or sum(counts) != shape[0] * shape[1]:
        raise ValueError(f"these are no plain run lengths of a photo of {shape}")
    # Runs go down the columns, outside first.
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape[::-1]).T


def coco_keypoints(annotation: dict) -> np.ndarray | None:
    """(17, 3) with confidence 1 for what is marked, seen or not; None where nothing is."""
    if not annotation.get("num_keypoints"):
        return None
    points = np.array(annotation["keypoints"], float).reshape(17, 3)
    points[:, 2] = points[:, 2] > 0
    return points


def people_of_labels(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Who is in a picture of part labels (H, W): the box of each, and the mask where nobody else touches them.

    A connected piece with one face is one person. One with more is shared out by columns, to the nearest face: good enough
    for a box, not for a mask.
    """
    number, pieces = cv2.connectedComponents((labels > 0).astype(np.uint8))
    num_faces, _, stats, middles = cv2.connectedComponentsWithStats((labels == FACE).astype(np.uint8))
    faces = middles[1:num_faces][stats[1:, cv2.CC_STAT_AREA] >= LEAST_FACE_PX]
    found = []
    for piece in range(1, number):
        mask = pieces == piece
        columns = np.sort([x for x, y in faces if mask[round(y), round(x)]])
        nearest = np.abs(np.arange(labels.shape[1])[:, None] - columns).argmin(axis=1) if len(columns) else []
        for place in range(len(columns)):
            own = mask & (nearest == place)
            rows, across = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
            box = np.array([across[0], rows[0], across[-1] + 1, rows[-1] + 1]) - 0.5
            if max(box[2:] - box[:2]) >= MIN_PERSON_PX:
                found.append((box, own if len(columns) == 1 else None))
    return found

"""What a reader gives: annotated pictures of one person or hand each, whatever the dataset.

Shape letters: `R` rotations (24 of a body, 16 of a hand), `S` shape values, `J` joints, `K` keypoints, `X` vertices, `P` annotated
pixels, `H W` picture. Pixel (0, 0) is the centre of the first pixel; camera axes are x right, y down, z forward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from manifests.types import Domain, Reject

LABELS: Mapping[str, str] = {
    "pose": "(R, 3) axis-angle of SMPL or MANO, radians, the root's in the camera's axes; no mean pose subtracted",
    "betas": "(S,) shape values of the same model",
    "gender": "neutral, male or female: which SMPL model the parameters are of",
    "side": "left or right: which hand is shown",
    "joints_m": "(J, 3) joints in the camera's axes, metres, in the order of Examples.joint_set; NaN where unknown",
    "keypoints_px": "(K, 3) x, y in the picture and a confidence in [0, 1], in the order of Examples.keypoint_set",
    "verts_m": "(X, 3) vertices in the camera's axes, metres, where the dataset gives them",
    "intrinsics": "(3, 3) K of the picture, pixels",
    "class": "int from 0, an index into Examples.classes",
    "instance": "str: pictures of one instance show the same moment or grasp from several sides",
    "surface": "(P, 5) x, y in the picture, part 1 to 24 or 0 off the person, u and v in [0, 1]",
    "coarse": "(h, w) uint8 coarse part 1 to 14 as DensePose numbers them, 0 off the person",
    "coarse_box_xyxy_px": "(4,) edges of the coarse map in the picture; what lies outside is unknown",
    "parts": "(H, W) uint8 part of each pixel, 0 off the person",
    "second_uv": "as uv, of the second picture",
    "uv": "(H, W, 2) float32 texture coordinates, origin at the lower left, -1 off the person",
}
"""Every label that an example may hold, by name: shape, units, meaning."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One picture of one person or hand, decoded, and what is known of it.

    Args:
        key: unique in its dataset, the same in every run.
        rgb_HW3: uint8.
        square_xyxy_px: edges of the square that shows the person with the margin of the dataset's protocol.
        labels: some of `LABELS`.
        subject: who it is, where it is known; held out as a whole.
        second_HW3: for tasks on two pictures: the same person, from another side or at a neighbouring moment.
        second_square_xyxy_px: its square.
    """

    key: str
    rgb_HW3: npt.NDArray[np.uint8]
    square_xyxy_px: npt.NDArray[np.float64]
    labels: Mapping[str, Any]
    subject: str | None = None
    second_HW3: npt.NDArray[np.uint8] | None = None
    second_square_xyxy_px: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a dataset as a whole.

    Args:
        name: as it stands in a recipe and in the tables of results.
        domain: people or hands.
        split: train, val or test.
        labels: names of `LABELS` that all its examples hold, or hold where the dataset knows them.
        joint_set: names the order of `joints_m`: smpl24, h36m17, mpii_3dhp17, hand21.
        keypoint_set: names the order of `keypoints_px`: coco17, penn13, mpii16, spin49, smpl24, hand21.
        classes: names of the classes.
        protocol: which pictures these are and how their squares are cut, in one sentence to print beside a score.
        rejects: what was left out, and why.
    """

    name: str
    domain: Domain
    split: str
    labels: tuple[str, ...]
    joint_set: str | None = None
    keypoint_set: str | None = None
    classes: tuple[str, ...] = ()
    protocol: str
    rejects: Sequence[Reject] = field(default=())


class Examples(Protocol):
    """A dataset, in one order for ever. Listing it decodes no picture; an item does."""

    @property
    def about(self) -> About:
        """What is known of all."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """Decode one.

        Raises:
            IndexError: there is none.
            SourceError: its picture is missing or damaged.
        """

    def subjects(self) -> Sequence[str | None]:
        """The subject of each, without decoding."""

"""Thirteen joints of a body as heatmaps: what keypoint supervision teaches, as a task of its own.

Shape letters: `B` examples, `J` joints, `G` cells of a heatmap along a side, `H W` image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from manifests.errors import TrainingError
from manifests.files import write_json
from training.examples.base import About, Example
from training.keypoints import (
    JOINTS,
    MIRRORED,
    PATCH_CELLS,
    PLACES,
    SIGMA_CELLS,
    KeypointHead,
    gaussians,
    joints_of,
    keypoint_losses,
)  # fmt: skip
from training.metrics.points import pck
from training.tasks.base import Arrays, Cut, Score, Tensors
from training.tasks.placing import points_in_picture, shares_in_image

_CONSTANT_CELLS = 56  # of a constant answer's heatmaps, along a side
SEEN = 0.2  # joints whose heatmap nowhere tops this are not drawn

_BONES = ((0, 1), (0, 2), (1, 2), (7, 8), *((joint, joint + 2) for joint in (1, 2, 3, 4, 7, 8, 9, 10)), (1, 7), (2, 8))
_LEFT_RGB, _RIGHT_RGB, _MIDDLE_RGB = (40, 160, 255), (255, 120, 40), (240, 240, 240)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keypoints:
    """Heatmaps from the encoder's tokens, each joint weighted by the annotator's confidence.

    A joint is where its heatmap is largest: the middle of a cell of a quarter of a patch.
    """

    name: ClassVar = "keypoints"
    reads: ClassVar[Literal["pooled"]] = "pooled"
    main: ClassVar = "pck_0.1"
    flips: ClassVar = True
    turns: ClassVar = True

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets without keypoints of a body.

        Raises:
            TrainingError: which dataset lacks them.
        """
        for about in (*train, test):
            if "keypoints_px" not in about.labels or about.keypoint_set not in PLACES:
                raise TrainingError(
                    f"there are no keypoints of a body in a known order: {about.keypoint_set or 'none at all'}",
                    where=f"{about.name}, {about.split}",
                    hint=f"use a dataset with one of {', '.join(PLACES)}",
                )

    def head(self, widths: Sequence[int], num_patches: int) -> nn.Module:
        """The simple head of pre-training with keypoints, which starts from how rarely a cell is a joint's."""
        return _OfLast(widths[-1], num_patches)

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:
        """Make "place" (J, 2), shares of the image's side, and "weight" (J,): the confidence."""
        points = example.labels.get("keypoints_px")
        role = {} if points is None else {"keypoints_set": about.keypoint_set, "keypoints_px": points}
        joints_J3 = joints_of(role)
        joints_J3[:, :2] = shares_in_image(joints_J3[:, :2], cut)
        if cut.flipped:
            joints_J3 = joints_J3[list(MIRRORED)]
        weight_J = joints_J3[:, 2]
        place_J2 = np.where(weight_J[:, None] > 0, joints_J3[:, :2], 0.0)
        return {"place": place_J2.astype(np.float32), "weight": weight_J.astype(np.float32)}

    def loss(self, outputs: Tensor, target: Tensors) -> Mapping[str, Tensor]:
        """Binary cross entropy to Gaussians of peak 1."""
        maps_BJGG, drawn_BJ = _maps(target, cells=outputs.shape[-1])
        losses_B = keypoint_losses(outputs, maps_BJGG.to(outputs.device), drawn_BJ.to(outputs.device))
        return {"keypoints": losses_B.mean()}

    def constant(self, target: Tensors, num: int) -> Tensor:
        """The mean of the heatmaps."""
        maps_BJGG, drawn_BJ = _maps(target, cells=_CONSTANT_CELLS)
        mean_JGG = (maps_BJGG * drawn_BJ[..., None, None]).sum(0) / drawn_BJ.sum(0).clamp(min=1e-6)[:, None, None]
        return mean_JGG.clamp(1e-6, 1 - 1e-6).logit().expand(num, -1, -1, -1)

    def measure(self, outputs: Tensor, target: Tensors) -> Arrays:
        """Predicted and true places, and which joints are known and lie in the image."""
        true_BJ2 = target["place"].cpu().numpy()
        inside_BJ = ((true_BJ2 >= 0) & (true_BJ2 <= 1)).all(axis=2)
        known_BJ = (target["weight"].cpu().numpy() > 0) & inside_BJ
        return {"predicted": _places(outputs)[0], "true": true_BJ2, "known": known_BJ}

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """PCK and the mean error, relative to the person's size in the image.

        Raises:
            ValueError: no example has two known joints.
        """
        known_BJ = measured["known"].astype(bool)
        true_BJ2 = measured["true"].astype(np.float64)
        low_B2 = np.where(known_BJ[..., None], true_BJ2, np.inf).min(axis=1)
        high_B2 = np.where(known_BJ[..., None], true_BJ2, -np.inf).max(axis=1)
        size_B = (high_B2 - low_B2).max(axis=1)
        known_BJ &= size_B[:, None] > 0
        if not known_BJ.any():
            raise ValueError("no example has two known joints, so that nothing can be scored")
        error_BJ = np.linalg.norm(measured["predicted"] - true_BJ2, axis=2)
        errors = (error_BJ / np.where(size_B > 0, size_B, 1)[:, None])[known_BJ]
        size = "as a share of the longer side of the box around the known joints"
        return {
            **{
                f"pck_{share}": Score(
                    value=pck(errors, share),
                    unit="share",
                    better="higher",
                    convention=f"known joints of 13 within {share}, {size}; all joints pooled",
                )
                for share in (0.1, 0.2)
            },
            "error": Score(value=float(errors.mean()), unit="share", better="lower", convention=f"mean error {size}"),
        }

    def draw(self, image_HW3: npt.NDArray[np.uint8], outputs: Tensor, index: int) -> npt.NDArray[np.uint8]:
        """The skeleton: left limbs blue, right ones orange; only joints that the network is somewhat sure of, and where none is, it says so."""
        places_BJ2, sure_BJ = _places(outputs)
        out = image_HW3.copy()
        sides = out.shape[1], out.shape[0]
        dots = [tuple(int(v) for v in np.floor(place * sides)) for place in places_BJ2[index]]
        thick = max(1, min(sides) // 100)
        for a, b in _BONES:
            if min(sure_BJ[index, a], sure_BJ[index, b]) >= SEEN:
                same = a and a % 2 == b % 2
                colour = (_LEFT_RGB if a % 2 else _RIGHT_RGB) if same else _MIDDLE_RGB
                cv2.line(out, dots[a], dots[b], colour, thick, cv2.LINE_AA)
        for joint, dot in enumerate(dots):
            if sure_BJ[index, joint] >= SEEN:
                cv2.circle(out, dot, thick + 1, (0, 0, 0), -1, cv2.LINE_AA)
        if sure_BJ[index].max() < SEEN:
            row_px = max(9, sides[1] // 14)
            out[-row_px:] //= 3
            place = 3, sides[1] - row_px // 4
            cv2.putText(
                out, "no joint is sure", place, cv2.FONT_HERSHEY_SIMPLEX, row_px / 32, (255, 255, 255), 1, cv2.LINE_AA
            )
        return np.asarray(out)

    def write(self, out: Path, cut: Cut, outputs: Tensor) -> list[Path]:
        """Joints as JSON: x and y in the photograph, px, and how sure the network is."""
        places_BJ2, sure_BJ = _places(outputs)
        points_J2 = points_in_picture(places_BJ2[0] * cut.image_px - 0.5, cut)
        joints = {
            name: {"x_px": round(float(x), 2), "y_px": round(float(y), 2), "confidence": round(float(sure), 4)}
            for name, (x, y), sure in zip(JOINTS, points_J2, sure_BJ[0], strict=True)
        }
        path = out.with_suffix(".json")
        write_json(path, {"joints": joints})
        return [path]


class _OfLast(nn.Module):
    """The simple head on the last of the maps of tokens.

    A Gaussian fills a hundredth of its map. From even odds, a network of small steps would spend hundreds of them on learning that alone.
    """

    def __init__(self, width: int, num_patches: int) -> None:
        super().__init__()
        self.simple = KeypointHead(width)
        share = 2 * math.pi * SIGMA_CELLS**2 / (num_patches * PATCH_CELLS**2)
        nn.init.constant_(self.simple.bias, -math.log(max(1 / share - 1, 1.0)))

    def forward(self, maps_BND: Sequence[Tensor]) -> Tensor:
        logits_BJGG: Tensor = self.simple(maps_BND[-1])
        return logits_BJGG


def _maps(target: Tensors, *, cells: int) -> tuple[Tensor, Tensor]:
    place_BJ2, weight_BJ = target["place"].cpu().numpy(), target["weight"].cpu().numpy()
    return gaussians(place_BJ2 * cells, weight_BJ, cells=cells)


def _places(logits_BJGG: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The middle of the largest cell of each heatmap, (B, J, 2) as shares of the side, and its value as a probability."""
    cells = logits_BJGG.shape[-1]
    peak = logits_BJGG.detach().float().flatten(2).max(dim=2)
    at_BJ = peak.indices.cpu().numpy()
    places_BJ2 = (np.stack([at_BJ % cells, at_BJ // cells], axis=-1) + 0.5) / cells
    return places_BJ2.astype(np.float32), peak.values.sigmoid().cpu().numpy()

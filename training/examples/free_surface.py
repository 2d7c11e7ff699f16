"""Rendered people with places on the body's surface, as DensePose has them of photographs: some pixels of each, told exactly.

Shape letters: `P` pixels, `H W` picture.
"""

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from manifests.errors import TrainingError
from manifests.seeds import rng_for
from training.assets import asset
from training.examples.base import About, Example
from training.examples.free import Free
from training.tasks.surface import read_template

NUM_POINTS = 196  # on a person, as many as DensePose trains on
LATTICE = 24  # places a side of the square at which the background is told

# DensePose's 14 coarse parts (torso, hands, feet, upper and lower legs, upper and lower arms, head) of SMPL's 24 joints, after 0.
COARSE = np.array([0, 1, 7, 6, 1, 9, 8, 1, 4, 5, 1, 4, 5, 14, 1, 1, 14, 10, 11, 12, 13, 3, 2, 3, 2], dtype=np.uint8)


class FreeSurface:
    """Rendered people, each with pixels whose part, u and v are known; see `training.tasks.surface` for what these are.

    Args:
        root: of a build whose renders keep parts and uv.
        split: train, val or test.
        body: file of the body that was rendered; the free one by default.

    Raises:
        TrainingError: the build has no such labels, or the body cannot be read.
    """

    def __init__(self, root: Path, *, split: str, body: str | None = None) -> None:
        self._free = Free(root, split=split)
        if not {"parts", "uv"} <= set(self._free.about.labels):
            raise TrainingError("the renders have no parts and uv", where=root, hint="make render RECIPE=free_body")
        self._template = read_template(body_file(body))
        self._about = replace(
            self._free.about,
            labels=("surface", "coarse", "coarse_box_xyxy_px", *self._free.about.labels),
            protocol=f"{self._free.about.protocol}; {NUM_POINTS} pixels of each person",
        )

    @property
    def about(self) -> About:
        """What is known of all."""
        return self._about

    def __len__(self) -> int:
        return len(self._free)

    def __getitem__(self, index: int) -> Example:
        """Decode one; its pixels are drawn from its key."""
        example = self._free[index]
        parts_HW, uv_HW2 = example.labels["parts"], example.labels["uv"]
        height, width = parts_HW.shape
        y_n, x_n = np.nonzero(parts_HW)
        rng = rng_for("free surface", example.key)
        kept = np.sort(rng.permutation(len(y_n))[:NUM_POINTS])
        y_P, x_P = y_n[kept], x_n[kept]
        part_P, place_P2 = self._template.place(uv_HW2[y_P, x_P], parts_HW[y_P, x_P])
        left, top, right, bottom = example.square_xyxy_px
        xs, ys = (np.rint(np.linspace(a, b, LATTICE)).astype(int) for a, b in ((left, right), (top, bottom)))
        x_o, y_o = (grid.ravel() for grid in np.meshgrid(xs[(xs >= 0) & (xs < width)], ys[(ys >= 0) & (ys < height)]))
        off = parts_HW[y_o, x_o] == 0
        told_P5 = np.column_stack([x_P, y_P, part_P, place_P2])
        off_P5 = np.pad(np.column_stack([x_o[off], y_o[off]]), ((0, 0), (0, 3)))
        labels = {
            "surface": np.concatenate([told_P5, off_P5]).astype(np.float32),
            "coarse": COARSE[parts_HW],
            "coarse_box_xyxy_px": np.array([0, 0, width, height]) - 0.5,
        }
        return replace(example, labels=ChainMap(labels, example.labels))  # type: ignore[arg-type]  # maps stay undecoded until asked for

    def subjects(self) -> Sequence[str | None]:
        """The person of each picture."""
        return self._free.subjects()


def body_file(given: str | None) -> Path:
    """The given file, or the free body of the assets."""
    return Path(given) if given else asset("body.npz")

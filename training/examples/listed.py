"""Examples whose pictures are files: a list of entries, decoded one at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.geometry import square_around
from training.examples.base import About, Example
from training.examples.pictures import read_picture

Floats = npt.NDArray[np.float64]
Square = npt.NDArray[np.float64] | Callable[[int, int], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One example before its picture is read.

    Args:
        key: unique in its dataset.
        picture: its file.
        square_xyxy_px: (4,) edges, or what makes them of the picture's width and height.
        labels: of `training.examples.base.LABELS`; a function is called when the example is read.
        subject: who it is.
        second: file of the second picture.
        second_square_xyxy_px: (4,) edges in it.
    """

    key: str
    picture: Path
    square_xyxy_px: Square
    labels: Mapping[str, Any] = field(default_factory=dict)
    subject: str | None = None
    second: Path | None = None
    second_square_xyxy_px: npt.NDArray[np.float64] | None = None


def entry_of_joints(key: str, picture: Path, xy_J2: Floats, xyz_m: Floats, *, subject: str, margin: float) -> Entry:
    """An example of which joints are known in the picture and in the camera, all of them seen.

    Args:
        key: unique in its dataset.
        picture: its file.
        xy_J2: pixels.
        xyz_m: (J, 3) metres, camera axes.
        subject: who it is.
        margin: side of the square, as a multiple of the longer side of the joints' box.
    """
    return Entry(
        key=key,
        picture=picture,
        square_xyxy_px=square_around(np.concatenate([xy_J2.min(axis=0), xy_J2.max(axis=0)]), margin=margin),
        labels={
            "joints_m": xyz_m.astype(np.float32),
            "keypoints_px": np.column_stack([xy_J2, np.ones(len(xy_J2))]).astype(np.float32),
        },
        subject=subject,
    )


class Listed:
    """Examples of a list, in its order.

    Args:
        about: what is known of all.
        entries: one per example.
    """

    def __init__(self, about: About, entries: Sequence[Entry]) -> None:
        self._about, self._entries = about, entries

    @property
    def about(self) -> About:
        """See `Examples.about`."""
        return self._about

    def __len__(self) -> int:
        """See `Examples`."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """See `Examples`."""
        entry = self._entries[index]
        rgb_HW3 = read_picture(entry.picture, where=entry.picture)
        square = entry.square_xyxy_px
        return Example(
            key=entry.key,
            rgb_HW3=rgb_HW3,
            square_xyxy_px=square(rgb_HW3.shape[1], rgb_HW3.shape[0]) if callable(square) else square,
            labels={name: value() if callable(value) else value for name, value in entry.labels.items()},
            subject=entry.subject,
            second_HW3=None if entry.second is None else read_picture(entry.second, where=entry.second),
            second_square_xyxy_px=entry.second_square_xyxy_px,
        )

    def subjects(self) -> list[str | None]:
        """See `Examples.subjects`."""
        return [entry.subject for entry in self._entries]

    def keys(self) -> list[str]:
        """The key of each, without decoding."""
        return [entry.key for entry in self._entries]

    def class_indices(self) -> list[int]:
        """The class of each, without decoding; -1 where it has none."""
        return [int(entry.labels.get("class", -1)) for entry in self._entries]

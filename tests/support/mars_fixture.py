"""MARS in miniature: three tracklets to learn from, six to test on, and what is wrong with the real one.

Drawn by `tests.support.honest`: a tracklet's first frame has the code's instant `first`, the view is the camera from 0.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.support import honest

SIZE = (128, 256)
LENSES = honest.ring(6, size=SIZE)


@dataclass(frozen=True)
class Tracklet:
    """One track as it is drawn: frames (from 1) and the code's instant of frame 0."""

    folder: str
    pid: str
    camera: int
    number: int
    frames: tuple[int, ...]
    base: int
    person: int

    def names(self) -> list[str]:
        """Its file names, in order."""
        return [f"{self.pid}C{self.camera}T{self.number:04d}F{frame:03d}.jpg" for frame in self.frames]


TRAIN = (
    Tracklet("bbox_train", "0001", 1, 1, (1, 2, 3, 4), 0, 1),
    Tracklet("bbox_train", "0001", 1, 2, (1, 2, 3), 6, 1),
    Tracklet("bbox_train", "0001", 6, 1, (1, 2, 3, 4, 5), 3, 1),  # numbers restart in each camera
    Tracklet("bbox_train", "0003", 2, 1, (1, 2, 4), 2, 4),  # one camera only, a frame lost
)
TEST = (
    Tracklet("bbox_test", "00-1", 1, 1, (1, 2), 0, 0),
    Tracklet("bbox_test", "00-1", 2, 1, (1,), 0, 0),
    Tracklet("bbox_test", "0000", 1, 1, (1, 2, 3), 0, 3),
    Tracklet("bbox_test", "0002", 1, 1, (1, 2, 3), 0, 2),
    Tracklet("bbox_test", "0002", 3, 1, (1, 2, 3), 4, 2),
    Tracklet("bbox_test", "0004", 5, 1, (1, 2), 8, 5),
)
QUERIES = (4, 6)  # rows of the test table, from 1


@dataclass(frozen=True)
class Truth:
    """What was written: (instant, view) of the code by (pid, camera, tracklet, frame)."""

    codes: dict[tuple[str, int, int, int], tuple[int, int]] = field(default_factory=dict)

    def code_of(self, track: str, sequence: str, instant: int) -> tuple[int, int]:
        """The code of a frame, by its key's parts."""
        return self.codes[sequence, int(track[1]), int(track[3:]), instant]


def write_mars(root: Path, *, info: bool = True, faults: bool = True) -> Truth:
    """Write the dataset.

    Args:
        root: becomes `mars/`.
        info: with the tables of tracks.
        faults: one image cut short, one of another size, one of another name and one that no table lists.
    """
    truth = Truth()
    (root / "info").mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of MARS\n")
    for part, tracklets in (("train", TRAIN), ("test", TEST)):
        names: list[str] = []
        rows = []
        for one in tracklets:
            first = len(names) + 1
            for frame, name in zip(one.frames, one.names(), strict=True):
                code = (one.base + frame, one.camera - 1)
                drawn = honest.draw(
                    LENSES[one.camera - 1], [honest.body(one.person, code[0])], instant=code[0], view=code[1]
                )
                honest.write_jpeg(root / one.folder / one.pid / name, drawn.rgb)
                truth.codes[one.pid, one.camera, one.number, frame] = code
                names.append(name)
            rows.append([first, len(names), -1 if one.pid == "00-1" else int(one.pid), one.camera])
        if info:
            (root / f"info/{part}_name.txt").write_text("\n".join(names) + "\n")
            table = {f"track_{part}_info": np.array(rows, np.int32)}
            savemat(root / f"info/tracks_{part}_info.mat", table)
    if info:
        savemat(root / "info/query_IDX.mat", {"query_IDX": np.array([QUERIES], np.uint16)})
    else:
        (root / "info").rmdir()
    if faults:
        folder = root / "bbox_train/0003"
        cut = folder / "0003C2T0001F004.jpg"
        cut.write_bytes(cut.read_bytes()[:600])
        grown = honest.draw(honest.ring(1, size=(64, 128))[0], [honest.body(4, 3)], instant=3, view=1)
        honest.write_jpeg(folder / "0003C2T0002F001.jpg", grown.rgb)  # in no table, and of another size
        honest.write_jpeg(folder / "copy of 0003C2T0001F001.jpg", grown.rgb)
        (folder / "Thumbs.db").write_bytes(b"\0")
    return truth

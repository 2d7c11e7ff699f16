"""AIST Dance Video DB and AIST++ in miniature: true names, tree, types and faults; one step of the figures per instant.

| sequence | what is special |
|---|---|
| `SYNCED` | AIST++'s own exception: c05 shows what the others show `LAG` instants later; c03 is 59.94 fps; c06 was saved again at 30 fps; four were not downloaded; one NaN instant, one NaN joint; annotated for one frame less than filmed |
| `ODD` | the other exception: c07 is 640x480; c04 is cut short; keypoints in the newer form, with a second person; in the ignore list |
| `ADVANCED` | the dancer of `SYNCED` once more, in another list of the subject protocol |
| `BARE` | no annotations at all |
| `UNFILMED` | annotated, but without videos |
| `CROWDS` | videos of several dancers |
"""

import json
import pickle
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.support import honest
from tests.support.pickles import python2_pickle
from tests.support.videos import cut_file

SIZE = (640, 360)  # in place of 1920x1080
NUM = 12  # instants
LAG = 3
NTSC = Fraction(60000, 1001)

SYNCED = "gBR_sBM_cAll_d04_mBR0_ch01"
ODD = "gJB_sBM_cAll_d07_mJB3_ch05"
ADVANCED = "gBR_sFM_cAll_d04_mBR4_ch07"
BARE = "gHO_sBM_cAll_d20_mHO0_ch02"
UNFILMED = "gWA_sBM_cAll_d26_mWA2_ch08"
CROWDS = (
    "gPO_sGR_c01_d10_d11_d12_mPO1_ch10",
    "gKR_sBT_c01_d21_d31_v5",
    "gLO_sSH_c01_v0",
    "gMH_sCY_c01_v3",
)
PEOPLE = {SYNCED: 0, ODD: 1, ADVANCED: 0, BARE: 2, UNFILMED: 3}
VIEWS = {
    SYNCED: ("c01", "c02", "c03", "c05", "c06"),
    ODD: ("c01", "c02", "c04", "c07"),
    ADVANCED: ("c01", "c02"),
    BARE: ("c01", "c02"),
}
NAN_VIEW, NAN_INSTANT = "c02", 3  # of SYNCED: nobody was found
NAN_JOINT = ("c01", 5, 9)  # of SYNCED: view, instant, joint
SLOW = "c06"  # of SYNCED: every second instant
UNSEEN = ("c02", 4)  # of ODD: nobody was found


@dataclass(frozen=True)
class Truth:
    """What was written: the lenses by sequence and view, and the code that each frame of a video shows."""

    lenses: dict[tuple[str, str], honest.Lens]

    def shown(self, sequence: str, view: str, instant: int) -> int:
        """The step of the gesture, and the code's instant, that a view shows at an instant of the 60 Hz grid."""
        return instant + LAG if (sequence, view) == (SYNCED, "c05") else instant

    def figure(self, sequence: str, view: str, instant: int) -> honest.Figure:
        """Who is seen there."""
        return honest.body(PEOPLE[sequence], self.shown(sequence, view, instant))

    def drawn(self, sequence: str, view: str, instant: int) -> honest.Drawn:
        """The picture."""
        number = int(view[1:]) - 1
        lens, figure = self.lenses[sequence, view], self.figure(sequence, view, instant)
        return honest.draw(lens, [figure], instant=self.shown(sequence, view, instant), view=number)

    def keypoints(self, sequence: str, view: str, instant: int) -> np.ndarray:
        """(17, 3) COCO keypoints, px, as a perfect detector finds them."""
        points = self.lenses[sequence, view].pixels(self.figure(sequence, view, instant).coco17())
        return np.concatenate([points, np.full((17, 1), 0.9)], axis=1)


def write_aist(root: Path, *, annotations: str = "aist_plusplus_final", videos: str = "videos") -> Truth:
    """Write the dataset.

    Args:
        root: a folder.
        annotations: the folder of AIST++ below it; empty: parts as they come one by one, `20210308_cameras/cameras`, ...
        videos: the folder of the videos below it.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of AIST++\n")
    rings = {1: honest.ring(9, size=SIZE), 2: honest.ring(9, size=SIZE, distortion=(-0.05, 0, 0, 0, 0))}
    settings = {SYNCED: 1, ODD: 2, ADVANCED: 1, BARE: 1, UNFILMED: 2}
    lenses = {(s, f"c{k:02d}"): lens for s in settings for k, lens in enumerate(rings[settings[s]], start=1)}
    lenses[ODD, "c07"] = honest.ring(9, size=(640, 480))[6]
    truth = Truth(lenses)
    for sequence, views in VIEWS.items():
        for view in views:
            _write_video(root / videos, truth, sequence, view)
    cut_file(_video(root / videos, ODD, "c04"), 0.7)
    for name in CROWDS:
        honest.write_mp4(root / videos / f"{name}.mp4", [truth.drawn(SYNCED, "c01", 0).rgb], Fraction(60))
    _write_annotations(root, annotations, truth, settings, rings)
    return truth


def _video(folder: Path, sequence: str, view: str) -> Path:
    return folder / f"{sequence.replace('cAll', view)}.mp4"


def _write_video(folder: Path, truth: Truth, sequence: str, view: str) -> None:
    special = {"c03": NTSC, SLOW: Fraction(30)} if sequence == SYNCED else {}
    fps = special.get(view, Fraction(60))
    instants = range(0, NUM, 2 if fps == 30 else 1)
    honest.write_mp4(_video(folder, sequence, view), (truth.drawn(sequence, view, k).rgb for k in instants), fps)


def _write_annotations(
    root: Path, home: str, truth: Truth, settings: dict[str, int], rings: dict[int, list[honest.Lens]]
) -> None:
    def part(name: str) -> Path:
        folder = root / home / name if home else root / f"20210308_{name}" / name
        folder.mkdir(parents=True)
        return folder

    annotated = [sequence for sequence in settings if sequence != BARE]
    cameras = part("cameras")
    (cameras / "mapping.txt").write_text("\n".join(f"{name} setting{settings[name]}" for name in annotated))
    for number, lenses in rings.items():
        listed = [_camera(f"c{k:02d}", lens) for k, lens in enumerate(lenses, start=1)]
        (cameras / f"setting{number}.json").write_text(json.dumps(listed))
    keypoints = part("keypoints2d")
    for name in annotated:
        path = keypoints / f"{name}.pkl"
        if name == ODD:
            path.write_bytes(pickle.dumps(_newer_form(truth, name), protocol=4))
        else:
            path.write_bytes(python2_pickle(_older_form(truth, name)))
    for unread in ("keypoints3d", "motions"):
        (part(unread) / f"{SYNCED}.pkl").write_bytes(b"not read")
    splits = part("splits")
    lists = {
        "pose_train": [SYNCED, UNFILMED], "pose_val": [ADVANCED], "pose_test": [ODD],
        "crossmodal_train": [SYNCED, ODD], "crossmodal_val": [UNFILMED], "crossmodal_test": [],
    }  # fmt: skip
    for name, sequences in lists.items():
        (splits / f"{name}.txt").write_text("\n".join(sequences))
    (root / home / "ignore_list.txt").write_text(f"\n{ODD}.json")  # as copies have it: no newline at the end


def _camera(name: str, lens: honest.Lens) -> dict[str, object]:
    """As aniposelib writes it; centimetres."""
    return {
        "name": name,
        "size": list(lens.size),
        "matrix": lens.K.tolist(),
        "distortions": lens.distortion.tolist(),
        "rotation": lens.rvec.tolist(),
        "translation": (lens.translation_m * 100).tolist(),
    }


def _older_form(truth: Truth, sequence: str) -> dict[str, np.ndarray]:
    """Arrays; one frame less than was filmed."""
    num = NUM - 1
    views = [f"c{k:02d}" for k in range(1, 10)]
    points = np.array([[truth.keypoints(sequence, view, k) for k in range(num)] for view in views], np.float32)
    scores = np.full((9, num), 0.95, np.float32)
    if sequence == SYNCED:
        view, instant, joint = NAN_JOINT
        points[views.index(view), instant, joint] = np.nan
        points[views.index(NAN_VIEW), NAN_INSTANT] = np.nan
        scores[views.index(NAN_VIEW), NAN_INSTANT] = 0
    stamps = np.rint(np.arange(num) * 1e6 / 60).astype(np.int64)
    return {"keypoints2d": points, "det_scores": scores, "timestamps": stamps}


def _newer_form(truth: Truth, sequence: str) -> dict[str, object]:
    """Nested lists of (people, 133, 3) and (people, 5): a stranger with a lower score comes first."""
    rng = np.random.default_rng(0)
    points, boxes = [], []
    for number in range(1, 10):
        view = f"c{number:02d}"
        mine, around = [], []
        for k in range(NUM):
            if (view, k) == UNSEEN:
                mine.append(np.zeros((0, 133, 3), np.float32))
                around.append(np.zeros((0, 5), np.float32))
                continue
            body = truth.keypoints(sequence, view, k)
            whole = np.concatenate([body, np.tile(body[:1], (116, 1))])  # feet, face and hands are not read
            stranger = rng.uniform(0, 60, (133, 3))
            mine.append(np.stack([stranger, whole]).astype(np.float32))
            around.append(np.array([[0, 0, 60, 60, 0.4], [*whole[:17, :2].min(0), *whole[:17, :2].max(0), 0.9]]))
        points.append(mine)
        boxes.append(around)
    return {"keypoints2d": points, "bboxes": boxes, "timestamps": [[k / 60 for k in range(NUM)] for _ in range(9)]}

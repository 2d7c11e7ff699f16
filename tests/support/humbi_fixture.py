"""HUMBI in miniature: two subjects' body sessions, one subject's hands; true names and texts, true defects.

What is wrong with it, on purpose: camera 24 of subject 82 has no picture in frame 17; camera 57 of it is in intrinsic.txt and
not in extrinsic.txt, and has a picture; camera 60 has a rotation of zeros. Subject 7 has CRLF texts with runs of blanks, no
keypoints in frame 17, two of them unknown in frame 1, and two cameras more: 30, that looks away, and 31, whose P contradicts. Of the
hands, left and right are shown by different cameras, and one crop of the right hand shows no hand.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from manifests.types import FrameKey
from pipeline.squares import Floats
from tests.support.honest import Figure, Lens, body, draw, hand, ring, write_jpeg, write_png

SIZE = (1920, 1080)
CROP_PX = 250
FRAMES = (1, 17)
CAMERAS = (0, 1, 2, 24, 104)
LEFT, RIGHT = (0, 1, 2, 24), (1, 2, 24, 104)
EMPTY = (104, 1, "right")  # camera, frame, side

# The fixture's z is up; HUMBI's y is down.
HUMBI_FROM_FIXTURE = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


@dataclass
class Truth:
    """What the fixture was drawn with.

    Attributes:
        root: of all bundles.
        lenses: by subject, session and camera, in the fixture's world.
        boxes: by subject, side, frame and camera: xmin, xmax, ymin, ymax of a hand's crop.
    """

    root: Path
    lenses: dict[tuple[int, str, int], Lens] = field(default_factory=dict)
    boxes: dict[tuple[int, str, int, int], tuple[int, int, int, int]] = field(default_factory=dict)

    def code(self, key: FrameKey) -> tuple[int, int]:
        """Instant and view that a frame's pixels say."""
        return FRAMES.index(key.instant), CAMERAS.index(int(key.view[3:]))

    def lens(self, key: FrameKey) -> Lens:
        """The camera of a frame; of a hand, that of its crop."""
        subject, camera = int(key.track.split("-")[1]), int(key.view[3:])
        side = key.track.split("-")[2:]
        lens = self.lenses[subject, "hand" if side else "body", camera]
        return self.crop_lens(lens, self.boxes[subject, side[0], key.instant, camera]) if side else lens

    def figure(self, key: FrameKey) -> Figure:
        """Whom a frame shows."""
        subject, *side = key.track.split("-")[1:]
        return hand_of(side[0], key.instant) if side else body_of(int(subject), key.instant)

    @staticmethod
    def crop_lens(lens: Lens, box: tuple[int, int, int, int]) -> Lens:
        """The lens of a crop: edges of the box are edges of the crop."""
        xmin, xmax, ymin, ymax = box
        K = lens.K.copy()
        K[0] *= CROP_PX / (xmax - xmin)
        K[1] *= CROP_PX / (ymax - ymin)
        K[0, 2] = (lens.K[0, 2] - xmin) * CROP_PX / (xmax - xmin) - 0.5
        K[1, 2] = (lens.K[1, 2] - ymin) * CROP_PX / (ymax - ymin) - 0.5
        return dataclasses.replace(lens, K=K, size=(CROP_PX, CROP_PX))


def body_of(subject: int, frame: int) -> Figure:
    """A subject's body in a frame."""
    return body(subject % 5, frame)


def hand_of(side: str, frame: int) -> Figure:
    """The hand of subject 7 in a frame; left and right are told apart by colour."""
    return hand(2 if side == "left" else 3, frame, side, at=(0, -0.35 if side == "left" else 0.35, 1))


def write_humbi(root: Path) -> Truth:
    """Write the bundles Body_1_80, Body_81_140 and Hand_1_80, and empty face and cloth ones."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("synthetic pictures; no frame of HUMBI is here\n")
    truth = Truth(root)
    _write_body(truth, root / "Body_81_140" / "subject_82" / "body", 82)
    _write_body(truth, root / "Body_1_80" / "subject_7" / "body", 7)
    _write_hand(truth, root / "Hand_1_80" / "subject_7" / "hand", 7)
    cloth = root / "Body_cloth_81_140" / "subject_82" / "body" / "00000001" / "reconstruction_cloth"
    cloth.mkdir(parents=True)
    (cloth / "top_vertex.txt").write_text("0 0 0\n")
    (root / "Face_1_80" / "subject_7" / "face" / "00000001").mkdir(parents=True)
    return truth


def _write_body(truth: Truth, folder: Path, subject: int) -> None:
    lenses = dict(zip(CAMERAS, ring(len(CAMERAS), size=SIZE, radius_m=2.6), strict=True))
    texts = dict(lenses)
    if subject == 82:
        texts |= {57: lenses[0], 60: lenses[1]}
        write_cameras(folder, texts, only_intrinsic=(57,), absent=(60,))
    else:
        away = np.diag([-1.0, 1, -1, 1])  # turned half round
        texts[30] = dataclasses.replace(lenses[0], camera_from_world=away @ lenses[0].camera_from_world)
        texts[31] = lenses[1]
        write_cameras(folder, texts, contradicts=(31,), end="\r\n", blanks="   ")
    truth.lenses |= {(subject, "body", camera): lens for camera, lens in texts.items()}
    for rank, frame in enumerate(FRAMES):
        figure = body_of(subject, frame)
        at = folder / f"{frame:08d}"
        for view, (camera, lens) in enumerate(lenses.items()):
            if (subject, frame, camera) != (82, 17, 24):
                drawn = draw(lens, [figure], instant=rank, view=view)
                write_jpeg(at / "image" / f"image{camera:07d}.jpg", drawn.rgb)
        extra = (57,) if subject == 82 else (30, 31)
        for camera in extra:
            write_jpeg(at / "image" / f"image{camera:07d}.jpg", draw(lenses[0], [figure], instant=rank, view=0).rgb)
        keypoints = _in_humbi(figure.body25())
        if subject == 7:  # two points were not triangulated
            keypoints[4], keypoints[15] = 0, np.nan
        if (subject, frame) != (7, 17):
            _write_points(at / "reconstruction" / "keypoints.txt", keypoints)
        _write_points(at / "reconstruction" / "smpl_vertex.txt", _in_humbi(figure.surface(6890)))
        (at / "reconstruction" / "smpl_parameter.txt").write_text("0\n" * 86)


def _write_hand(truth: Truth, folder: Path, subject: int) -> None:
    lenses = dict(zip(CAMERAS, ring(len(CAMERAS), size=SIZE, radius_m=1.1, focal_px=1300), strict=True))
    write_cameras(folder, lenses)
    truth.lenses |= {(subject, "hand", camera): lens for camera, lens in lenses.items()}
    for rank, frame in enumerate(FRAMES):
        for side, cameras in (("left", LEFT), ("right", RIGHT)):
            figure = hand_of(side, frame)
            at, listed = folder / f"{frame:08d}" / "image_cropped" / side, []
            for camera in cameras:
                lens = lenses[camera]
                drawn = draw(lens, [figure], instant=rank, view=CAMERAS.index(camera))
                x0, y0, x1, y1 = np.rint(drawn.box()).astype(int)
                if (camera, frame, side) == EMPTY:
                    x0, x1 = x0 - 700, x1 - 700
                grow = (max(x1 - x0, y1 - y0) * 5) // 4
                xmin, ymin = (x0 + x1 - grow) // 2, (y0 + y1 - grow) // 2
                box = truth.boxes[subject, side, frame, camera] = (xmin, xmin + grow, ymin, ymin + grow)
                scale = CROP_PX / grow
                crop_from_picture = np.array([[scale, 0, -0.5 - scale * xmin], [0, scale, -0.5 - scale * ymin]])
                crop = cv2.warpAffine(drawn.rgb, crop_from_picture, (CROP_PX,) * 2, borderMode=cv2.BORDER_REPLICATE)
                write_png(at / f"image{camera:07d}.png", crop)
                listed.append((camera, *box))
            comma = ", " if side == "left" else "  "
            (at / "list.txt").write_text("".join(comma.join(map(str, line)) + "\n" for line in listed))
            recon = folder / f"{frame:08d}" / "reconstruction"
            _write_points(recon / f"keypoints_{side[0]}.txt", _in_humbi(figure.hand21()))
            _write_points(recon / f"vertices_{side[0]}.txt", _in_humbi(figure.surface(778)))
            (recon / f"mano_params_{side[0]}.txt").write_text("0\n" * 36)


def write_cameras(
    folder: Path,
    lenses: dict[int, Lens],
    *,
    only_intrinsic: tuple[int, ...] = (),
    absent: tuple[int, ...] = (),
    contradicts: tuple[int, ...] = (),
    end: str = "\n",
    blanks: str = " ",
) -> None:
    """Write the three camera texts of a session."""
    folder.mkdir(parents=True, exist_ok=True)
    heading = [f"Numcam: {len(lenses)}", f"numframes: {len(FRAMES)}", f"numP: {len(lenses)}"]
    blocks: dict[str, list[str]] = {name: list(heading) for name in ("intrinsic", "extrinsic", "project")}
    for camera, lens in lenses.items():
        R = lens.rotation @ HUMBI_FROM_FIXTURE[:3, :3].T
        C = HUMBI_FROM_FIXTURE[:3, :3] @ lens.centre_m
        P = lens.K @ R @ np.column_stack([np.eye(3), -C])
        R = R * (camera not in absent)
        P = P + (camera in contradicts) * np.array([[0, 0, 0, 90], [0, 0, 0, 0], [0, 0, 0, 0]])
        blocks["intrinsic"] += [f"0 {camera}", *_rows(lens.K, blanks)]
        if camera not in only_intrinsic:
            blocks["extrinsic"] += [f"0 {camera}", *_rows(np.vstack([C, R]), blanks)]
            blocks["project"] += [f"0 {camera}", *_rows(P, blanks)]
    for name, lines in blocks.items():
        (folder / f"{name}.txt").write_text(end.join([*lines, ""]), newline="")


def _rows(matrix: Floats, blanks: str) -> list[str]:
    return [blanks.join(f"{value:.8f}" for value in row) + " " for row in matrix]


def _in_humbi(points_m: Floats) -> Floats:
    return points_m @ HUMBI_FROM_FIXTURE[:3, :3].T


def _write_points(path: Path, points: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(f"{value:.6f}" for value in row) for row in points) + "\n")

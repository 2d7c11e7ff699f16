"""SMPLMarket in miniature: its true layout and its true kinds of defects, invented people.

A body is an ellipsoid of SMPL's 6890 vertices before the camera that Texformer renders with; its colours are those of its texture.
"""

import pickle
import shutil
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from manifests.splits import split_of
from manifests.types import Split
from tests.support import smpl_files
from tests.support.smpl_textures import spherical_uvs, write_uv_obj
from training.examples.smpl_market import FOCAL, VAL_SHARE, uv_of_body
from training.tasks.atlas import read_charts

DISTANCE_M = 2 * FOCAL / 1.0  # a body of two metres fills the picture


@dataclass
class Truth:
    """What was written: the folder, the body's arrays, and by picture its vertices in the camera's axes."""

    root: Path
    arrays: dict[str, np.ndarray]
    verts: dict[str, np.ndarray] = field(default_factory=dict)


def people(split: Split, num: int, start: int = 1) -> list[str]:
    """Names of people of the train list who fall into a split."""
    names = (f"{number:04d}" for number in range(start, 10_000))
    return [name for name in names if split_of(str(int(name)), seed=0, val_share=VAL_SHARE) is split][:num]


@lru_cache
def body(seed: int = 0) -> dict[str, np.ndarray]:
    """The ellipsoid; nobody changes it."""
    return smpl_files.model("smpl", seed=seed)


def write_smpl_market(root: Path, *, num_train: int = 3, num_test: int = 2, faults: bool = True) -> Truth:
    """Write the dataset.

    Args:
        root: becomes `SMPLMarket/`.
        num_train: people of the train split; two more are validated on, and one is scored.
        num_test: people of the test list.
        faults: what is wrong with copies of it, see `_spoil`.
    """
    truth = Truth(root, body())
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of SMPLMarket\n")
    write_uv_obj(root / "smpl_uv.obj", truth.arrays["v_template"], truth.arrays["f"])
    train = [*people(Split.TRAIN, num_train), *people(Split.VAL, 2)]
    test = [f"{number:04d}" for number in range(1400, 1400 + num_test)]
    lists = {
        name: {int(person): [_write_picture(truth, folder, person, take) for take in range(3)] for person in those}
        for name, folder, those in (
            ("out_dict_train", "bounding_box_train", train),
            ("out_dict_test", "bounding_box_test", test),
        )
    }
    scored = [pictures[take] for pictures in lists["out_dict_test"].values() for take in (0, 1)]
    if faults:
        _spoil(truth, lists, scored)
    write_lists(root, lists, scored)
    return truth


def write_lists(root: Path, lists: dict[str, dict[int, list[str]]], scored: list[str]) -> None:
    """Write both lists as Python 3 pickles."""
    (root / "train_test_img_paths_pid.pkl").write_bytes(pickle.dumps(lists))
    (root / "eval_list.pkl").write_bytes(pickle.dumps(scored))


def write_body(root: Path, picture: str, verts: np.ndarray, shift: np.ndarray) -> Path:
    """Write a body as RSC-Net's output lies there."""
    path = root / "SMPL_RSC" / "pkl" / f"{Path(picture).stem}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps([verts.astype(np.float32), shift.astype(np.float32)]))
    return path


def texture_of(person: str, side: int = 64) -> np.ndarray:
    """(T, T, 3) uint8 what a person wears."""
    rng = np.random.default_rng(int(person))
    return cv2.resize(rng.integers(30, 220, (4, 4, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


def _write_picture(truth: Truth, folder: str, person: str, take: int) -> str:
    """A person turned another way in each picture, before grey noise."""
    picture = f"{folder}/{person}_c{take + 1}s1_{take:06d}_00.jpg"
    turn = 2 * np.pi * take / 3 + 0.2 * int(person)
    cos, sin = np.cos(turn), np.sin(turn)
    verts = truth.arrays["v_template"] @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    shift = np.array([0.02 * take, -0.03, DISTANCE_M])
    write_body(truth.root, picture, verts, shift)
    truth.verts[picture] = verts.astype(np.float32).astype(float) + shift.astype(np.float32)
    uv = uv_of_body(read_charts(truth.root / "smpl_uv.obj"), truth.verts[picture])
    texture = texture_of(person)
    texel = (uv * (1, -1) + (0, 1)) * len(texture)
    row, column = (np.clip(texel[..., axis].astype(int), 0, len(texture) - 1) for axis in (1, 0))
    rng = np.random.default_rng(take)
    noise = rng.integers(90, 140, (*uv.shape[:2], 1)).repeat(3, axis=2).astype(np.uint8)
    rgb = np.where(uv[..., :1] >= 0, texture[row, column], noise)
    path = truth.root / picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, quality=98, subsampling=0)
    return picture


def _spoil(truth: Truth, lists: dict[str, dict[int, list[str]]], scored: list[str]) -> None:
    """One of each: a picture that is lost, cut short, of another size; a body that is lost, cut short, without a number, elsewhere.

    And a person of the train list who is scored, as another picture of him.
    """
    first = lists["out_dict_train"][int(people(Split.TRAIN, 1)[0])]
    source = first[0]
    person = Path(source).name.partition("_")[0]
    made = []
    for take in range(10, 17):
        picture = f"bounding_box_train/{person}_c1s1_{take:06d}_00.jpg"
        shutil.copy(truth.root / source, truth.root / picture)
        verts = truth.arrays["v_template"]
        write_body(truth.root, picture, verts, np.array([0.0, 0.0, DISTANCE_M]))
        made.append(picture)
    first += made
    bodies = [truth.root / "SMPL_RSC" / "pkl" / f"{Path(picture).stem}.pkl" for picture in made]
    (truth.root / made[0]).unlink()
    (truth.root / made[1]).write_bytes((truth.root / made[1]).read_bytes()[:2000])
    Image.fromarray(np.zeros((96, 64, 3), np.uint8)).save(truth.root / made[2])
    bodies[3].unlink()
    bodies[4].write_bytes(bodies[4].read_bytes()[:5000])
    spoilt = truth.arrays["v_template"].copy()
    spoilt[7, 1] = np.nan
    write_body(truth.root, made[5], spoilt, np.array([0.0, 0.0, DISTANCE_M]))
    write_body(truth.root, made[6], truth.arrays["v_template"], np.array([30.0, 0.0, DISTANCE_M]))
    both = people(Split.TRAIN, 1, start=1000)[0]
    lists["out_dict_train"][int(both)] = [_write_picture(truth, "bounding_box_train", both, take) for take in range(2)]
    scored.append(_write_picture(truth, "bounding_box_test", both, 2))


def uv_of_vertices(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The two pairs (2, X, 2) that a vertex' corners may have."""
    return spherical_uvs(arrays["v_template"]).reshape(2, -1, 2)

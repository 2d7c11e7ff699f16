import numpy as np
import pytest

from manifests.errors import TrainingError
from manifests.types import Domain
from tests.training.examples.fake_free import fake_free
from training.examples import free_surface
from training.examples.free_surface import COARSE, LATTICE, NUM_POINTS, FreeSurface
from training.tasks.surface import read_template

# Names of SMPL's joints, in order, as bodies are told in them.
JOINTS = [
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
]
COARSE_NAMES = [
    "background",
    "torso",
    "right_hand",
    "left_hand",
    "left_foot",
    "right_foot",
    "right_upper_leg",
    "left_upper_leg",
    "right_lower_leg",
    "left_lower_leg",
    "left_upper_arm",
    "right_upper_arm",
    "left_lower_arm",
    "right_lower_arm",
    "head",
]


@pytest.fixture
def rows(assets):
    """A picture whose middle shows random corners of the skin."""
    template, rng = read_template(assets / "body.npz"), np.random.default_rng(0)
    parts, uv = np.zeros((40, 50), np.uint8), np.full((40, 50, 2), -1, np.float32)
    corner = rng.integers(0, len(template.texture_K2), (20, 20))
    parts[10:30, 15:35] = template.surface.part_X[corner]
    uv[10:30, 15:35] = template.texture_K2[corner]
    row = {"key": "a", "pose": np.zeros((24, 3)), "parts": parts, "uv": uv, "square": [4.5, -0.5, 44.5, 39.5]}
    return [row, {**row, "key": "b"}]


@pytest.fixture
def examples(rows, monkeypatch, assets, tmp_path):
    fake = fake_free({"train": rows}, domain=Domain.BODY, labels=("parts", "uv"))
    monkeypatch.setattr(free_surface, "Free", fake)
    return FreeSurface(tmp_path, split="train", body=str(assets / "body.npz"))


def test_pixels_of_the_person_are_told_with_part_u_and_v(examples, rows, assets):
    template, surface = read_template(assets / "body.npz"), examples[0].labels["surface"]
    on = surface[surface[:, 2] > 0]
    assert len(on) == NUM_POINTS == len(np.unique(on[:, :2], axis=0))
    for x, y, part, u, v in on:
        texture, own = rows[0]["uv"][int(y), int(x)], rows[0]["parts"][int(y), int(x)]
        assert part == own
        corner = template.surface.nearest([int(part)], [[u, v]])[0]
        np.testing.assert_allclose(template.texture_K2[corner], texture, atol=1e-4)


def test_the_background_is_told_on_a_lattice_within_the_square(examples, rows):
    surface = examples[0].labels["surface"]
    off = surface[surface[:, 2] == 0]
    assert 0.5 * LATTICE**2 < len(off) < LATTICE**2
    assert all(rows[0]["parts"][int(y), int(x)] == 0 for x, y, *_ in off)
    assert off[:, 0].min() >= 4
    assert off[:, 0].max() <= 45
    assert not off[:, 3:].any()


def test_pixels_are_drawn_by_name(examples):
    first, again, other = (examples[i].labels["surface"] for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first[:50] != other[:50]).any()
    assert {"surface", "coarse", "coarse_box_xyxy_px", "parts", "uv"} <= set(examples.about.labels)


def test_coarse_parts_are_named_like_their_joints(examples, rows):
    for joint, name in enumerate(JOINTS):
        side, _, limb = name.partition("_")
        coarse = COARSE_NAMES[COARSE[joint + 1]]
        expected = {
            "hip": "upper_leg", "knee": "lower_leg", "ankle": "foot", "foot": "foot", "shoulder": "upper_arm",
            "elbow": "lower_arm", "wrist": "hand", "hand": "hand",
        }  # fmt: skip
        if limb in expected:
            assert coarse == f"{side}_{expected[limb]}"
        else:
            assert coarse == ("head" if name in ("head", "neck") else "torso")
    labels = examples[0].labels
    np.testing.assert_array_equal(labels["coarse"] > 0, rows[0]["parts"] > 0)
    assert labels["coarse_box_xyxy_px"].tolist() == [-0.5, -0.5, 49.5, 39.5]


def test_a_person_of_few_pixels_has_few(rows, monkeypatch, assets, tmp_path):
    rows[0]["parts"][:, 17:], rows[0]["parts"][15:] = 0, 0
    monkeypatch.setattr(free_surface, "Free", fake_free({"val": rows}, domain=Domain.BODY, labels=("parts", "uv")))
    surface = FreeSurface(tmp_path, split="val", body=str(assets / "body.npz"))[0].labels["surface"]
    assert (surface[:, 2] > 0).sum() == 10


def test_renders_without_maps_are_refused(rows, monkeypatch, tmp_path):
    monkeypatch.setattr(free_surface, "Free", fake_free({"train": rows}, domain=Domain.BODY, labels=("parts",)))
    with pytest.raises(TrainingError, match="no parts and uv"):
        FreeSurface(tmp_path, split="train")

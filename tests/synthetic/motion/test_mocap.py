import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import SyntheticError
from synthetic.models.body import JOINT_NAMES, BodyModel
from synthetic.motion.library import Clip, load_clip, place_on_ground
from synthetic.motion.mocap import Mocap, asf_of, read_amc, read_bvh
from synthetic.motion.retarget import retarget
from tests.support.mocap_files import Puppet, moves, puppet, write_amc, write_bvh
from tests.support.samples import sample

ORDERS = ["".join(order) for order in itertools.permutations("XYZ")]
CMU = "facebookresearch+fairmotion/tests/data/01_01"
DRAWINGS = "facebookresearch+AnimatedDrawings/examples/bvh"
# Our joints and the puppet's, where our limbs must point as its limbs do.
LIMBS = {
    "thigh": (("hip", "knee"), ("UpLeg", "Leg")),
    "shin": (("knee", "ankle"), ("Leg", "Foot")),
    "upper arm": (("shoulder", "elbow"), ("Arm", "ForeArm")),
    "forearm": (("elbow", "wrist"), ("ForeArm", "Hand")),
}


def places(mocap: Mocap) -> np.ndarray:
    return Puppet(mocap.names, mocap.parents, mocap.offsets_J3).places(mocap.turns_TJ33, mocap.root_T3)


def angles_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    cosine = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def posed(body: BodyModel, clip: Clip) -> dict[str, np.ndarray]:
    joints = body.pose(clip.pose_TJ3, np.zeros(10), clip.trans_T3)[1]
    return dict(zip(JOINT_NAMES, joints.swapaxes(0, 1).astype(float), strict=True))


def limb_errors_deg(body: BodyModel, clip: Clip, theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far our limbs point from theirs, whose joints are called as in most BVH files."""
    ours = posed(body, clip)
    return {
        f"{side} {limb}": angles_deg(
            ours[f"{side}_{b}"] - ours[f"{side}_{a}"], theirs[side.title() + d] - theirs[side.title() + c]
        )
        for side in ("left", "right")
        for limb, ((a, b), (c, d)) in LIMBS.items()
    }


# -------------------------------------------------------------------------------------------------------------- readers


@settings(max_examples=15)
@given(orders=st.lists(st.sampled_from(ORDERS), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_bvh_round_trip_in_any_order_of_channels(
    tmp_path_factory: pytest.TempPathFactory, orders: list[str], seed: int
) -> None:
    who = puppet()
    turns, root = moves(who, 3, seed)
    path = write_bvh(tmp_path_factory.mktemp("bvh") / "a.bvh", who, turns, root, orders=orders)
    read = read_bvh(path)
    assert set(read.names) == set(who.names)
    at = [read.names.index(name) for name in who.names]
    assert np.allclose(read.turns_TJ33[:, at], turns, atol=1e-6)
    assert np.allclose(places(read)[:, at], who.places(turns, root), atol=1e-6)
    assert (read.fps, read.unit) == (pytest.approx(30.0), "centimetres")


@pytest.mark.parametrize("degrees", [True, False])
@pytest.mark.parametrize("root_order", ["TX TY TZ RX RY RZ", "RZ TY RX TX RY TZ"])
def test_amc_round_trip_with_any_axes(tmp_path: Path, degrees: bool, root_order: str) -> None:
    who = puppet()
    turns, root = moves(who, 4, 7)
    read = read_amc(
        write_amc(tmp_path / "a.amc", who, turns, root, seed=3, degrees=degrees, root_order=root_order), every=1
    )
    true = dict(zip(who.names, who.places(turns, root).swapaxes(0, 1), strict=True))
    found = dict(zip(read.names, places(read).swapaxes(0, 1), strict=True))
    assert np.allclose(found.pop("root"), true.pop("Hips"), atol=1e-6)
    joints = {name for name in true if not name.endswith(" end")}
    assert joints < set(found)
    for name in joints:
        assert np.allclose(found[name], true[name], atol=1e-6), name
    assert np.allclose(found["LeftHand end"], true["LeftHand end"], atol=1e-6)
    assert (read.fps, read.unit) == (120.0, "inches / 0.45")


def test_recordings_are_thinned_to_thirty_a_second(tmp_path: Path) -> None:
    who = puppet()
    turns, root = moves(who, 9, 0)
    for fps, every in ((120.0, 4), (119.88, 4), (100.0, 3), (60.0, 2), (30.0, 1), (24.0, 1)):
        read = read_bvh(write_bvh(tmp_path / "a.bvh", who, turns, root, fps=fps))
        assert read.fps == pytest.approx(fps / every, rel=1e-5)
        assert np.allclose(read.root_T3, root[::every], atol=1e-6)
    assert len(read_amc(write_amc(tmp_path / "a.amc", who, turns, root)).root_T3) == 3


@pytest.mark.parametrize(
    ("metres", "unit"),
    [(1.0, "metres"), (0.01, "centimetres"), (0.001, "millimetres"), (0.0254, "inches"), (0.0254 / 0.45, "inches / 0.45")],
)  # fmt: skip
def test_the_unit_is_guessed_from_the_size_of_the_person(tmp_path: Path, metres: float, unit: str) -> None:
    who = puppet()
    read = read_bvh(write_bvh(tmp_path / "a.bvh", who, *moves(who, 2, 0), metres=metres))
    assert read.unit == unit
    shin = np.linalg.norm(read.offsets_J3[read.names.index("LeftFoot")])
    assert shin == pytest.approx(0.42, abs=1e-3)


def test_an_unknown_unit_makes_a_person_of_common_size(tmp_path: Path) -> None:
    who = puppet()
    read = read_bvh(write_bvh(tmp_path / "a.bvh", who, *moves(who, 2, 0), metres=7.0))
    assert read.unit.startswith("unknown")
    assert np.ptp(places(read)[0], axis=0).max() < 2.5


def replaced(old: str, new: str, count: int = 1) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, count)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "ends within its skeleton"),
        (lambda text: "\x00\xff\xfe binary", "starts with HIERARCHY"),
        (lambda text: text[: text.index("MOTION")], "there is no MOTION: the file ends"),
        (lambda text: text[: text.index("Frames")], "MOTION is followed by"),
        (lambda text: text[: len(text) * 4 // 5], r"one for each channel; this line has|tells of 9 frames and holds"),
        (lambda text: text + "1 2 3\n", r"a frame has \d+ numbers, one for each channel; this line has 3"),
        (replaced("Frames: 9", "Frames: 8"), "tells of 8 frames and holds 9"),
        (replaced("Frames: 9", "Frames: nine"), "expected 1 numbers, found 'nine'"),
        (replaced("Frames: 9", "Frames: 1"), "1 frames of .* seconds are no motion"),
        (replaced("Frame Time: 0.03333333", "Frame Time: 0"), "0 seconds are no motion"),
        (replaced("Frame Time: 0.03333333", "Frame Time: nan"), "expected 1 numbers"),
        (replaced("OFFSET", "OFFSET x"), "expected 3 numbers, found 'x"),
        (replaced("CHANNELS 3", "CHANNELS 4"), "CHANNELS is a count and as many names"),
        (replaced("Zrotation", "Wrotation"), "CHANNELS is a count and as many names, as"),
        (replaced("Zrotation Xrotation", "Zrotation Zrotation"), "CHANNELS is a count"),
        (replaced("}\n", "", 1), "a brace is missing"),
        (replaced("{\n", "", 1), "expected a brace after a joint"),
        (replaced("ROOT Hips\n", ""), "expected a joint before a brace"),
        (replaced("OFFSET 0.0", "OFFSET 1e300"), "expected 3 numbers, found '1e300"),
        (replaced("MOTION", "}\nMOTION"), "closed that was not opened"),
        (replaced("MOTION", "ROOT Other\n{\n}\nMOTION"), "has one ROOT"),
        (replaced("MOTION", "JOINT Other\n{\n}\nMOTION"), "outside of the root's braces"),
        (replaced("JOINT", "JOIN"), "no part of a BVH skeleton"),
        (lambda text: text.rsplit(" ", 1)[0] + " inf\n", "expected numbers, found"),
    ],
)
def test_damaged_bvh_says_what_where_and_what_to_try(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    who = puppet()
    path = write_bvh(tmp_path / "a.bvh", who, *moves(who, 9, 0))
    path.write_text(change(path.read_text()), encoding="latin-1")
    with pytest.raises(SyntheticError, match=message) as caught:
        read_bvh(path)
    assert caught.value.where.startswith(f"{path} line ")
    assert "download the file again" in caught.value.hint


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    who = puppet()
    path = write_bvh(tmp_path / "a.bvh", who, *moves(who, 2, 0))
    monkeypatch.setattr("synthetic.motion.mocap.MAX_JOINTS", 5)
    with pytest.raises(SyntheticError, match="more than 5 joints"):
        read_bvh(path)
    monkeypatch.setattr("synthetic.motion.mocap.MAX_FILE_BYTES", 100)
    with pytest.raises(SyntheticError, match="bytes, more than 100"):
        read_bvh(path)
    with pytest.raises(SyntheticError, match="No such file"):
        read_bvh(tmp_path / "none.bvh")
    monkeypatch.undo()
    path.write_text("HIERARCHY\nROOT a\n{\nCHANNELS 1 Xrotation\n}\nMOTION\nFrames: 2\nFrame Time: .03\n1\n2\n")
    with pytest.raises(SyntheticError, match="the skeleton has no size"):
        read_bvh(path)


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("asf", lambda text: "", "no tree below root"),
        ("asf", replaced("name LeftLeg", "name LeftLeg2"), "names LeftLeg, which has no bone data"),
        ("asf", replaced("direction ", "direction north "), "expected 3 numbers, found 'north"),
        ("asf", replaced("direction ", "# "), "lacks direction"),
        ("asf", replaced("length 0.45", "length half"), "expected 1 numbers, found 'half'"),
        ("asf", replaced("dof rx ry rz", "dof rx ry rx"), "has the degrees of freedom rx ry rx"),
        ("asf", replaced("axis XYZ", "axis XXY"), "an axis is an order as XYZ"),
        ("asf", replaced("orientation 0 0 0", "orientation 0 90 0"), "orientation of its own is not read"),
        ("asf", replaced("order TX", "order TX TX"), "order names TX TY TZ RX RY RZ"),
        ("asf", replaced("LeftLeg LeftFoot", "LeftLeg LeftFoot LeftUpLeg"), "no tree below root"),
        ("amc", lambda text: text[: text.index("\n3\n")] + "\n", None),
        ("amc", lambda text: text[: len(text) // 3].rsplit("\n", 1)[0], "lacks the bone"),
        ("amc", lambda text: text[: text.index("\n2\n")], "1 frames are no motion"),
        ("amc", replaced("LeftLeg ", "LeftLeg 1 "), "LeftLeg moves by 3 numbers; this line has 4"),
        ("amc", replaced("LeftLeg ", "LeftLeg one "), "moves by 3 numbers"),
        ("amc", replaced("\nroot ", "\nroof "), "'roof' is no moving bone"),
        ("amc", lambda text: "root 1 2 3 4 5 6\n", "'root' is no moving bone"),
        ("amc", lambda text: "", "0 frames are no motion"),
    ],
)
def test_damaged_asf_and_amc(tmp_path: Path, ending: str, change: Callable[[str], str], message: str | None) -> None:
    who = puppet()
    path = write_amc(tmp_path / "a.amc", who, *moves(who, 4, 0))
    damaged = path.with_suffix(f".{ending}")
    damaged.write_text(change(damaged.read_text()))
    if message is None:  # an AMC does not tell how long it is
        assert len(read_amc(path, every=1).root_T3) == 2
        return
    with pytest.raises(SyntheticError, match=message) as caught:
        read_amc(path, every=1)
    assert caught.value.where.startswith(f"{damaged} line ")


def test_an_amc_finds_its_skeleton(tmp_path: Path) -> None:
    motion = tmp_path / "01_02.amc"
    with pytest.raises(SyntheticError, match=r"(?s)01_02.amc has no skeleton.*put its .asf beside it"):
        asf_of(motion)
    (tmp_path / "subject.ASF").touch()
    assert asf_of(motion).name == "subject.ASF"
    (tmp_path / "02.asf").touch()
    with pytest.raises(SyntheticError, match="has no skeleton"):
        asf_of(tmp_path / "03_01.amc")
    (tmp_path / "01.asf").touch()
    (tmp_path / "01_0.asf").touch()
    assert asf_of(motion).name == "01_0.asf"


def test_bvh_and_amc_of_one_real_recording_agree() -> None:
    bvh, amc = read_bvh(sample(f"{CMU}.bvh"), every=1), read_amc(sample(f"{CMU}.amc"), every=1)
    assert (len(bvh.root_T3), len(amc.root_T3)) == (2752, 2751)  # the BVH starts with a T-pose
    assert bvh.fps == pytest.approx(amc.fps, rel=1e-4)
    assert np.allclose(bvh.root_T3[1:], amc.root_T3, atol=1e-5)
    same = {
        "lfemur": "LeftUpLeg",
        "ltibia": "LeftLeg",
        "lfoot": "LeftFoot",
        "ltoes": "LeftToeBase",
        "rfoot": "RightFoot",
    }
    same |= {"lowerback": "LowerBack", "upperback": "Spine", "thorax": "Spine1", "upperneck": "Neck1", "head": "Head"}
    same |= {"lhumerus": "LeftArm", "lradius": "LeftForeArm", "rhumerus": "RightArm", "rwrist": "RightHand"}  # fmt: skip
    for ours, theirs in same.items():
        one, other = amc.turns_TJ33[:, amc.names.index(ours)], bvh.turns_TJ33[1:, bvh.names.index(theirs)]
        assert np.allclose(one, other, atol=1e-5), ours
    legs = [("lfoot", "LeftFoot"), ("rtoes", "RightToeBase")]
    for ours, theirs in legs:  # above, the BVH leaves one bone of the back out
        gap = places(amc)[:, amc.names.index(ours)] - places(bvh)[1:, bvh.names.index(theirs)]
        assert np.abs(gap).max() < 1e-5


# ----------------------------------------------------------------------------------------------------------- retargeting


SIDED = {"LeftUpLeg": 0, "LeftLeg": 1, "LeftFoot": 2, "LeftArm": 3, "LeftForeArm": 4, "LeftHand": 5, "LeftShoulder": 6}
CONVENTIONS = {
    "mixamo": [f"mixamorig:{name}" for name in SIDED],
    "biovision": ["LeftHip", "LeftKnee", "LeftAnkle", "LeftShoulder", "LeftElbow", "LeftWrist", "LeftCollar"],
    "acclaim": ["lfemur", "ltibia", "lfoot", "lhumerus", "lradius", "lwrist", "lclavicle"],
    "biped": [f"Bip01 L {n}" for n in ("Thigh", "Calf", "Foot", "UpperArm", "Forearm", "Hand", "Clavicle")],
    "makehuman": [
        f"{n}.L" for n in ("upperleg01", "lowerleg01", "foot", "upperarm01", "lowerarm01", "wrist", "clavicle")
    ],
    "smpl": [f"L_{n}" for n in ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist", "Collar")],
    "daz": ["lThigh", "lShin", "lFoot", "lShldr", "lForeArm", "lHand", "lCollar"],
    "unreal": [f"{n}_l" for n in ("thigh", "calf", "foot", "upperarm", "lowerarm", "hand", "clavicle")],
}
RIGHT = {"mixamorig:Left": "mixamorig:Right", "Left": "Right", "Bip01 L": "Bip01 R", "L_": "R_"}


def to_right(name: str) -> str:
    for left, right in RIGHT.items():
        if name.startswith(left):
            return right + name.removeprefix(left)
    return f"r{name[1:]}" if name.startswith("l") and "_" not in name and "." not in name else f"{name[:-1]}{ {'L': 'R', 'l': 'r'}[name[-1]] }"  # fmt: skip


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_limbs_point_the_same_way_under_any_names(body: BodyModel, tmp_path: Path, convention: str) -> None:
    who = puppet()
    turns, root = moves(who, 5, 1)
    theirs = dict(zip(who.names, who.places(turns, root).swapaxes(0, 1), strict=True))
    names = dict(zip(SIDED, CONVENTIONS[convention], strict=True))
    names |= {left.replace("Left", "Right"): to_right(new) for left, new in names.items()}
    clip = load_clip(write_bvh(tmp_path / "a.bvh", who.renamed(names), turns, root))
    for limb, error_deg in limb_errors_deg(body, clip, theirs).items():
        assert error_deg.max() < 0.5, limb


@pytest.mark.parametrize("arms_down_deg", [0.0, 45.0, 85.0])
def test_rest_poses_do_not_matter(body: BodyModel, tmp_path: Path, arms_down_deg: float) -> None:
    who = puppet(arms_down_deg=arms_down_deg)
    turns, root = moves(who, 5, 2)
    theirs = dict(zip(who.names, who.places(turns, root).swapaxes(0, 1), strict=True))
    clip = load_clip(write_bvh(tmp_path / "a.bvh", who, turns, root))
    assert max(error_deg.max() for error_deg in limb_errors_deg(body, clip, theirs).values()) < 0.5


def test_at_rest_ours_stands_as_theirs(body: BodyModel, tmp_path: Path) -> None:
    """Nothing turns: trunk, head and feet keep our rest, arms and legs hang as theirs do."""
    who = puppet(arms_down_deg=80.0)
    still, root = moves(who, 2, 0, most_deg=0.0)
    ours = posed(body, load_clip(write_bvh(tmp_path / "a.bvh", who, still, root)))
    assert angles_deg(ours["head"] - ours["pelvis"], np.array([0, 1, 0.05])).max() < 1.0
    assert angles_deg(ours["left_foot"] - ours["left_ankle"], np.array([0, -0.33, 1])).max() < 5.0
    assert angles_deg(ours["left_wrist"] - ours["left_shoulder"], np.array([0.17, -0.98, 0])).max() < 1.0


def test_skeletons_may_have_z_up_and_face_anywhere(body: BodyModel, tmp_path: Path) -> None:
    """The same motion in a file whose person has z up and faces -y gives the same pose of ours."""
    who = puppet()
    turns, root = moves(who, 4, 3)
    theirs_from_ours = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    other = Puppet(who.names, who.parents, who.offsets @ theirs_from_ours.T)
    first = load_clip(write_bvh(tmp_path / "a.bvh", who, turns, root))
    turned = theirs_from_ours @ turns @ theirs_from_ours.T
    second = load_clip(write_bvh(tmp_path / "b.bvh", other, turned, root @ theirs_from_ours.T))
    assert np.allclose(first.pose_TJ3, second.pose_TJ3, atol=1e-5)
    assert np.allclose(first.trans_T3, second.trans_T3, atol=1e-5)


@pytest.mark.parametrize("num_bones", [0, 1, 2, 3, 5])
def test_a_spine_of_any_length_bends_as_a_whole(body: BodyModel, tmp_path: Path, num_bones: int) -> None:
    """A bow of 60 degrees, spread over however many bones theirs has, turns the chest by 60 and ours bends evenly."""
    names = ["Hips", *(f"Spine{i}" for i in range(num_bones))]
    offsets = [np.zeros(3), *[np.array([0, 0.4 / max(num_bones, 1), 0])] * num_bones]
    base = puppet()
    for name, parent, offset in zip(base.names, base.parents, base.offsets, strict=True):
        if "Spine" not in name and name != "Hips":
            names.append(name)
            offsets.append(offset)
            if base.names[parent] == "Spine2" and not num_bones:
                offsets[-1] = np.add(offset, (0, 0.4, 0))
    chest = names[num_bones]
    above = {name: base.names[parent] for name, parent in zip(base.names, base.parents, strict=True)}
    above |= dict.fromkeys(("Neck", "LeftShoulder", "RightShoulder"), chest)
    above |= {f"Spine{i}": f"Spine{i - 1}" if i else "Hips" for i in range(num_bones)}
    who = Puppet(tuple(names), tuple(-1 if n == "Hips" else names.index(above[n]) for n in names), np.array(offsets))
    turns, root = moves(who, 2, 0, most_deg=0.0)
    for i in range(num_bones):
        angle = np.deg2rad(60 / num_bones)
        turns[1, 1 + i] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    clip = load_clip(write_bvh(tmp_path / "a.bvh", who, turns, root))
    bend = np.rad2deg(clip.pose_TJ3[1, [3, 6, 9]])
    expected = 20.0 if num_bones else 0.0
    assert bend[:, 1:] == pytest.approx(0.0, abs=1e-3)
    assert bend[:, 0] == pytest.approx(expected, abs=1e-3)


def test_unknown_joints_are_named(tmp_path: Path) -> None:
    who = puppet().renamed({"LeftFoot": "LeftBit", "Head": "Top"})
    path = write_bvh(tmp_path / "a.bvh", who, *moves(who, 2, 0))
    with pytest.raises(SyntheticError, match=r"has no left foot \(ankle, foot\); no head \(head\)") as caught:
        load_clip(path)
    assert str(path) in caught.value.where
    assert "LeftBit" in caught.value.where
    assert "rename the joints" in caught.value.hint


def test_a_joint_of_the_right_name_in_the_wrong_limb_is_none(tmp_path: Path) -> None:
    who = puppet().renamed({"LeftLeg": "RightCalf", "RightLeg": "LeftCalf"})
    with pytest.raises(SyntheticError, match="no left shin"):
        load_clip(write_bvh(tmp_path / "a.bvh", who, *moves(who, 2, 0)))


def test_a_limb_without_length_is_refused(tmp_path: Path) -> None:
    who = puppet()
    who.offsets[who.names.index("RightHand")] = 0.0
    with pytest.raises(SyntheticError, match="the right forearm has no length"):
        load_clip(write_bvh(tmp_path / "a.bvh", who, *moves(who, 2, 0)))


def test_braces_may_follow_names_and_channels_may_move_limbs(tmp_path: Path) -> None:
    """As other writers have them: a brace on the line of its joint, six channels for each, tabs and CRLF."""
    who = puppet()
    turns, root = moves(who, 3, 5)
    path = write_bvh(tmp_path / "a.bvh", who, turns, root)
    plain = read_bvh(path)
    text = re.sub(r"\n\s*{", " {", path.read_text())
    places, rows = "Xposition Yposition Zposition", text.split("Frame Time: 0.03333333\n")[1].splitlines()
    text = text[: text.index("Frame Time")].replace("CHANNELS 3 ", f"CHANNELS 6 {places} ") + "Frame Time: 0.03333333\n"
    for row in rows:
        words = row.split()
        text += (
            " ".join([*words[:6], *(" ".join(["9 9 9", *words[i : i + 3]]) for i in range(6, len(words), 3))]) + "\n"
        )
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert np.allclose(read_bvh(path).turns_TJ33, plain.turns_TJ33)
    assert np.allclose(read_bvh(path).root_T3, plain.root_T3)


def test_a_skeleton_that_lies_about_at_rest_is_refused(tmp_path: Path) -> None:
    who = puppet()
    along_x = np.linalg.norm(who.offsets, axis=1, keepdims=True) * (1.0, 0.0, 0.0)
    path = write_bvh(tmp_path / "a.bvh", Puppet(who.names, who.parents, along_x), *moves(who, 2, 0))
    with pytest.raises(SyntheticError, match=r"(?s)does not stand upright.*T-pose or an A-pose"):
        load_clip(path)


@pytest.mark.parametrize(
    ("name", "joints", "trunk_deg"),
    [
        (f"{CMU}.bvh", "Left UpLeg Leg Foot Arm ForeArm Hand", 15.0),
        (f"{CMU}.amc", "l femur tibia foot humerus radius wrist", 12.0),
        (f"{DRAWINGS}/cmu1/jumping_jacks.bvh", "Left Hip Knee Ankle Shoulder Elbow Wrist", 13.0),
        (f"{DRAWINGS}/fair1/jumping.bvh", "Left UpLeg Leg Foot Arm ForeArm Hand", 8.0),
    ],
)
def test_real_recordings_keep_their_directions_and_stand_on_the_floor(
    body: BodyModel, name: str, joints: str, trunk_deg: float
) -> None:
    """Limbs to 0.2 degrees. The trunk by what the skeletons differ: where they put hips and shoulders in a body."""
    path = sample(name)
    read = read_bvh(path) if path.suffix == ".bvh" else read_amc(path)
    clip = retarget(read, name="real", where=path)
    assert clip.fps == pytest.approx(30.0, abs=0.05)
    left, *parts = joints.split()
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) if "fair1" in name else np.eye(3)  # z up, facing -y
    few = slice(None, None, 11)
    some = dataclasses.replace(clip, pose_TJ3=clip.pose_TJ3[few], trans_T3=clip.trans_T3[few])
    where = dict(zip(read.names, (places(read)[few] @ turn).swapaxes(0, 1), strict=True))
    theirs = {
        f"{side}{common}": where[{"Left": left, "Right": {"Left": "Right", "l": "r"}[left]}[side] + part]
        for side in ("Left", "Right")
        for common, part in zip(("UpLeg", "Leg", "Foot", "Arm", "ForeArm", "Hand"), parts, strict=True)
    }
    for limb, error_deg in limb_errors_deg(body, some, theirs).items():
        assert error_deg.max() < 0.2, limb
    ours = posed(body, some)
    trunks = [
        sum(joints[top] for top in tops) - sum(joints[low] for low in lows)
        for joints, tops, lows in (
            (ours, ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")),
            (theirs, ("LeftArm", "RightArm"), ("LeftUpLeg", "RightUpLeg")),
        )
    ]
    assert angles_deg(*trunks).max() < trunk_deg
    lowest = []
    for index in range(0, clip.num_instants, 40):
        trans = place_on_ground(clip, body, np.zeros(10), index)
        verts = body.pose(clip.pose_TJ3[index, None], np.zeros(10), trans[None])[0]
        lowest.append(verts[0, body.skin_vertices, 1].min())
    assert min(lowest) > -1e-4
    assert np.mean(np.array(lowest) < 1e-4) > 0.7, "most instants touch the floor; a jump may not"
    assert max(lowest) < 0.6

import json
import re
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from smplx.utils import Struct

from manifests.errors import SourceError, SyntheticError
from synthetic.__main__ import main
from synthetic.models.body import BODY_FORMAT, EXTRA_JOINTS, load_body
from synthetic.models.convert import FAMILIES, convert_model
from synthetic.models.hand import load_hand
from tests.support.smpl_files import (
    JOINTS,
    chumpy,
    chumpy_slice,
    model,
    sum_of_chumpy,
    write_hostile_pickle,
    write_npz,
    write_pickle,
)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each family, as downloaded."""
    folder = tmp_path_factory.mktemp("models")
    smpl = model("smpl")
    in_chumpy = {name: chumpy(smpl[name]) for name in ("v_template", "posedirs", "weights")}
    wide = np.concatenate([smpl["shapedirs"], smpl["shapedirs"]], axis=2)
    return {
        "smpl": write_pickle(
            folder / "basicModel_f_lbs_10_207_0_v1.0.0.pkl", {**smpl, **in_chumpy, "shapedirs": chumpy_slice(wide, 10)}
        ),
        "smplh": write_pickle(folder / "SMPLH_female.pkl", model("smplh")),
        "mano": write_pickle(folder / "MANO_RIGHT.pkl", model("mano")),
        "smplx": write_npz(folder / "SMPLX_NEUTRAL.npz", model("smplx")),
    }


@pytest.fixture(scope="session")
def converted(shipped: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = {
        "smpl": "smpl.npz", "smplh": "smplh/SMPLH_FEMALE.npz", "mano": "mano/MANO_RIGHT.npz", "smplx": "smplx/SMPLX_NEUTRAL.npz",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("converted")
    for family, path in shipped.items():
        convert_model(path, folder / names[family])
    return {family: folder / name for family, name in names.items()}


@pytest.mark.parametrize("family", JOINTS)
def test_numbers_survive_and_nothing_else_does(converted: dict[str, Path], family: str) -> None:
    found, truth = arrays_of(converted[family]), model(family)
    for name, array in truth.items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array.astype(found[name].dtype)), name
    extras = {"face_group", "face_uvs", "uvs"}
    own = {"smpl": extras | {"extra_vertices"}, "mano": extras | {"side", "tip_vertices"}}.get(family, set())
    assert found.keys() == truth.keys() | own | {"provenance"}
    assert found["kintree_table"][0, 0] == 2**32 - 1
    assert all(array.dtype.kind in "fiuU" for array in found.values())


def test_smplx_loads_smpl_from_a_struct(converted: dict[str, Path]) -> None:
    truth = model("smpl")
    out = smplx.SMPL("", data_struct=Struct(**arrays_of(converted["smpl"])))(betas=torch.ones(1, 10))
    assert out.vertices.shape == (1, 6890, 3)
    assert out.joints.shape == (1, 45, 3)
    shaped = truth["v_template"] + truth["shapedirs"].sum(axis=2)
    assert np.allclose(out.vertices[0].detach(), shaped, atol=1e-6)
    assert np.allclose(out.joints[0, :24].detach(), truth["J_regressor"] @ shaped, atol=1e-6)


@pytest.mark.parametrize(("family", "num_verts"), [("smplh", 6890), ("mano", 778), ("smplx", 10475)])
def test_smplx_creates_the_others_from_their_folder(converted: dict[str, Path], family: str, num_verts: int) -> None:
    made = smplx.create(
        str(converted[family].parents[1]),
        family,
        gender="female" if family == "smplh" else "neutral",
        ext="npz",
        use_pca=False,
    )
    out = made(return_full_pose=True)
    assert out.vertices.shape == (1, num_verts, 3)
    assert out.full_pose.shape == (1, 3 * JOINTS[family])
    truth = model(family)
    mean = truth["hands_mean"] if family == "mano" else np.concatenate([truth["hands_meanl"], truth["hands_meanr"]])
    assert np.allclose(out.full_pose[0, -len(mean) :].detach(), mean, atol=1e-6)


def test_a_converted_smpl_is_a_body(converted: dict[str, Path]) -> None:
    body = load_body(converted["smpl"])
    trans = np.array([[0, 0, 0], [1.0, 2, 3]])
    truth = model("smpl")
    verts, joints = body.pose(np.zeros((2, 24, 3)), np.eye(10)[3], trans)
    shaped = truth["v_template"] + truth["shapedirs"][..., 3]
    assert np.allclose(verts, np.stack([shaped, shaped]) + trans[:, None], atol=1e-5)
    assert np.allclose(joints[0], truth["J_regressor"] @ shaped, atol=1e-5)
    assert len(body.skin_vertices) == 6890
    assert body.uvs_U2.shape == (0, 2)
    assert body.provenance["made_from"] == "basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    assert "non-commercial" in body.provenance["terms"]
    extra = arrays_of(converted["smpl"])["extra_vertices"]
    assert extra[EXTRA_JOINTS.index("RHeel")] == 6787


def test_a_converted_mano_is_a_hand(converted: dict[str, Path]) -> None:
    hand = load_hand(converted["mano"])
    assert hand.side == "right"
    verts, joints = hand.pose(np.zeros((1, 16, 3)), np.zeros(10), np.zeros((1, 3)))
    assert np.allclose(verts[0], model("mano")["v_template"], atol=1e-6)
    assert joints.shape == (1, 16, 3)


def test_families_are_not_taken_for_each_other(converted: dict[str, Path]) -> None:
    with pytest.raises(SyntheticError, match=f"not of the format {BODY_FORMAT} but of 'crosspose-smplh-1'"):
        load_body(converted["smplh"])
    with pytest.raises(SyntheticError, match="the hand is not of the format"):
        load_hand(converted["smpl"])


def test_equal_files_give_equal_bytes(shipped: dict[str, Path], converted: dict[str, Path], tmp_path: Path) -> None:
    assert convert_model(shipped["mano"], tmp_path / "MANO_RIGHT.npz") is FAMILIES[2]
    assert (tmp_path / "MANO_RIGHT.npz").read_bytes() == converted["mano"].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["MANO_RIGHT.npz"]


def test_left_hands_get_their_own_shapes(tmp_path: Path) -> None:
    left, right = model("mano", mirrored=True), model("mano")
    source = write_pickle(tmp_path / "MANO_LEFT.pkl", left)
    with pytest.raises(SourceError, match="right hand is not beside it"):
        convert_model(source, tmp_path / "out.npz")
    write_pickle(tmp_path / "MANO_RIGHT.pkl", right)
    convert_model(source, tmp_path / "out.npz")
    found = arrays_of(tmp_path / "out.npz")
    assert str(found["side"]) == "left"
    mirrored = right["shapedirs"] * np.array([-1, 1, 1])[:, None]
    assert np.allclose(found["shapedirs"], mirrored, atol=1e-9)
    write_pickle(source, {**left, "shapedirs": mirrored})
    convert_model(source, tmp_path / "again.npz")
    assert np.array_equal(arrays_of(tmp_path / "again.npz")["shapedirs"], found["shapedirs"])
    with pytest.raises(SourceError, match=r"holds a left hand\n.*\n.*write MANO_LEFT.npz"):
        convert_model(source, tmp_path / "MANO_RIGHT.npz")


def test_hostile_pickles_are_refused_by_name(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    hostile = write_hostile_pickle(tmp_path / "MANO_RIGHT.pkl", trace)
    with pytest.raises(
        SourceError, match=r"refused: MANO_RIGHT.pkl asks to import (pathlib|builtins.getattr|__builtin__)"
    ):
        convert_model(hostile, tmp_path / "out.npz")
    assert not trace.exists()
    assert not (tmp_path / "out.npz").exists()


def test_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    arrays = model("mano") | {"weights": np.array([{"a": 1}], dtype=object)}
    with pytest.raises(SourceError, match=r"holds objects under 'weights'.*\n.*\n.*could run code"):
        convert_model(write_npz(tmp_path / "m.npz", arrays), tmp_path / "out.npz")


def without(name: str) -> dict[str, object]:
    return {key: array for key, array in model("mano").items() if key != name}


def changed(name: str, value: object) -> dict[str, object]:
    return model("mano") | {name: value}


def mano_with(name: str, index: object, value: float) -> dict[str, object]:
    arrays = model("mano")
    array = arrays[name].copy()
    array[index] = value
    return arrays | {name: array}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        *((without(name), f"has no {name}") for name in sorted(model("mano"))),
        (changed("v_template", sum_of_chumpy(model("mano")["v_template"])), "read from 'chumpy.ch_ops.add'*clean_ch"),
        (changed("v_template", chumpy("text")), "read from 'chumpy.ch.Ch'*clean_ch"),
        (changed("weights", np.zeros((778, 33))), "no known family has so many joints (SMPL 24, SMPL-H 52, MANO 16, SMPL-X 55)"),
        (changed("posedirs", np.zeros((778, 3, 93))), "posedirs of MANO_RIGHT.pkl has shape (778, 3, 93), MANO has (778, 3, 135)"),
        (changed("v_template", np.zeros((6890, 3))), "v_template of MANO_RIGHT.pkl has shape (6890, 3), MANO has (778, 3)"),
        (changed("hands_components", np.zeros((6, 45))), "MANO has (45, 45)"),
        (changed("f", model("mano")["f"] + 0.5), "whole numbers are due"),
        (mano_with("f", (3, 1), 778), "f points at 778 of 778"),
        (mano_with("v_template", (5, 0), np.nan), "not finite"),
        (mano_with("shapedirs", (5, 0, 0), 1e300), "far too large"),
        (mano_with("weights", (7, 2), 0.9), "row 7 of weights sums to 1."),
        (mano_with("J_regressor", (4, 0), 0.5), "row 4 of J_regressor sums to 1.500"),
        (mano_with("kintree_table", (0, 3), 9), "no tree"),
        (mano_with("kintree_table", (0, 0), 4), "no tree"),
        (changed("shapedirs", np.zeros((778, 3, 4))), "4 shape components, at least 10"),
    ],
)  # fmt: skip
def test_refusals_name_key_and_remedy(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    if "J_regressor" in arrays:
        source = write_pickle(tmp_path / "MANO_RIGHT.pkl", arrays)
    else:
        source = write_npz(tmp_path / "MANO_RIGHT.npz", arrays)
    with pytest.raises(SourceError, match=re.escape(message).replace(r"\*", "(.|\n)*")) as error:
        convert_model(source, tmp_path / "out.npz")
    assert error.value.hint
    assert not (tmp_path / "out.npz").exists()


def test_another_tree_of_24_joints_is_no_smpl(tmp_path: Path) -> None:
    arrays = model("smpl")
    arrays["kintree_table"][0, 5] = 4
    with pytest.raises(SourceError, match="not the tree of SMPL's 24 joints"):
        convert_model(write_npz(tmp_path / "m.npz", arrays), tmp_path / "out.npz")


def test_the_body_of_amass_is_told_apart(tmp_path: Path) -> None:
    arrays = {name: array for name, array in model("smplh").items() if not name.startswith("hands_")}
    source = write_npz(tmp_path / "model.npz", arrays)
    with pytest.raises(SourceError, match=r"AMASS's model.npz\n.*\n.*merge_smplh_mano.py"):
        convert_model(source, tmp_path / "out.npz")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    with pytest.raises(SourceError, match="No such file"):
        convert_model(tmp_path / "none.pkl", out)
    with pytest.raises(SourceError, match="unpack the download"):
        convert_model(tmp_path, out)
    (tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl").write_bytes(b"<html>sign in</html>")
    with pytest.raises(SourceError, match="name one of its files: basicModel_f_lbs"):
        convert_model(tmp_path, out)
    with pytest.raises(SourceError, match="web page"):
        convert_model(next(tmp_path.glob("*.pkl")), out)
    zipped = tmp_path / "SMPL_python_v.1.1.0.zip"
    np.savez(zipped, a=np.zeros(3))
    zipped = zipped.with_name(zipped.name + ".npz")
    with pytest.raises(SourceError, match="has no weights"):
        convert_model(zipped, out)
    zipped.write_bytes(zipped.read_bytes().replace(b"a.npy", b"a.pkl"))
    with pytest.raises(SourceError, match=r"archive of other files\n.*\n.*unpack a .zip"):
        convert_model(zipped, out)
    zipped.write_bytes(zipped.read_bytes()[:60])
    with pytest.raises(SourceError, match="does not read as an npz"):
        convert_model(zipped, out)
    with pytest.raises(SourceError, match=r"another file, an .npz"):
        convert_model(zipped, zipped)


def test_the_door(shipped: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "MANO_RIGHT.npz"
    assert main(["convert", str(shipped["mano"]), str(out)]) == 0
    said = capsys.readouterr().err
    assert "MANO" in said
    assert "mano/MANO_{RIGHT,LEFT}.npz" in said
    assert json.loads(str(arrays_of(out)["provenance"]))["layout"] == "MANO"
    assert main(["convert", str(tmp_path / "none.pkl"), str(out)]) == 2
    assert "check the path" in capsys.readouterr().err

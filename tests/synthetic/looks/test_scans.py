import dataclasses
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import SyntheticError
from synthetic.looks.look import sample_look
from synthetic.looks.scans import TextureWardrobe, find_textures, read_texture, read_uv_obj
from synthetic.looks.wardrobe import Wardrobe
from synthetic.models.body import BodyModel, load_body
from synthetic.models.convert import convert_model
from tests.support.smpl_files import model, write_pickle
from tests.support.smpl_textures import spherical_uvs, write_texture, write_textures, write_uv_obj

VERTS, FACES = model("smpl")["v_template"], model("smpl")["f"].astype(np.int64)


@pytest.fixture(scope="module")
def smpl(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    folder = tmp_path_factory.mktemp("smpl")
    pickled = write_pickle(folder / "basicModel_f_lbs_10_207_0_v1.0.0.pkl", model("smpl"))
    convert_model(pickled, folder / "smpl_female.npz")
    return load_body(folder / "smpl_female.npz")


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_textures(tmp_path_factory.mktemp("textures"))


@pytest.fixture(scope="module")
def wardrobe(smpl: BodyModel, textures: Path, tmp_path_factory: pytest.TempPathFactory) -> TextureWardrobe:
    uv_file = tmp_path_factory.mktemp("uv") / "smpl_uv.obj"
    write_uv_obj(uv_file, VERTS, FACES)
    return TextureWardrobe(smpl, uv_file, textures)


@pytest.mark.parametrize("shuffle", [False, True])
def test_texture_coordinates_follow_the_models_faces(tmp_path: Path, shuffle: bool) -> None:
    truth = write_uv_obj(tmp_path / "smpl_uv.obj", VERTS, FACES, shuffle=shuffle)
    uvs, face_uvs = read_uv_obj(tmp_path / "smpl_uv.obj", FACES)
    assert np.allclose(uvs, spherical_uvs(VERTS), atol=1e-6)
    assert (face_uvs == truth).all()


def test_other_meshes_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "smpl_uv.obj"
    write_uv_obj(path, VERTS[:-1], FACES[(FACES < 6889).all(axis=1)])
    with pytest.raises(SyntheticError, match="has 6889 vertices, the body has 6890"):
        read_uv_obj(path, FACES)
    other = FACES.copy()
    other[:5] = [0, 1, 6000]
    write_uv_obj(path, VERTS, other)
    with pytest.raises(SyntheticError, match="5 of the body's 13776 faces are not among its 13776"):
        read_uv_obj(path, FACES)
    write_uv_obj(path, VERTS, FACES)
    lines = path.read_text().splitlines()
    for edited, match in (
        ([line for line in lines if not line.startswith("vt")], r"no texture coordinates \(vt lines\)"),
        (
            [line.split("/")[0] + " 2 3" if line.startswith("f") else line for line in lines],
            "without texture coordinates",
        ),
        ([line for line in lines if not line.startswith("f")], "holds no faces"),
        ([*lines, "f 1/1 2/2 3/3 4/4"], "no triangle"),
        ([*lines, "f 1/1 2/2 3/99999"], "a v or vt that is not there"),
        ([*lines, "vt 7 7"], r"outside \[0, 1\]"),
        ([*lines, "vt nonsense"], f"line {len(lines) + 1} of smpl_uv.obj does not read"),
    ):
        path.write_text("\n".join(edited))
        with pytest.raises(SyntheticError, match=match) as caught:
            read_uv_obj(path, FACES)
        assert "smpl_uv.obj" in caught.value.hint
    with pytest.raises(SyntheticError, match="cannot be read"):
        read_uv_obj(tmp_path / "none.obj", FACES)


def test_textures_of_clothed_people_of_the_models_gender_are_worn(textures: Path, wardrobe: TextureWardrobe) -> None:
    assert len(find_textures(textures)) == 8
    assert wardrobe.names == tuple(f"female/nongrey_female_{i:04d}.jpg" for i in range(4))
    assert find_textures(textures / "male", gender="female")[0] == "nongrey_male_0000.jpg"  # better than none


def test_folders_without_clothed_people_are_refused(textures: Path, tmp_path: Path) -> None:
    with pytest.raises(SyntheticError, match="no such folder"):
        find_textures(tmp_path / "none")
    with pytest.raises(SyntheticError, match="holds no picture"):
        find_textures(tmp_path)
    write_texture(tmp_path / "grey_male_0001.jpg", (128, 128, 128))
    with pytest.raises(SyntheticError, match="only scans in underwear") as caught:
        find_textures(tmp_path)
    assert "nongrey" in caught.value.hint


def test_row_0_is_the_bottom_of_the_picture_and_sizes_are_checked(tmp_path: Path) -> None:
    rgb = read_texture(write_texture(tmp_path / "a.png", (200, 100, 50)))
    assert rgb.shape == (512, 512, 3)
    assert rgb[0, 0].tolist() == [200, 100, 50]
    assert rgb[-1, 0].tolist() == [0, 0, 0]
    for size in ((512, 256), (500, 500), (32, 32)):
        with pytest.raises(SyntheticError, match=f"is {size[0]} x {size[1]} pixels") as caught:
            read_texture(write_texture(tmp_path / "b.png", (1, 2, 3), size=size))
        assert "512 x 512" in caught.value.hint
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    with pytest.raises(SyntheticError, match=r"c\.jpg cannot be read"):
        read_texture(tmp_path / "c.jpg")


def test_a_look_wears_the_texture_of_its_seed(smpl: BodyModel, wardrobe: TextureWardrobe) -> None:
    looks = [dataclasses.replace(sample_look(np.random.default_rng(0)), seed=seed) for seed in range(30)]
    assert {wardrobe.texture_of(look) for look in looks} == set(wardrobe.names)
    outfit = wardrobe.dress(looks[0])
    assert outfit.texture_SS4.tobytes() == wardrobe.dress(looks[0]).texture_SS4.tobytes()
    green = 40 * wardrobe.names.index(wardrobe.texture_of(looks[0]))
    assert np.abs(outfit.texture_SS4[0, 0].astype(int) - (200, green, 60, 1)).max() < 8
    assert (outfit.corners_K2[outfit.triangles_F3, 0] == smpl.faces_F3).all()
    assert (outfit.corners_K2[outfit.triangles_F3, 1] == wardrobe.face_uvs_F3).all()
    assert (outfit.face_ids_F == np.arange(13776)).all()
    verts, normals = wardrobe.clothe(smpl.template_X3, outfit)
    assert np.allclose(verts, smpl.template_X3)
    assert ((normals * smpl.template_X3).sum(axis=1) > 0).all()


def test_without_textures_a_converted_smpl_stays_refused(smpl: BodyModel) -> None:
    with pytest.raises(SyntheticError, match="cannot be dressed") as caught:
        Wardrobe(smpl)
    assert "SURREAL's textures" in caught.value.hint

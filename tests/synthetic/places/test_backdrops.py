import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from manifests.errors import SourceError, SyntheticError
from manifests.geometry import project, rays
from manifests.recipes import from_mapping
from manifests.seeds import rng_for
from synthetic.camera import Camera, look_at, sample_rig
from synthetic.places import spaces
from synthetic.places.backdrop import Axis, Backdrop
from synthetic.places.backdrops import MIN_SIDE_PX, NEAREST_M, Backdrops
from synthetic.places.panorama import DOME_M, EYE_M, lamp_light, light_from_panorama, look_up, panorama_picture
from synthetic.places.room import SHADOW_SIZE_M
from synthetic.scene import light_lobe
from tests.support.backdrop_files import (
    HALF_M,
    HEIGHT_M,
    MARK_M,
    MARKS,
    SHIFT_M,
    TABLE_M,
    cast,
    panorama_of,
    room_scene,
    slopes,
    write_annotations,
    write_photo,
    write_png_of,
    write_ramp,
    write_room,
)

K = np.array([[90.0, 0, 63.5], [0, 90.0, 63.5], [0, 0, 1]])


def ring(num_views: int = 4, *, seed: int = 0, distance_m: tuple[float, float] = (2.4, 3.6)) -> tuple[Camera, ...]:
    return sample_rig(
        rng_for(seed, "ring"),
        "ring",
        num_views,
        elevation_rad=(0.0, 0.4),
        distance_m=distance_m,
        person_share=(0.7, 0.8),
    )


# ----------------------------------------------------------------------------------------------------------------- images


def test_images_with_people_and_unknown_images_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "train2017"
    for name in (
        "000000000001.jpg",
        "000000000002.jpg",
        "deep/000000000003.jpg",
        "000000000009.jpg",
        "._000000000001.jpg",
    ):
        write_photo(folder / name)
    (folder / "labels.txt").write_text("no photo")
    told = {"000000000001.jpg": ("dog",), "000000000002.jpg": ("dog", "person"), "000000000003.jpg": (), "gone.jpg": ()}
    found = Backdrops.of("images", folder, annotations=str(write_annotations(tmp_path / "a.json", told)))
    assert found.names == ("000000000001.jpg", "deep/000000000003.jpg")
    assert dict(found.left_out) == {"with people": 1, "not named by the annotations": 1}


@pytest.mark.parametrize("person", ["person", "Pedestrian"])
def test_any_word_for_people_counts_and_it_alone(tmp_path: Path, person: str) -> None:
    write_photo(tmp_path / "in/a.jpg")
    write_photo(tmp_path / "in/b.png")
    path = write_annotations(tmp_path / "a.json", {"a.jpg": (person,), "b.png": ("dog",)}, person=person)
    assert Backdrops.of("images", tmp_path / "in", annotations=str(path)).names == ("b.png",)


def test_equal_names_in_two_folders_are_told_apart_or_left_out(tmp_path: Path) -> None:
    for name in ("train/1.jpg", "val/1.jpg", "train/2.jpg", "val/2.jpg"):
        write_photo(tmp_path / "in" / name)
    told = {"train/1.jpg": (), "val/1.jpg": ("person",), "2.jpg": ()}  # a bare name fits both
    found = Backdrops.of("images", tmp_path / "in", annotations=str(write_annotations(tmp_path / "a.json", told)))
    assert found.names == ("train/1.jpg",)
    assert dict(found.left_out) == {"with people": 1, "not named by the annotations": 2}


def test_annotations_may_name_more_of_the_path_than_the_folder(tmp_path: Path) -> None:
    write_photo(tmp_path / "val/1.jpg")
    path = write_annotations(tmp_path / "a.json", {"train/1.jpg": ("person",), "images/val/1.jpg": ()})
    # Below the folder the file is called 1.jpg: it may be either, so it counts as the one with a person.
    with pytest.raises(SyntheticError, match="1 with people"):
        Backdrops.of("images", tmp_path / "val", annotations=str(path))
    assert Backdrops.of("images", tmp_path, annotations=str(path)).names == ("val/1.jpg",)


def test_images_that_nothing_is_said_of_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write_photo(tmp_path / "000000000139.jpg")
    with pytest.raises(SyntheticError, match="may hold people") as caught:
        Backdrops.of("images", tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "instances_train2017.json" in caught.value.hint
    assert "`annotations: none`" in caught.value.hint
    assert Backdrops.of("images", tmp_path, annotations="none").names == ("000000000139.jpg",)
    other = write_photo(tmp_path / "own/beach.jpg").parent
    with pytest.raises(SyntheticError) as caught:
        Backdrops.of("images", other)
    assert "instances_train2017" not in caught.value.hint


def test_annotations_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / "in/a.jpg")
    path = write_annotations(tmp_path / "a.json", {"a.jpg": ()}, person="cat")
    with pytest.raises(SyntheticError, match="no category of people"):
        Backdrops.of("images", tmp_path / "in", annotations=str(path))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(SourceError, match="cut short"):
        Backdrops.of("images", tmp_path / "in", annotations=str(path))
    for data in (b"\xff\xd8\xff", b"", b"hello", b"[1]"):
        path.write_bytes(data)
        with pytest.raises(SyntheticError, match=r"(?s)a\.json is no COCO JSON.*give instances_"):
            Backdrops.of("images", tmp_path / "in", annotations=str(path))
    path.write_text('{"images": [{"name": "a.jpg"}], "annotations": [], "categories": []}')
    with pytest.raises(SyntheticError, match="COCO's format"):
        Backdrops.of("images", tmp_path / "in", annotations=str(path))
    with pytest.raises(SourceError, match="cannot read"):
        Backdrops.of("images", tmp_path / "in", annotations=str(tmp_path / "gone.json"))


def test_each_view_has_a_photo_of_its_own(tmp_path: Path) -> None:
    for index in range(6):
        write_photo(tmp_path / f"{index}.jpg")
    found = Backdrops.of("images", tmp_path, annotations="none")
    drawn = found.sample(rng_for(3), ring(6))
    assert sorted(drawn.names) == list(found.names)
    assert drawn == found.sample(rng_for(3), ring(6)) != found.sample(rng_for(4), ring(6))
    assert len(found.sample(rng_for(3), ring(9)).names) == 9
    assert found.surfaces(drawn) == []
    assert found.light(drawn) is None
    assert found.fit(drawn, ring(6)) == ring(6)


@pytest.mark.parametrize("size", [(400, 250), (250, 400)])
def test_a_crop_is_the_part_of_the_photo_that_the_data_say(tmp_path: Path, size: tuple[int, int]) -> None:
    write_ramp(tmp_path / "ramp.png", size=size)
    found = Backdrops.of("images", tmp_path, annotations="none")
    drawn = Backdrop(kind="images", names=("ramp.png",), crops=((0.8, 0.25, 1.0),))
    picture = found.picture(drawn, view=0, intrinsics=K, camera_from_world=np.eye(4), image_px=50, zoom=2)
    assert picture.shape == (100, 100, 3)
    # A square of 200 px at a quarter of the remaining width and at the bottom.
    left, top = 0.25 * (size[0] - 200), size[1] - 200
    middle = (np.array([left, top]) + 99.5) / (np.array(size) - 1) * 255
    assert np.abs(picture[49:51, 49:51].mean(axis=(0, 1))[:2] - middle).max() < 1.5
    slope = np.array([200, 200]) / (np.array(size) - 1) * 255 / 100  # a pixel further
    assert np.abs(picture[:, -1].mean(axis=0)[0] - picture[:, 0].mean(axis=0)[0] - 99 * slope[0]) < 2


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: its left edge is the top
    stored = np.zeros((200, 300, 3), np.uint8)
    stored[:, :150] = 255
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = Backdrops.of("images", tmp_path, annotations="none")
    drawn = Backdrop(kind="images", names=("a.jpg",), crops=((1.0, 0.0, 0.5),))
    picture = found.picture(drawn, view=0, intrinsics=K, camera_from_world=np.eye(4), image_px=40, zoom=1)
    assert picture[2:15].mean() > 245
    assert picture[-15:-2].mean() < 10


# -------------------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    "backdrop",
    [
        Backdrop(kind="images", names=("a.jpg", "b/c.jpg"), crops=((0.8, 0.25, 1.0), (1.0, 0.0, 0.5))),
        Backdrop(kind="meshes", names=("room.glb",), up="z", yaw_rad=0.5, place_m=(1.0, -0.25, 2.0)),
    ],
)
def test_a_backdrop_is_plain_data(backdrop: Backdrop) -> None:
    assert from_mapping(Backdrop, json.loads(json.dumps(asdict(backdrop))), where="scene") == backdrop


def test_a_bad_photo_is_named(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    bad = tmp_path / "b.jpg"
    bad.write_bytes(b"no photo")
    with pytest.raises(SyntheticError, match="cannot be read") as caught:
        Backdrops.of("images", tmp_path, annotations="none")
    assert caught.value.where == str(bad)
    write_ramp(bad.with_suffix(".png"), size=(200, 200)).rename(bad)
    bad.write_bytes(bad.read_bytes()[:300])  # its header is whole, its pixels are not
    found = Backdrops.of("images", tmp_path, annotations="none")
    drawn = Backdrop(kind="images", names=("b.jpg",), crops=((1.0, 0.0, 0.0),))
    with pytest.raises(SyntheticError, match="cannot be read") as caught:
        found.picture(drawn, view=0, intrinsics=K, camera_from_world=np.eye(4), image_px=40, zoom=1)
    assert caught.value.where == str(bad)


@pytest.mark.parametrize("size", [(9_000, 9_000), (30_000, 30_000)])
def test_a_photo_that_would_fill_the_memory_is_not_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_png_of(tmp_path / "huge.png", *size)
    with pytest.raises(SyntheticError) as caught:
        Backdrops.of("images", tmp_path, annotations="none")
    assert caught.value.where == str(path)


def test_small_photos_are_counted_and_none_left_is_an_error(tmp_path: Path) -> None:
    write_photo(tmp_path / "icon.png", size=(400, MIN_SIDE_PX - 1))
    with pytest.raises(SyntheticError, match=f"no background is left: 1 smaller than {MIN_SIDE_PX} px"):
        Backdrops.of("images", tmp_path, annotations="none")
    write_photo(tmp_path / "fits.png", size=(400, MIN_SIDE_PX))
    assert Backdrops.of("images", tmp_path, annotations="none").names == ("fits.png",)


def test_wrong_folders_and_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"")
    with pytest.raises(SyntheticError, match=r"(?s)is a file, not a folder.*one\.jpg.*give the folder that holds it"):
        Backdrops.of("images", tmp_path / "one.jpg", annotations="none")
    with pytest.raises(SyntheticError, match="not there"):
        Backdrops.of("images", tmp_path / "gone", annotations="none")
    with pytest.raises(SyntheticError, match="no meshes") as caught:
        Backdrops.of("meshes", tmp_path)
    assert ".glb" in caught.value.hint
    write_photo(tmp_path / "p.jpg", size=(400, 200))
    with pytest.raises(SyntheticError, match="annotations are given with panoramas"):
        Backdrops.of("panoramas", tmp_path, annotations="none")


def test_the_stamp_follows_names_and_sizes_not_the_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_photo(tmp_path / folder / "1.png", colour=(1, 2, 3))

    def stamp(folder: str) -> str:
        return Backdrops.of("images", tmp_path / folder, annotations="none").stamp

    first = stamp("a")
    assert first == stamp("b")
    write_photo(tmp_path / "b/2.png")
    assert first != stamp("b")
    (tmp_path / "a/1.png").rename(tmp_path / "a/0.png")
    assert first != stamp("a")
    # What a mesh draws on beside it counts too.
    write_room(tmp_path / "m/room.obj")
    before = Backdrops.of("meshes", tmp_path / "m")
    assert before.names == ("room.obj",)
    assert [path.name for path in (tmp_path / "m").iterdir() if path.suffix == ".mtl"], "an obj comes with materials"
    (tmp_path / "m/material.mtl").write_text("newmtl x\n")
    assert before.stamp != Backdrops.of("meshes", tmp_path / "m").stamp


# -------------------------------------------------------------------------------------------------------------- panoramas


def sphere(num: int = 4000) -> np.ndarray:
    directions = rng_for("sphere").normal(size=(num // 50, 50, 3))
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def test_every_direction_has_its_colour_across_seam_and_poles() -> None:
    seam = np.array([[[1e-4, 0.2, 1.0], [-1e-4, 0.2, 1.0], [0, 0.2, 1.0], [0, 1, 0], [0, -1, 0], [0, 0, -2.0]]])
    for directions in (sphere(), seam / np.linalg.norm(seam, axis=-1, keepdims=True)):
        expected = slopes(*np.moveaxis(directions, -1, 0)) * 255
        assert np.abs(look_up(panorama_of(slopes), directions) - expected).max() < 2.0


def test_the_middle_of_a_panorama_lies_ahead_and_its_right_half_to_the_right() -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[20:44, 54:74, 0] = 255  # ahead: -z
    picture[20:44, 86:106, 1] = 255  # a quarter to the right: +x
    seen = look_up(picture, np.array([[[0, 0, -1.0], [1.0, 0, 0], [-1.0, 0, 0]]]))[0]
    assert seen.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 0]]
    # Turned counterclockwise from above, what was ahead is to the left.
    assert look_up(picture, np.array([[[-1.0, 0, 0]]]), yaw_rad=np.pi / 2)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("point", [(0.4, 0.0, 0.7), (2.0, 0.0, -1.5), (-6.0, 0.0, 3.0), "dome"])
def test_all_cameras_see_a_point_of_the_panorama_in_one_colour(point: tuple[float, float, float] | str) -> None:
    direction = np.array((0.6, 0.35, -0.72))
    on_dome = np.array((0, EYE_M, 0)) + DOME_M * direction / np.linalg.norm(direction)
    at = on_dome if point == "dome" else np.array(point)
    yaw = 0.8
    panorama = panorama_of(slopes, height=512)
    expected = look_up(panorama, (at - (0, EYE_M, 0))[None, None], yaw_rad=yaw)[0, 0]
    for eye in ((3.0, 1.0, 2.0), (-2.5, 2.2, 1.0), (0.5, 0.4, -4.0)):
        pose = look_at(np.array(eye), at + np.array([0.02, 0.1, -0.05]), up=np.array([0.0, 1.0, 0.0]))
        pixel, depth = project(at, K, pose)
        assert depth > 0
        picture = panorama_picture(panorama, K, pose, 128, zoom=2, yaw_rad=yaw)
        x, y = np.round((pixel + 0.5) * 2 - 0.5).astype(int)
        assert np.abs(picture[y, x].astype(int) - expected).max() <= 2, eye


def test_a_far_off_panorama_is_what_the_rays_of_the_pixels_meet() -> None:
    # High over the ground all rays that rise meet the dome: their colours follow from geometry alone.
    skewed = np.array([[80.0, 3.0, 30.0], [0, 95.0, 40.0], [0, 0, 1]])
    pose = look_at(np.array([1.0, 2.0, 3.0]), np.array([0.5, 7.0, -4.0]), up=np.array([0.1, 1.0, 0.0]))
    gaze = rays(np.stack(np.meshgrid(np.arange(64.0), np.arange(64.0)), axis=-1), skewed, pose)
    above = np.array([1.0, 2.0 - EYE_M, 3.0])
    along = gaze @ above
    met = above + (np.sqrt(along**2 - above @ above + DOME_M**2) - along)[..., None] * gaze
    panorama = panorama_of(slopes, height=512)
    rising = gaze[..., 1] > 0
    assert rising.mean() > 0.5
    picture = panorama_picture(panorama, skewed, pose, 64, zoom=1)
    assert np.abs(picture.astype(int) - look_up(panorama, met))[rising].max() <= 1


def test_the_shadow_falls_on_the_floor_where_it_is_drawn() -> None:
    # Dark where x > 0.5 and z < -0.5: row 0 of the picture is the farthest +z.
    shadow = np.full((256, 256, 3), 255, np.uint8)
    cell = round(0.5 / SHADOW_SIZE_M * 256)
    shadow[128 + cell :, 128 + cell :] = 64
    panorama = np.full((64, 128, 3), 200, np.uint8)
    pose = look_at(np.array([0.5, 2.4, 3.5]), np.array([0.0, 0.5, 0.0]), up=np.array([0.0, 1.0, 0.0]))
    picture = panorama_picture(panorama, K, pose, 128, zoom=1, shadow_SSC=shadow)
    for point, expected in (
        ((1.0, 0.0, -1.0), 200 * (64 / 255) ** (1 / 2.2)),
        ((-1.0, 0.0, -1.0), 200),
        ((1.0, 0.0, 1.0), 200),
        ((-1.0, 0.0, 1.0), 200),
    ):
        x, y = np.round(project(np.array(point), K, pose)[0]).astype(int)
        assert abs(int(picture[y, x, 0]) - expected) <= 2, point
    horizon = round(float(project(np.array([0.0, 2.4, -1e6]), K, pose)[0][1]))
    assert (picture[:horizon] == 200).all(), "above the ground nothing is dimmed"
    upwards = look_at(np.array([0.0, 1.0, 3.0]), np.array([0.0, 9.0, 2.0]), up=np.array([0.0, 1.0, 0.0]))
    dark = np.zeros((256, 256, 3), np.uint8)
    assert (panorama_picture(panorama, K, upwards, 64, zoom=1, shadow_SSC=dark) == 200).all(), "nor is what is overhead"


def test_a_camera_below_the_floor_or_out_of_the_dome_is_refused() -> None:
    for eye in ((0.0, -0.2, 3.0), (0.0, 1.0, DOME_M)):
        pose = look_at(np.array(eye), np.array([0.0, 0.9, 0.0]), up=np.array([0.0, 1.0, 0.0]))
        with pytest.raises(ValueError, match="does not stand"):
            panorama_picture(panorama_of(slopes), K, pose, 32, zoom=1)


def diffuse(sh_C9: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """What a white surface with these normals (N, 3) shows: (N, 3)."""
    bands = np.pi * np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])
    lobes = np.array([light_lobe((float(n[0]), float(n[1]), float(n[2]))) for n in normals])
    return (np.asarray(sh_C9) * bands @ lobes.T).T


def linear(colour: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """A panorama of light as the formula says, encoded for a screen."""
    return panorama_of(lambda x, y, z: colour(x, y, z) ** (1 / 2.2))


def test_light_of_an_even_sky_makes_white_things_as_bright_as_it() -> None:
    even = linear(lambda x, y, z: np.stack([0 * x + 0.9, 0 * x + 0.5, 0 * x + 0.2], axis=-1))
    seen = diffuse(light_from_panorama(even), sphere(200).reshape(-1, 3))
    assert np.abs(seen - (0.9, 0.5, 0.2)).max() < 0.005


def test_light_of_a_sky_that_falls_off_as_the_cosine() -> None:
    # Radiance 0.5 + 0.4 x lights a surface by 0.5 + 2/3 * 0.4 n_x.
    sky = linear(lambda x, y, z: np.stack([0.5 + 0.4 * x, 0.5 + 0.4 * y, 0.5 - 0.4 * z], axis=-1))
    normals = sphere(200).reshape(-1, 3)
    expected = 0.5 + 2 / 3 * 0.4 * normals * (1, 1, -1)
    assert np.abs(diffuse(light_from_panorama(sky), normals) - expected).max() < 0.005
    yaw = 0.7  # what came from +x comes from (cos, 0, -sin)
    turned = diffuse(light_from_panorama(sky, yaw_rad=yaw), normals)[:, 0]
    assert (
        np.abs(turned - (0.5 + 2 / 3 * 0.4 * (normals[:, 0] * np.cos(yaw) - normals[:, 2] * np.sin(yaw)))).max() < 0.005
    )


def test_the_lamp_stands_where_the_sky_is_bright() -> None:
    towards = np.array((0.6, 0.64, 0.48))

    def sun(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        near = (x * towards[0] + y * towards[1] + z * towards[2]) > 0.95
        return np.repeat(np.where(near, 1.0, 0.05)[..., None], 3, axis=-1)

    light = lamp_light(light_from_panorama(linear(sun)))
    assert np.dot(light.lamp, towards) > 0.995
    assert abs(np.linalg.norm(light.lamp) - 1) < 1e-9
    brightest = diffuse(np.array(light.sh), sphere(4000).reshape(-1, 3)).max()
    assert 0.93 < brightest < 0.97, "exposed for what faces the lamp"
    flat = lamp_light(light_from_panorama(linear(lambda x, y, z: np.full((*x.shape, 3), 0.3))))
    assert flat.shadow < light.shadow - 0.1
    assert flat.lamp[1] > 0.3, "a lamp without a direction stands above"


def test_panoramas_are_twice_as_wide_as_high(tmp_path: Path) -> None:
    write_photo(tmp_path / "whole.jpg", size=(640, 320))
    Image.fromarray(panorama_of(slopes)).save(tmp_path / "sky.png")
    found = Backdrops.of("panoramas", tmp_path)
    assert found.names == ("sky.png", "whole.jpg")
    drawn = replace(found.sample(rng_for(5), ring()), names=("sky.png",))
    assert drawn == replace(found.sample(rng_for(5), ring()), names=("sky.png",))
    cameras = found.fit(drawn, ring())
    asked = {"intrinsics": K, "camera_from_world": cameras[1].camera_from_world, "image_px": 64, "zoom": 2}
    picture = found.picture(drawn, view=1, **asked)
    direct = panorama_picture(panorama_of(slopes), K, cameras[1].camera_from_world, 64, zoom=2, yaw_rad=drawn.yaw_rad)
    assert np.array_equal(picture, direct)
    light = found.light(drawn)
    assert light == lamp_light(light_from_panorama(panorama_of(slopes), yaw_rad=drawn.yaw_rad))
    wrong = write_photo(tmp_path / "cut.jpg", size=(640, 400))
    with pytest.raises(SyntheticError, match="twice as wide as high") as caught:
        Backdrops.of("panoramas", tmp_path)
    assert caught.value.where == str(wrong)


# ----------------------------------------------------------------------------------------------------------------- meshes


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Backdrops:
    folder = tmp_path_factory.mktemp("rooms")
    write_room(folder / "room.glb")
    return Backdrops.of("meshes", folder)


def in_room(backdrop: Backdrop, point: np.ndarray) -> np.ndarray:
    """A point of the scene, in the room as it was drawn."""
    turn, shift = spaces.place_from_world(backdrop)
    return turn @ np.asarray(point, float) + shift - SHIFT_M


def gap(point: np.ndarray) -> float:
    """Distance from a point in the room to its walls, floor, ceiling and table: the truth, without voxels."""
    (wide, deep), table = HALF_M, np.array(TABLE_M)
    walls = min(wide - abs(point[0]), deep - abs(point[2]), point[1], HEIGHT_M - point[1])
    return float(min(walls, np.linalg.norm(np.maximum(np.maximum(table[:, 0] - point, point - table[:, 1]), 0))))


def test_a_person_stands_on_the_floor_with_room_around(rooms: Backdrops) -> None:
    places = set()
    for seed in range(12):
        drawn = rooms.sample(rng_for(seed), ring())
        assert drawn == rooms.sample(rng_for(seed), ring())
        feet = in_room(drawn, np.zeros(3))
        assert abs(feet[1]) < 0.01
        assert gap(feet + np.array([0, 1.0, 0])) >= spaces.FREE_M - 0.02
        assert np.hypot(*(feet[[0, 2]] - np.array(TABLE_M)[[0, 2]].mean(axis=1))) > spaces.FREE_M
        places.add(drawn.place_m)
    assert len(places) == 12


@pytest.mark.parametrize(
    ("name", "up"), [("a.glb", "y"), ("a.glb", "z"), ("a.ply", "y"), ("a.ply", "z"), ("a.obj", "y"), ("a.gltf", "z")]
)
def test_the_floor_is_found_in_every_format_and_with_either_axis_up(tmp_path: Path, name: str, up: Axis) -> None:
    write_room(tmp_path / name, up=up)
    found = Backdrops.of("meshes", tmp_path)
    drawn = found.sample(rng_for(1), ring())
    assert drawn.up == up
    assert abs(drawn.place_m[1] - SHIFT_M[1]) < 0.01
    assert gap(in_room(drawn, np.array([0, 1.0, 0]))) >= spaces.FREE_M - 0.02
    corners = np.concatenate([surface.verts_X3 for surface in found.surfaces(drawn)])
    assert np.abs(np.array([corners[:, 1].min(), corners[:, 1].max() - HEIGHT_M])).max() < 0.01
    assert Backdrops.of("meshes", tmp_path, up=up).sample(rng_for(1), ring()) == drawn
    assert spaces.read_space(tmp_path / name, "auto") is spaces.read_space(tmp_path / name, up), "it is read once"


def test_cameras_stay_inside_and_off_the_furniture(rooms: Backdrops) -> None:
    shortened = 0
    for seed in range(8):
        cameras = ring(5, seed=seed, distance_m=(2.4, 6.0))
        drawn = rooms.sample(rng_for(seed), cameras)
        for near, far in zip(rooms.fit(drawn, cameras), cameras, strict=True):
            assert near == replace(far, distance_m=near.distance_m)
            assert NEAREST_M <= near.distance_m <= far.distance_m
            assert gap(in_room(drawn, near.eye_m)) > 0.1
            shortened += near.distance_m < far.distance_m
    assert shortened > 5, "a camera six metres away would stand behind the wall"


def test_the_clear_way_ends_before_the_wall_and_not_long_before(rooms: Backdrops) -> None:
    drawn = Backdrop(
        kind="meshes", names=("room.glb",), up="y", yaw_rad=0.6, place_m=(SHIFT_M[0] - 1.0, SHIFT_M[1], SHIFT_M[2])
    )
    turn, _ = spaces.place_from_world(drawn)
    origin = np.array([0, 1.2, 0])
    for along, true_m in (
        ((1.0, 0, 0), 5.0),
        ((-1.0, 0, 0), 3.0),
        ((0, 0, 1.0), 3.0),
        ((0, 1.0, 0), 1.6),
        ((0, -1.0, 0), 1.2),
    ):
        clear = rooms.clear_m(drawn, origin, turn.T @ np.array(along), reach_m=9.0)
        assert true_m - 0.35 < clear < true_m - 0.05, along
    # Through the middle of the table, and over it.
    to_table = np.array([3.4, 0, -1.5]) / np.hypot(3.4, 1.5)
    edge_m = 2.9 / 3.4 * np.hypot(3.4, 1.5)
    assert edge_m - 0.4 < rooms.clear_m(drawn, (0, 0.5, 0), turn.T @ to_table, reach_m=3.5) < edge_m
    assert rooms.clear_m(drawn, (0, 1.2, 0), turn.T @ to_table, reach_m=3.5) == 3.5


def test_two_cameras_see_a_point_of_the_room_where_it_is(rooms: Backdrops) -> None:
    drawn = rooms.sample(rng_for(2), ring())
    turn, shift = spaces.place_from_world(drawn)
    surfaces = rooms.surfaces(drawn)
    for centre, colour in MARKS:
        at = turn.T @ (np.array(centre) + SHIFT_M - shift)  # in the scene
        for eye in ((0.6, 1.5, 0.3), (-0.5, 1.9, -0.6)):
            pose = look_at(np.array(eye), at + np.array([0.1, -0.2, 0.15]), up=np.array([0.0, 1.0, 0.0]))
            picture = cast(surfaces, K, pose, 128)
            (x, y), _ = project(at, K, pose)
            assert (picture[round(y), round(x)] == colour).all(), (centre, eye)
            rows, columns = np.nonzero((picture == colour).all(axis=-1))
            size = float(max(np.ptp(rows), np.ptp(columns)))
            # The middle of a disc's picture lies near the picture of its middle.
            assert np.linalg.norm((columns.mean() - x, rows.mean() - y)) < 0.1 * size, (centre, eye)
            distance = np.linalg.norm(at - eye)
            assert size == pytest.approx(2 * MARK_M * K[0, 0] / distance, rel=0.35), "and is as large as it is far"


def test_behind_a_mesh_stands_a_sky_over_ground(rooms: Backdrops) -> None:
    drawn = rooms.sample(rng_for(2), ring())
    asked = {"view": 0, "intrinsics": K, "image_px": 128, "zoom": 1}
    seen = []
    for height in (9.0, 1.6, -6.0):  # up, level and down, all from one place
        pose = look_at(np.array([0, 1.6, 3.0]), np.array([0, height, 0.0]), up=np.array([0.0, 1.0, 0.0]))
        picture = rooms.picture(drawn, camera_from_world=pose, **asked)
        assert picture.shape == (128, 128, 3)
        seen.append(picture.reshape(-1, 3).mean(axis=0))
    assert seen[0][2] > seen[0][0] + 20, "the sky is blue"
    assert seen[2].max() < 135, "the ground is gray"
    assert seen[0].mean() > seen[1].mean() > seen[2].mean()


def test_a_room_is_turned_counterclockwise(rooms: Backdrops) -> None:
    drawn = Backdrop(kind="meshes", names=("room.glb",), up="y", yaw_rad=np.pi / 2, place_m=SHIFT_M)
    back = next(s for s in rooms.surfaces(drawn) if (s.texture_HWC == MARKS[1][1]).all(axis=-1).any())
    assert np.allclose(back.verts_X3[:, 0], -HALF_M[1]), "what was ahead is to the left"


def test_the_floor_under_the_person_takes_the_shadow_and_nothing_is_lost(rooms: Backdrops) -> None:
    drawn = rooms.sample(rng_for(4), ring())
    surfaces = rooms.surfaces(drawn)

    def area(chosen: list) -> float:
        return sum(trimesh.Trimesh(s.verts_X3, s.faces_F3, process=False).area for s in chosen)

    floors = [surface for surface in surfaces if surface.is_floor]
    assert all(np.abs(surface.verts_X3[:, 1]).max() < 0.01 for surface in floors)
    assert area(floors) >= 4 * HALF_M[0] * HALF_M[1] - 0.01
    assert area(surfaces) == pytest.approx(room_scene().area, rel=1e-6)
    for surface in surfaces:
        assert np.abs(np.linalg.norm(surface.normals_X3, axis=1) - 1).max() < 1e-6
        assert surface.faces_F3.max() == len(surface.verts_X3) - 1


def test_photographed_surfaces_keep_their_light_and_plain_ones_take_the_scene_s(rooms: Backdrops) -> None:
    surfaces = rooms.surfaces(rooms.sample(rng_for(4), ring()))
    plain = [surface for surface in surfaces if surface.lit]
    assert len(plain) == 1
    assert (plain[0].verts_X3[:, 1] > HEIGHT_M - 0.01).all()
    assert (plain[0].texture_HWC == 255).all()
    table = [s for s in surfaces if not s.lit and (s.texture_HWC.reshape(-1, 3) == (120, 80, 40)).all(axis=1).any()]
    assert table, "colours of vertices become pixels"
    for surface in table:
        height, width = surface.texture_HWC.shape[:2]
        column, row = surface.uvs_X2[:, 0] * width, (1 - surface.uvs_X2[:, 1]) * height
        assert (surface.texture_HWC[row.astype(int), column.astype(int)] == (120, 80, 40)).all()


def test_linear_colours_of_gltf_become_colours_of_a_screen(tmp_path: Path) -> None:
    scene = room_scene(table=False)
    scene.geometry["ceiling"].visual.material.baseColorFactor = [64, 128, 255, 255]
    scene.export(tmp_path / "room.glb")
    found = Backdrops.of("meshes", tmp_path)
    plain = next(s for s in found.surfaces(found.sample(rng_for(0), ring())) if s.lit)
    expected = (np.array([64, 128, 255]) / 255) ** (1 / 2.2) * 255
    assert np.abs(plain.texture_HWC[0, 0] - expected).max() < 1.5


def bad_file(path: Path) -> Path:
    path.write_bytes(b"not a mesh at all, of no kind")
    return path


def cluttered(path: Path) -> Path:
    scene = room_scene(table=False)
    for x in np.arange(-3.5, 4.0, 1.0):
        for z in np.arange(-2.5, 3.0, 1.0):
            box = trimesh.creation.box((0.2, 1.0, 0.2))
            box.apply_translation((x + SHIFT_M[0], 0.5 + SHIFT_M[1], z + SHIFT_M[2]))
            scene.add_geometry(box)
    scene.export(path)
    return path


def compressed(path: Path) -> Path:
    write_room(path)
    data = path.read_text()
    path.write_text(data.replace('{"', '{"extensionsRequired": ["KHR_draco_mesh_compression"], "', 1))
    return path


def no_numbers(path: Path) -> Path:
    mesh = room_scene().to_mesh()
    mesh.vertices[3] = np.nan
    mesh.export(path)
    return path


@pytest.mark.parametrize(
    ("write", "name", "what"),
    [
        (bad_file, "a.glb", "no glTF"),
        (bad_file, "a.gltf", "no glTF"),
        (bad_file, "a.ply", "cannot be read"),
        (bad_file, "a.obj", "cannot be read|no faces"),
        (compressed, "a.gltf", "KHR_draco_mesh_compression"),
        (no_numbers, "a.ply", "no numbers"),
        (lambda path: write_room(path, scale=100.0), "a.glb", "measures 800 x 600 m"),
        (lambda path: write_room(path, scale=0.01), "a.glb", "measures 0.08 x 0.06 m"),
        (cluttered, "a.glb", "no level floor"),
    ],
)
def test_unusable_meshes_are_named_with_what_to_do(
    tmp_path: Path, write: Callable[[Path], Path], name: str, what: str
) -> None:
    path = write(tmp_path / name)
    with pytest.raises(SyntheticError, match=what) as caught:
        Backdrops.of("meshes", tmp_path).sample(rng_for(0), ring())
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_the_floor_is_the_top_of_the_lowest_slab(tmp_path: Path) -> None:
    # Two storeys: slabs 0.3 m thick at 0, 3 and 6 m, on pillars. One stands neither below the lowest nor on the roof.
    scene = trimesh.Scene()
    for height in (0.0, 3.0, 6.0):
        slab = trimesh.creation.box((9.0, 0.3, 9.0))
        slab.apply_translation((0, height, 0))
        scene.add_geometry(slab)
    for x, z in ((-4, -4), (4, -4), (-4, 4), (4, 4)):
        pillar = trimesh.creation.box((0.4, 6.0, 0.4))
        pillar.apply_translation((x, 3.0, z))
        scene.add_geometry(pillar)
    scene.export(tmp_path / "house.glb")
    found = Backdrops.of("meshes", tmp_path, up="y")
    drawn = [found.sample(rng_for(seed), ring()) for seed in range(4)]
    assert {backdrop.place_m[1] for backdrop in drawn} == {0.15}
    top = {round(float(surface.verts_X3[:, 1].max()), 2) for surface in found.surfaces(drawn[0]) if surface.is_floor}
    assert top == {0.0}, "ceilings take no shadow"


def test_a_room_too_small_for_the_cameras_is_passed_over_or_refused(tmp_path: Path) -> None:
    write_room(tmp_path / "small.glb", scale=0.62, table=False)  # 5 x 3.7 m; 1.7 m high: no headroom
    with pytest.raises(SyntheticError, match="no level floor"):
        Backdrops.of("meshes", tmp_path).sample(rng_for(0), ring())
    scene = room_scene(table=False)
    scene.apply_transform(np.diag([0.35, 1.0, 0.7, 1.0]))  # 2.8 x 4.2 m
    scene.export(tmp_path / "small.glb")
    spaces.read_space.cache_clear()
    spaces._pieces.cache_clear()
    with pytest.raises(SyntheticError, match=r"in none of small.glb 6 cameras have 1.5 m"):
        Backdrops.of("meshes", tmp_path).sample(rng_for(0), ring(6))
    write_room(tmp_path / "wide.glb")
    found = Backdrops.of("meshes", tmp_path)
    assert {found.sample(rng_for(seed), ring(6)).names for seed in range(4)} == {("wide.glb",)}
    # Cameras of a close-up need less.
    assert {found.sample(rng_for(seed), ring(6, distance_m=(0.5, 0.6))).names for seed in range(6)} > {("wide.glb",)}


def test_marks_are_as_large_as_the_fixture_says() -> None:
    """The discs that prove the views are drawn at true size, so that they prove something."""
    picture = np.asarray(room_scene().geometry["right"].visual.material.baseColorTexture)
    share = (picture == MARKS[0][1]).all(axis=-1).mean() * 2 * HALF_M[1] * HEIGHT_M
    assert share == pytest.approx(np.pi * MARK_M**2, rel=0.05)

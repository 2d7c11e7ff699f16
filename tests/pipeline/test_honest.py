"""The scene that fixtures are drawn from, and the proof from pixels: right ones pass, wrong ones are seen."""

import dataclasses
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from manifests.build import Build
from manifests.sample import Sample, read_tar, write_tar
from manifests.types import FrameKey, Split
from pipeline.crop import stored_picture
from pipeline.media import read_frames
from pipeline.quality import Watch
from pipeline.recipes import BuildRecipe, CropRecipe, PairRecipe, ParserRecipe, ShardRecipe, SourceRecipe, SplitRecipe
from pipeline.squares import cut, square_of, square_within
from tests.support import honest, proof
from tests.support.honest import Code, Drawn, Figure, body, draw, hand, read_code, ring
from tests.support.rigs import TrueCamera, write_opencv

SIZES = [(1920, 1080), (640, 480), (334, 512), (128, 256), (250, 250)]
BENT = (-0.12, 0.04, 0.002, -0.001, 0.0)


def figure(domain: str, person: int, instant: int) -> Figure:
    return body(person, instant) if domain == "body" else hand(person, instant)


def lenses(domain: str, num: int, size: tuple[int, int], **other) -> list[honest.Lens]:
    return ring(num, size=size, radius_m=3.0 if domain == "body" else 0.6, **other)


def stored(drawn: Drawn, *, padded: bool = False, k: int = 0) -> dict:
    """The crop as the pipeline stores it; `padded`: the square keeps its margin and leaves the image."""
    height, width = drawn.owner.shape
    box = drawn.box(k)
    square = square_of(box, margin=1.25) if padded else square_within(box, margin=1.25, width=width, height=height)
    return stored_picture(cut(drawn.rgb, square, 256), 90)


def pixels(crop: dict) -> np.ndarray:
    return simplejpeg.decode_jpeg(crop["jpeg"], colorspace="RGB")


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("domain", ["body", "hand"])
@pytest.mark.parametrize("size", SIZES)
def test_the_code_outlives_crop_and_jpeg(size: tuple[int, int], domain: str, gray: bool) -> None:
    most = (honest.NUM_GRAY_INSTANTS, honest.NUM_GRAY_VIEWS) if gray else (honest.NUM_INSTANTS, honest.NUM_VIEWS)
    for view, lens in enumerate(lenses(domain, most[1], size)):
        for instant in range(view % 5, most[0], 5):
            person = (instant + view) % honest.NUM_PEOPLE
            drawn = draw(lens, [figure(domain, person, instant)], instant=instant, view=view, gray=gray)
            crop = stored(drawn, padded=(instant + view) % 2 == 1)
            assert read_code(pixels(crop), gray=gray) == Code(instant, view, person)


def test_the_code_is_read_where_the_figure_leaves_the_picture() -> None:
    """Edges are repeated over half of the crop."""
    lens = ring(1, size=(640, 480), focal_px=1500, look_at=(0.3, 0.3, 1.6))[0]
    drawn = draw(lens, [body(2, 4)], instant=11, view=7)
    box = drawn.box()
    assert (box[[1, 3]] == [-0.5, 479.5]).any()
    wide = cut(drawn.rgb, square_of(box, margin=1.5), 256)
    assert read_code(wide) == Code(11, 7, 2)


@pytest.mark.parametrize("gray", [False, True])
def test_a_crop_tells_of_the_person_in_its_middle(gray: bool) -> None:
    lens = ring(1, size=(1920, 1080))[0]
    aside = lens.rotation[0] * 0.75
    people = [body(person, 3, at=place[:2]) for person, place in ((1, -aside), (4, aside))]
    drawn = draw(lens, people, instant=3, view=2, gray=gray)
    assert [read_code(pixels(stored(drawn, k=k)), gray=gray).person for k in (0, 1)] == [1, 4]


def test_a_picture_without_a_code_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    flat = np.full((256, 256, 3), 128, np.uint8)
    nobody = draw(ring(1, size=(256, 256))[0], [], instant=3, view=3).rgb
    for picture in (noise, flat, nobody):
        with pytest.raises(ValueError, match=r"not clear|fills the middle"):
            read_code(picture)
    with pytest.raises(ValueError, match=r"not clear|fills the middle"):
        read_code(draw(ring(1, size=(256, 256))[0], [body(0, 0)], instant=3, view=3).rgb, gray=True)
    with pytest.raises(ValueError, match="instant 16, view 0: a code has 16 instants"):
        draw(ring(1, size=(256, 256))[0], [], instant=16, view=0)


@pytest.mark.parametrize("domain", ["body", "hand"])
@pytest.mark.parametrize("size", SIZES[1:])
def test_the_road_takes_every_frame_and_every_pair(size: tuple[int, int], domain: str) -> None:
    """Nothing drawn looks frozen, cut or alike, so a fixture knows its number of pairs."""
    for person, gray in ((0, False), (1, False), (2, True)):
        most = honest.NUM_GRAY_INSTANTS if gray else honest.NUM_INSTANTS
        for view, lens in enumerate(lenses(domain, 2, size)):
            watch, hashes = Watch(CropRecipe()), []
            for instant in range(most):
                drawn = draw(lens, [figure(domain, person, instant)], instant=instant, view=view, gray=gray)
                verdict = watch.look(drawn.rgb)
                assert verdict.reason is None, verdict
                assert not verdict.cut, verdict
                crop = stored(drawn)
                assert crop["mean"] > 20
                hashes.append(crop["phash"])
            alike = [(i, j) for i in range(most) for j in range(i) if (hashes[i] ^ hashes[j]).bit_count() < 2]
            assert alike == [], f"person {person}, view {view}"


@pytest.mark.parametrize("distortion", [None, BENT])
@pytest.mark.parametrize("domain", ["body", "hand"])
def test_joints_lie_where_their_limbs_are_drawn(domain: str, distortion: tuple[float, ...] | None) -> None:
    for lens in lenses(domain, 4, (640, 480), distortion=distortion):
        shape = figure(domain, 3, 5)
        drawn = draw(lens, [shape], instant=0, view=0)
        limbs = [name for capsule in shape.capsules for name in (capsule.a, capsule.b)]
        x, y = np.rint(lens.pixels(shape.joints(limbs))).astype(int).T
        assert drawn.mask(0)[y, x].all()
        x0, y0, x1, y1 = drawn.box()
        skin = lens.pixels(shape.surface(700))
        inside = (skin > [x0 - 1, y0 - 1]) & (skin < [x1 + 1, y1 + 1])
        assert inside.all()
        assert (skin.max(axis=0) - skin.min(axis=0) > 0.9 * np.array([x1 - x0, y1 - y0])).all()


def test_a_body_stands_on_the_floor_and_moves_smoothly() -> None:
    for person in range(honest.NUM_PEOPLE):
        steps = [body(person, instant, at=(0.5, -0.2)) for instant in range(20)]
        for shape in steps:
            height = shape.surface(6890)[:, 2]
            assert -0.005 < height.min() < 0.03
            assert 1.5 < height.max() < 1.9
            assert np.linalg.norm(shape.points["pelvis"][:2] - [0.5, -0.2]) < 1e-9
        moved = [np.linalg.norm(b.coco17() - a.coco17(), axis=1).max() for a, b in pairwise(steps)]
        assert min(moved) > 0.05
        assert max(moved) < 0.75
        bones = np.array([np.linalg.norm(s.points["left_knee"] - s.points["left_ankle"]) for s in steps])
        assert np.ptp(bones) < 1e-9


def test_left_is_left() -> None:
    """Seen from the front, a person's left is on the right; a raised right palm has its thumb on the right."""
    shape = body(0, 0)
    ahead = shape.points["nose"] - shape.points["head"]
    front = ring(1, size=(640, 480))[0]
    turn = np.arctan2(ahead[1], ahead[0]) - np.arctan2(front.centre_m[1], front.centre_m[0])
    c, s = np.cos(turn), np.sin(turn)
    turned = front.camera_from_world @ np.linalg.inv(
        np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    lens = dataclasses.replace(front, camera_from_world=turned)
    left, right = lens.pixels(shape.joints(["left_shoulder", "right_shoulder"]))
    assert left[0] > right[0]
    for side, sign in (("right", 1), ("left", -1)):
        joints = hand(0, 0, side=side).hand21()
        wrist, thumb, index, pinky, tip = joints[0], joints[2], joints[5], joints[17], joints[12]
        palm = np.cross(index - wrist, pinky - wrist) * sign  # the way the fingers bend
        assert palm @ (tip - joints[9]) > 0
        assert np.cross(index - wrist, palm) @ (thumb - wrist) * sign > 0
        assert 0.12 < np.linalg.norm(np.ptp(joints, axis=0)) < 0.3


def test_joint_sets_have_their_sizes() -> None:
    shape = body(1, 1)
    assert shape.coco17().shape == (17, 3)
    assert shape.body25().shape == (25, 3)
    assert shape.joints(honest.PENN13).shape == (13, 3)
    assert shape.joints(honest.SMPL24).shape == (24, 3)
    assert hand(1, 1).hand21().shape == (21, 3)
    assert hand(1, 1).surface(778).shape == (778, 3)


def test_nearer_limbs_hide_farther_ones() -> None:
    lens = ring(1, size=(640, 480))[0]
    towards = lens.centre_m[:2] / np.linalg.norm(lens.centre_m[:2])
    near, far = body(0, 2, at=towards * 0.8), body(0, 2, at=-towards * 0.8)
    both = draw(lens, [near, far], instant=0, view=0)
    assert (both.mask(0) == draw(lens, [near], instant=0, view=0).mask(0)).all()
    assert both.mask(1).sum() < draw(lens, [far], instant=0, view=0).mask(0).sum()
    with pytest.raises(ValueError, match="nothing is seen of figure 2"):
        both.box(2)


def test_files_keep_the_code(tmp_path: Path) -> None:
    lens = ring(1, size=(640, 480))[0]
    drawn = [draw(lens, [body(3, k)], instant=k, view=5).rgb for k in range(6)]
    for write, name in ((honest.write_jpeg, "a/b.jpg"), (honest.write_png, "a/b.png")):
        path = write(tmp_path / name, drawn[4])
        assert read_code(cv2.imread(str(path))[..., ::-1].copy()) == Code(4, 5, 3)
    video = honest.write_mp4(tmp_path / "c/d.mp4", drawn, Fraction(30000, 1001))
    pictures = list(read_frames(video))
    assert [read_code(picture.rgb) for picture in pictures] == [Code(k, 5, 3) for k in range(6)]
    assert pictures[5].time_s == pytest.approx(5 * 1001 / 30000, abs=1e-4)


def test_drawing_is_quick() -> None:
    lens, shape = ring(1, size=(1920, 1080))[0], body(0, 0)
    draw(lens, [shape], instant=0, view=0)
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        draw(lens, [shape], instant=0, view=0)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.05


# --- the proof ---

RIG = [*ring(3, size=(640, 480))[:2], ring(3, size=(640, 480), distortion=BENT)[2]]
RECIPE = BuildRecipe(
    name="honest",
    sources=(SourceRecipe(kind="cameras", name="cameras"),),
    split=SplitRecipe(val_groups=("two",)),
    parser=ParserRecipe(backend="none"),
    pair=PairRecipe(cross_view=100, cross_pose=100),
    shard=ShardRecipe(rows=40),
)
INSTANTS = range(5)


def person_of(key: FrameKey) -> Figure:
    return body(1 if key.sequence == "one" else 4, key.instant)


def code_of(key: FrameKey) -> tuple[int, int, int]:
    return key.instant, int(key.view[-1]) - 1, person_of(key).person


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of three calibrated cameras: the second is gray, the lens of the third bends."""
    root = tmp_path_factory.mktemp("rig")
    rig = [TrueCamera(f"cam{k + 1}", one.K, one.distortion, one.camera_from_world) for k, one in enumerate(RIG)]
    write_opencv(root, rig)
    for sequence, person in (("one", 1), ("two", 4)):
        for view, lens in enumerate(RIG):
            for instant in INSTANTS:
                drawn = draw(lens, [body(person, instant)], instant=instant, view=view, gray=view == 1)
                honest.write_jpeg(root / sequence / f"cam{view + 1}" / f"{instant:04d}.jpg", drawn.rgb)
    return root


@pytest.fixture(scope="module")
def built(rig: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    proof.run_road(RECIPE, {"cameras": rig}, out)
    return out


def test_an_honest_build_is_proven(built: Path) -> None:
    kinds = proof.prove_pairs(built, codes=code_of, gray_views=["cam2"])
    assert kinds == {"cross_view": 2 * 5 * 3, "cross_pose": 2 * 3 * 10}


def test_its_cameras_are_proven(built: Path) -> None:
    frames, points = Build(built).table("frames"), body(0, 0).surface(200)
    assert proof.prove_cameras(frames, lambda key: RIG[code_of(key)[1]], points) == 30
    shift = np.eye(4)
    shift[0, 3] = 0.02
    with pytest.raises(AssertionError, match="px from where they are"):
        proof.prove_cameras(frames, lambda key: RIG[code_of(key)[1]], points, world_from_fixture=shift)
    with pytest.raises(AssertionError, match="px from where they are"):
        proof.prove_cameras(frames, lambda key: RIG[1], points)
    with pytest.raises(AssertionError, match="has a pose that nobody wrote"):
        proof.prove_cameras(frames, lambda key: None, points)


def test_the_cameras_of_its_crops_are_proven(built: Path) -> None:
    assert proof.prove_crop_cameras(built, person_of, gray_views=["cam2"]) > 60
    shift = np.eye(4)
    shift[:3, 3] = 0.1
    with pytest.raises(AssertionError, match="sees the figure elsewhere"):
        proof.prove_crop_cameras(built, person_of, gray_views=["cam2"], world_from_fixture=shift)


def changed(built: Path, out: Path, change: Callable[[Sample, list[Sample]], Sample | None]) -> Path:
    """The build's first shard with one sample changed: the first for which `change` has another."""
    path = sorted((built / "shards").glob("train-*.tar"))[0]
    samples = list(read_tar(path))
    place, new = next((k, new) for k, sample in enumerate(samples) if (new := change(sample, samples)) is not None)
    (out / "shards").mkdir(parents=True)
    with (out / "shards" / path.name).open("wb") as file:
        write_tar(file, [*samples[:place], new, *samples[place + 1 :]])
    return out


def keys_of(sample: Sample) -> list[FrameKey]:
    return [FrameKey.parse(sample.meta[role]["key"]) for role in ("target", "reference")]


@pytest.mark.parametrize("kind", ["cross_view", "cross_pose"])
def test_a_picture_of_another_pair_is_seen(built: Path, tmp_path: Path, kind: str) -> None:
    """A cross-view pair gets a reference of another instant, a cross-pose pair one of another view."""

    def wrong(sample: Sample, others: list[Sample]) -> Sample | None:
        mine = keys_of(sample)
        for other in others:
            key = keys_of(other)[1]
            astray = key.instant != mine[0].instant if kind == "cross_view" else key.view != mine[0].view
            if sample.meta["kind"] == kind and astray and (key.view == "cam2") == (mine[1].view == "cam2"):
                return dataclasses.replace(sample, reference_jpg=other.reference_jpg)
        return None

    with pytest.raises(AssertionError, match=f"{kind} .* shows Code"):
        proof.prove_pairs(changed(built, tmp_path, wrong), gray_views=["cam2"])


def test_swapped_pictures_are_seen(built: Path, tmp_path: Path) -> None:
    """Target for reference: the pair is still a pair, but not the one that its keys name."""

    def swapped(sample: Sample, others: list[Sample]) -> Sample | None:
        if any(key.view == "cam2" for key in keys_of(sample)):
            return None
        return dataclasses.replace(sample, target_jpg=sample.reference_jpg, reference_jpg=sample.target_jpg)

    out = changed(built, tmp_path, swapped)
    proof.prove_pairs(out, gray_views=["cam2"])
    with pytest.raises(AssertionError, match="was drawn as"):
        proof.prove_pairs(out, codes=code_of, gray_views=["cam2"])


def test_another_person_is_seen(built: Path, tmp_path: Path) -> None:
    def other_person(sample: Sample, others: list[Sample]) -> Sample | None:
        key = keys_of(sample)[1]
        if key.view == "cam2":
            return None
        instant, view, _ = code_of(key)
        drawn = draw(RIG[view], [body(3, instant)], instant=instant, view=view)
        return dataclasses.replace(sample, reference_jpg=stored(drawn)["jpeg"])

    with pytest.raises(AssertionError, match=r"person=1.* and .*person=3"):
        proof.prove_pairs(changed(built, tmp_path, other_person), gray_views=["cam2"])


def test_a_pair_across_splits_is_seen(built: Path, tmp_path: Path) -> None:
    def across(sample: Sample, others: list[Sample]) -> Sample:
        meta = dict(sample.meta)
        key = dataclasses.replace(keys_of(sample)[1], split=Split.VAL)
        return dataclasses.replace(sample, meta=meta | {"reference": meta["reference"] | {"key": str(key)}})

    with pytest.raises(AssertionError, match=r"cameras/train/one/.* and cameras/val/one/"):
        proof.prove_pairs(changed(built, tmp_path, across), gray_views=["cam2"])


def test_the_road_stops_at_what_the_audit_finds(rig: Path, tmp_path: Path) -> None:
    proof.run_road(RECIPE, {"cameras": rig}, tmp_path)
    tar = next((tmp_path / "shards").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[5000] ^= 1
    tar.write_bytes(data)
    with pytest.raises(AssertionError, match=f"hash in .*{tar.name}"):
        proof.run_road(RECIPE, {"cameras": rig}, tmp_path)


def test_nothing_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="there is no pair"):
        proof.prove_pairs(tmp_path)

"""Videos and images: order, times, damage, size."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from manifests.errors import SourceError
from pipeline import media
from pipeline.media import natural_order, probe, read_frames, read_media
from tests.support.samples import asset, sample
from tests.support.videos import SIZE, cut_file, damage_packet, number_of, picture, write_images, write_video

CONTAINERS = [
    ("libx264", "mp4", 0),
    ("libx264", "mp4", 2),
    ("libx264", "mkv", 2),
    ("libx264", "avi", 2),
    ("mpeg4", "avi", 0),
    ("mpeg4", "mp4", 2),
    ("libvpx-vp9", "webm", 0),
]


def shown(path, **options):
    """What each index of a video shows; None where it is unreadable."""
    return {p.index: None if p.rgb is None else number_of(p.rgb) for p in read_frames(path, **options)}


@pytest.mark.parametrize(("codec", "suffix", "reordered"), CONTAINERS)
def test_every_container_gives_the_frames_in_display_order(tmp_path, codec, suffix, reordered):
    path = write_video(tmp_path / f"v.{suffix}", range(20), codec=codec, reordered=reordered)
    found = probe(path)
    assert (found.width, found.height, found.num_frames, found.rotation) == (*SIZE, 20, 0)
    assert np.allclose(found.times_s, np.arange(20) / 30, atol=0.001)
    assert shown(path) == {k: k for k in range(20)}
    assert [p.time_s for p in read_frames(path)] == list(found.times_s)


def test_wanted_frames_are_the_same_as_in_a_full_pass(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(20), reordered=2)
    full = {p.index: p.rgb for p in read_frames(path)}
    some = {p.index: p.rgb for p in read_frames(path, wanted=[17, 3, 4, 99])}
    assert list(some) == [3, 4, 17]
    assert all(np.array_equal(some[k], full[k]) for k in some)


def test_two_passes_give_the_same_bytes(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(12), reordered=2)
    once, again = ([p.rgb.tobytes() for p in read_frames(path)] for _ in range(2))
    assert once == again


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_pictures_stand_upright(tmp_path, rotation):
    path = write_video(tmp_path / "v.mp4", [5, 6], rotation=rotation if rotation < 180 else rotation - 360)
    found = probe(path)
    first = next(read_frames(path)).rgb
    assert found.rotation == rotation
    assert (found.height, found.width) == first.shape[:2]
    difference = np.abs(np.rot90(picture(5), rotation // 90).astype(int) - first).mean()
    assert difference < 6


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), ("libx264", "avi"), ("mpeg4", "avi"), ("libx264", "mkv")]
)
def test_damage_makes_exactly_the_frames_up_to_the_next_key_frame_unreadable(tmp_path, codec, suffix):
    path = write_video(tmp_path / f"v.{suffix}", range(20), codec=codec, keep_every=6)
    damage_packet(path, 8)
    assert shown(path) == {k: None if 8 <= k < 12 else k for k in range(20)}
    assert probe(path).num_frames == 20


def test_damage_among_reordered_frames_touches_nothing_beyond_its_key_frame(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(20), reordered=2, keep_every=6)
    damage_packet(path, 7)  # a frame that those shown before and after it are predicted from
    found = shown(path)
    assert all(found[k] == k for k in (*range(6), *range(12, 20)))
    assert {k for k, number in found.items() if number is None} <= set(range(6, 12))
    assert any(number is None for number in found.values())


@pytest.mark.parametrize("reordered", [0, 2])
def test_no_damage_to_an_mp4_shows_a_wrong_picture(tmp_path, reordered):
    """Cut it or overwrite stretches: a picture that is yielded shows what its index says, or none is yielded.

    (A single flipped bit can pass unseen: it may leave a valid stream that says something else.)
    """
    whole = write_video(tmp_path / "whole.mp4", range(24), reordered=reordered).read_bytes()
    rng, outcomes = np.random.default_rng(reordered), set()
    for _ in range(30):
        data = bytearray(whole)
        at = int(rng.integers(100, len(data) - 60))
        if rng.random() < 0.2:
            data = data[:at]
        else:
            data[at : at + 50] = rng.integers(0, 255, 50, dtype=np.uint8).tobytes()
        (tmp_path / "v.mp4").write_bytes(data)
        try:
            found, pictures = probe(tmp_path / "v.mp4"), shown(tmp_path / "v.mp4")
        except SourceError:
            outcomes.add("refused")
            continue
        assert list(pictures) == list(range(found.num_frames))
        assert all(number in (None, k) for k, number in pictures.items())
        outcomes.add("damaged" if None in pictures.values() else "whole")
    assert {"refused", "damaged"} <= outcomes


def test_a_cut_file_gives_what_it_holds(tmp_path):
    path = write_video(tmp_path / "v.mkv", range(20), keep_every=4)
    cut_file(path, 0.6)
    found = shown(path)
    assert 5 < len(found) < 20
    assert [number for number in found.values() if number is not None] == [k for k in found if found[k] is not None]


def test_a_gap_in_time_stays_in_the_clock(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(6), pts=[0, 1, 2, 12, 13, 14])
    assert np.allclose(np.diff(probe(path).times_s) * 30, [1, 1, 10, 1, 1], atol=0.01)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100, b"#EXTM3U\n#EXTINF:1,\nother.mp4\n"])
def test_a_file_that_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(
        SourceError, match=r"no video that can be read(.|\n)*where: .*v\.mp4(.|\n)*try: +play it"
    ) as caught:
        probe(path)
    assert caught.value.where == str(path)
    with pytest.raises(SourceError):
        next(read_frames(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        probe(tmp_path / "gone.mp4")


def test_a_video_larger_than_the_cap_is_not_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", range(3))
    monkeypatch.setattr(media, "MAX_SIDE_PX", 64)
    with pytest.raises(SourceError, match=r"96x64 px is larger than 64 px a side"):
        probe(path)


def test_images_come_in_natural_order(tmp_path):
    folder = write_images(tmp_path / "cam", [9, 10, 2], name="image{}.png")
    found = probe(folder)
    assert found.names == ("image2.png", "image9.png", "image10.png")
    assert (found.width, found.height, found.codec, found.times_s) == (*SIZE, "image", ())
    assert shown(folder) == {0: 2, 1: 9, 2: 10}
    assert sorted(["a10", "a9", "a09", "b1"], key=natural_order) == ["a09", "a9", "a10", "b1"]


def test_an_image_that_does_not_decode_is_unreadable_and_the_others_stay(tmp_path):
    folder = write_images(tmp_path / "cam", [1, 2, 3])
    (folder / "000002.png").write_bytes(b"no image")
    (folder / "000004.png").write_bytes((folder / "000003.png").read_bytes()[:200])
    assert probe(folder).sizes == (SIZE, (0, 0), SIZE, SIZE)
    assert shown(folder) == {0: 1, 1: None, 2: 3, 3: None}


def test_a_png_that_claims_to_be_huge_is_not_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16000, 16000, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 16001 * 4)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    found = next(read_frames(path))
    assert found.rgb is None
    assert "too large" in found.detail
    with pytest.raises(SourceError, match="no image here can be read"):
        probe(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(5)).save(path, exif=exif, quality=95)
    from PIL import ImageOps

    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    found = probe(path)
    rgb = next(read_frames(path)).rgb
    assert (found.height, found.width) == rgb.shape[:2] == expected.shape[:2]
    assert np.abs(rgb.astype(int) - expected).mean() < 3


def test_gray_and_transparent_images_become_rgb(tmp_path):
    gray, clear = picture(5)[..., 0], np.dstack([picture(5), np.full(SIZE[::-1], 99, np.uint8)])
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    cv2.imwrite(str(tmp_path / "clear.png"), clear[..., [2, 1, 0, 3]])
    assert np.array_equal(next(read_frames(tmp_path / "gray.png")).rgb, np.repeat(gray[..., None], 3, axis=-1))
    assert np.array_equal(next(read_frames(tmp_path / "clear.png")).rgb, picture(5))


def test_rows_are_read_in_their_order_each_file_once(tmp_path):
    write_video(tmp_path / "a.mp4", range(10))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    write_images(tmp_path / "cam", [7])
    places = [
        ("a.mp4", 2),
        ("a.mp4", 5),
        ("a.mp4", 50),
        ("bad.mp4", 0),
        ("bad.mp4", 1),
        ("cam/000007.png", 0),
        ("a.mp4", 1),
    ]
    found = list(read_media(tmp_path, places))
    assert [p.index for p in found] == [2, 5, 50, 0, 1, 0, 1]
    assert [p.rgb is not None and number_of(p.rgb) for p in found] == [2, 5, False, False, False, 7, 1]
    assert "fewer frames" in found[2].detail
    assert "no video that can be read" in found[4].detail


def test_rows_that_go_back_in_a_video_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"indices of a\.mp4 do not rise"):
        list(read_media(tmp_path, [("a.mp4", 2), ("a.mp4", 1)]))


REAL = [
    ("jeffffffli+HybrIK/examples/taiji.mp4", 1280, 720, 412, 17.142125),
    ("open-mmlab+mmaction2/tests/data/test.avi", 320, 240, 164, 163 / 25),
    ("open-mmlab+mmaction2/demo/demo_skeleton.mp4", 1920, 1080, 72, 38912 / 15360),
    ("open-mmlab+mmaction2/tools/data/skeleton/S001C001P001R001A001_rgb.avi", 1920, 1080, 103, 102 / 30),
    ("open-mmlab+mmhuman3d/demo/resources/single_person_demo.mp4", 1080, 1920, 40, 39 / 12),
    ("tensorflow+tfjs-models/hand-pose-detection/test_data/asl_hand.25fps.mp4", 620, 1080, 325, 324 / 25),
]


@pytest.mark.parametrize(("name", "width", "height", "num_frames", "last_s"), REAL)
def test_real_clips(name, width, height, num_frames, last_s):
    path = sample(name)
    found = probe(path)
    assert (found.width, found.height, found.num_frames) == (width, height, num_frames)
    assert found.times_s[-1] == pytest.approx(last_s)
    assert (np.diff(found.times_s) > 0).all()
    ends = [0, num_frames // 2]
    assert [p.rgb.shape for p in read_frames(path, wanted=ends)] == [(height, width, 3)] * 2


def test_the_skeleton_clip_has_a_gap_of_200_ms():
    steps = np.diff(probe(sample("open-mmlab+mmaction2/demo/demo_skeleton.mp4")).times_s)
    assert steps.max() == pytest.approx(0.2, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["demo/cameras/single/cam01.mp4", "demo/cameras/single/cam02.mp4", "crowd/multi/cam04.mp4"]
)
def test_every_frame_of_the_demo_decodes(name):
    path = asset(name)
    assert all(p.rgb is not None for p in read_frames(path))

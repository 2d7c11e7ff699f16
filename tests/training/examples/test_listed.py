"""Pictures of datasets, and examples that are listed before they are read."""

import io

import numpy as np
import pytest
from PIL import Image

from manifests.errors import SourceError
from manifests.types import Domain
from training.examples import pictures
from training.examples.base import About
from training.examples.listed import Entry, Listed
from training.examples.pictures import read_picture

ABOUT = About(name="toy", domain=Domain.BODY, split="test", labels=("class",), protocol="whole pictures")
SQUARE = np.array([0.0, 0.0, 8.0, 8.0])


def png(width, height, value=7):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


class TestReadPicture:
    def test_bytes_and_files(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png(5, 3))
        for source in (tmp_path / "a.png", png(5, 3)):
            rgb_HW3 = read_picture(source, where="here")
            assert rgb_HW3.shape == (3, 5, 3)
            assert (rgb_HW3 == 7).all()

    def test_gray_becomes_colour(self, tmp_path):
        Image.fromarray(np.full((3, 5), 9, np.uint8)).save(tmp_path / "gray.png")
        assert read_picture(tmp_path / "gray.png", where="here").shape == (3, 5, 3)

    def test_a_turn_noted_beside_the_pixels_is_not_done(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
        assert read_picture(tmp_path / "turned.jpg", where="here").shape == (3, 5, 3)
        assert read_picture(tmp_path / "turned.jpg", where="here", upright=True).shape == (5, 3, 3)

    @pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", png(64, 64)[:40]])
    def test_damage_is_told(self, damage):
        with pytest.raises(SourceError, match=r"cannot be read(.|\n)*here") as told:
            read_picture(damage, where="here")
        assert "get the picture again" in told.value.hint

    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(SourceError, match="No such file"):
            read_picture(tmp_path / "none.jpg", where=tmp_path / "none.jpg")

    def test_claims_are_checked_before_pixels_are_unfolded(self, monkeypatch):
        monkeypatch.setattr(pictures, "MAX_PIXELS", 10)
        with pytest.raises(SourceError, match="claims 5 x 3"):
            read_picture(png(5, 3), where="here")


class TestListed:
    def test_reads_one_at_a_time(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png(5, 3))
        calls = []
        labels = {"class": 2, "betas": lambda: calls.append(1) or np.ones(10)}
        entry = Entry(key="a", picture=tmp_path / "a.png", square_xyxy_px=SQUARE, labels=labels, subject="ann")
        lost = Entry(key="b", picture=tmp_path / "none.png", square_xyxy_px=SQUARE)
        examples = Listed(ABOUT, [entry, lost])
        assert len(examples) == 2
        assert (examples.keys(), examples.class_indices(), examples.subjects()) == (["a", "b"], [2, -1], ["ann", None])
        assert not calls, "nothing is read to list"
        one = examples[0]
        assert (one.key, one.subject, one.labels["class"]) == ("a", "ann", 2)
        assert np.array_equal(one.labels["betas"], np.ones(10))
        assert calls == [1]
        with pytest.raises(SourceError, match="No such file"):
            examples[1]
        with pytest.raises(IndexError):
            examples[2]

    def test_a_square_may_wait_for_the_picture(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png(5, 3))
        entry = Entry(
            key="a", picture=tmp_path / "a.png", square_xyxy_px=lambda width, height: np.array([0, 0, width, height])
        )
        assert Listed(ABOUT, [entry])[0].square_xyxy_px.tolist() == [0, 0, 5, 3]

    def test_a_second_picture(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png(5, 3, 1))
        (tmp_path / "b.png").write_bytes(png(5, 3, 2))
        entry = Entry(
            key="a",
            picture=tmp_path / "a.png",
            square_xyxy_px=SQUARE,
            second=tmp_path / "b.png",
            second_square_xyxy_px=SQUARE + 1,
        )
        one = Listed(ABOUT, [entry])[0]
        assert (one.second_HW3 == 2).all()
        assert one.second_square_xyxy_px[0] == 1

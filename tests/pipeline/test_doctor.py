"""The doctor against folders whose content is known."""

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from manifests import table as tables
from manifests.doors import door
from manifests.errors import SourceError
from manifests.types import Domain, FrameKey, PairKind, Reason, Reject, Split
from pipeline import doctor, sources
from pipeline.__main__ import main
from pipeline.doctor import possible_pairs, print_doctor
from pipeline.recipes import RECIPES, BuildRecipe, SourceRecipe
from pipeline.sources.base import STAGE, Card, Marker, Recording, Scan, Source
from tests.support.forbidden import forbid
from tests.support.honest import body, draw, ring, write_jpeg
from tests.support.threedpw_fixture import write_threedpw
from tests.support.videos import write_images, write_video

CARD = Card(
    title="Toys 2020", domains=(Domain.BODY,), tree="toys/*.toy", get="toys.example", licence="toy terms",
    terms="Not for play.", gives="cross-view and cross-pose",
)  # fmt: skip


class ToySource(Source):
    """A folder `toys` of recordings `*.toy`, each two views of three instants; `bad.toy` does not parse."""

    card = CARD

    def look(self, root):
        toys = root / "toys"
        return [
            Marker(what="toys/", found=toys.is_dir(), hint="unpack toys.zip"),
            Marker(what="toys/names.txt", found=(toys / "names.txt").is_file(), needed=False, hint="names of the toys"),
        ]

    def prepare(self, root):
        self.work.joinpath("index").touch()
        yield 1, 1

    def recordings(self, root):
        return [
            Recording(sequence=p.stem, group=p.stem, split=Split.TEST if p.stem == "last" else None, files=())
            for p in sorted((root / "toys").glob("*.toy"))
        ]

    def scan(self, root, recording, *, split):
        assert self.work.joinpath("index").exists()
        if recording.sequence == "bad":
            raise SourceError("the toy does not parse", where="toys/bad.toy", hint="mend it")
        instant, view = np.repeat([0, 1, 2], 2), ["a", "b"] * 3
        table = self.table(recording, split, instant=instant, view=view, media=["x"] * 6, width=9, height=9, track="t")
        return Scan(table, [Reject(STAGE, f"toys/{recording.sequence}", Reason.MISSING, "no view c")])


@pytest.fixture
def toys(tmp_path, monkeypatch):
    recipe = BuildRecipe(name="toys", sources=(SourceRecipe(kind="toys", name="toys"),))
    monkeypatch.setattr(doctor, "NAMES", ("toys",))
    monkeypatch.setitem(sources.SOURCES, "toys", ToySource)
    monkeypatch.setitem(RECIPES, "toys", lambda: recipe)
    folder = tmp_path / "data" / "toys"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"toy{number}.toy").touch()
    (folder / "last.toy").touch()
    return tmp_path / "data"


def said(folder, **options):
    console = Console(record=True, width=100, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        healthy = print_doctor(folder, console, **options)
    return healthy, re.sub(r"\s+", " ", captured.get())


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_there_missing_and_possible(toys, deep):
    healthy, text = said(toys.parent if deep else toys)
    assert healthy
    assert "Toys 2020 in" in text
    assert "✓ toys/" in text
    assert "○ not there: toys/names.txt; names of the toys" in text
    assert "recordings: 4 free, 1 test; the recipe takes 4" in text
    assert "would be ingested: 24 frames, 4 tracks of people" in text
    assert "left out: 4 missing, such as toys/toy0: no view c" in text
    assert "cross_view: 12 pairs possible, 12 would be drawn" in text
    assert "cross_pose: 24 pairs possible, 24 would be drawn" in text
    assert "terms: toy terms. Not for play." in text
    assert f"make build audit RECIPE=toys ROOT={toys} OUT=out/toys" in text


def test_some_recordings_are_looked_into_unless_all_are_asked_for(toys, monkeypatch):
    monkeypatch.setattr(doctor, "LOOKED_INTO", 2)
    assert "12 frames, 2 tracks of people (in 2 of them, spread evenly; --all for every one)" in said(toys)[1]
    assert "24 frames, 4 tracks of people cross_view" in said(toys, everything=True)[1].replace(
        "left out: 4 missing, such as toys/toy0: no view c ", ""
    )


def test_what_does_not_parse_is_said_with_what_to_do(toys):
    (toys / "toys" / "bad.toy").touch()
    healthy, text = said(toys)
    assert not healthy
    assert "the toy does not parse where: toys/bad.toy try: mend it" in text


def test_your_own_clips_are_known_where_no_dataset_is(tmp_path):
    lens = ring(1, size=(64, 48))[0]
    for instant in range(3):
        write_jpeg(tmp_path / "clip" / f"{instant}.jpg", draw(lens, [body(0, instant)], instant=instant, view=0).rgb)
    healthy, text = said(tmp_path)
    assert healthy
    assert "your own clips" in text
    assert "would be ingested: 3 frames, people are yet to be found" in text


def test_folders_that_may_not_be_read_are_passed_over(tmp_path, monkeypatch, caplog):
    (tmp_path / "lost+found").mkdir()
    write_threedpw(tmp_path / "3DPW")
    forbid(tmp_path / "lost+found", monkeypatch)
    assert [name for name, *_ in doctor.find_datasets(tmp_path)] == ["3dpw"]
    assert caplog.text.count("lost+found may not be read: passed over") == 1
    forbid(tmp_path, monkeypatch)
    with pytest.raises(SourceError, match="you may not read this folder"):
        list(doctor.find_datasets(tmp_path))


def test_folders_of_pictures_are_clips_unless_they_speak_for_a_rig(tmp_path):
    data = tmp_path / "data"
    write_images(data / "walking", range(2))
    write_images(data / "sitting", range(3))
    healthy, text = said(data)
    assert healthy
    assert "your own clips" in text
    assert "your own rig" not in text
    assert "if these folders are synchronous cameras of one recording: RECIPE=cameras" in text
    assert "next: make build audit RECIPE=videos" in text
    (data / "timestamps.csv").write_text("instant,camera,frame\n")
    assert [name for name, *_ in doctor.find_datasets(data)] == ["videos", "cameras"]
    (data / "timestamps.csv").unlink()
    write_images(data / "walking", range(3))
    text = said(data)[1]
    assert text.index("your own clips") < text.index("your own rig")
    assert "if these folders" not in text
    assert "cross_view: 3 pairs possible" in text
    assert "next: make build audit RECIPE=cameras" in text


def test_videos_of_one_length_speak_for_a_rig(tmp_path):
    for name, number in (("a", 4), ("b", 4), ("c", 3)):
        write_video(tmp_path / f"{name}.mp4", range(number))
    assert [name for name, *_ in doctor.find_datasets(tmp_path)] == ["videos"]
    (tmp_path / "c.mp4").unlink()
    assert [name for name, *_ in doctor.find_datasets(tmp_path)] == ["videos", "cameras"]
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert [name for name, *_ in doctor.find_datasets(tmp_path)] == ["videos"]


def test_3dpw_is_known_by_its_images_alone(tmp_path):
    write_images(tmp_path / "3DPW" / "imageFiles" / "courtyard_arguing_00", range(2))
    healthy, text = said(tmp_path)
    assert not healthy
    assert "3DPW in" in text
    assert "✗ missing: sequenceFiles/{train,validation,test}/*.pkl; only imageFiles/ is here" in text
    assert "next:" not in text


def test_archives_that_were_not_unpacked_are_named(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("imageFiles.zip", "below/hands.tar.partaa", "below/hands.tar.partab", "below/notes.txt", ".x.zip"):
        (tmp_path / name).touch()
    told = "archives lie here that are not unpacked: below/hands.tar.partaa, below/hands.tar.partab, imageFiles.zip; "
    told += "for parts: cat below/hands.tar.part* > below/hands.tar"
    assert told in said(tmp_path)[1]
    write_images(tmp_path / "3DPW" / "imageFiles" / "courtyard_arguing_00", range(2))
    assert told in said(tmp_path)[1]
    for number in range(4):
        (tmp_path / f"{number}.tgz").touch()
    assert "below/hands.tar.partab and 1 more; for parts" in said(tmp_path)[1]


def test_archives_of_what_was_unpacked_are_not_named(toys):
    (toys / "toys.zip").touch()
    assert "archives lie" not in said(toys)[1]


def test_a_single_picture_makes_no_pair(tmp_path):
    write_images(tmp_path / "clip", range(1))
    text = said(tmp_path)[1]
    assert "would be ingested: 1 frame, people" in text
    assert "nothing can be paired" in text
    assert "next:" not in text


def test_a_root_that_make_would_split_is_given_to_python(tmp_path):
    write_images(tmp_path / "my clips" / "one", range(2))
    root = tmp_path / "my clips"
    assert (
        f"next: {door('pipeline', 'build', '--recipe', 'videos', '--root', root, '--out', 'out/videos')}"
        in said(root)[1]
    )


def test_a_folder_of_nothing(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 2
    assert "no dataset is known by its markers" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert "the folder is not there" in capsys.readouterr().err


def test_the_table_of_sources_names_each_with_its_terms(capsys):
    assert main(["sources"]) == 0
    text = capsys.readouterr().out
    for kind in sources.SOURCES:
        assert kind in text


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.sampled_from(["p", "q"]), st.integers(0, 2)),
        unique_by=lambda r: r[:3],
    )
)
def test_possible_pairs_equal_brute_force(rows):
    flags = [[], ["unsynchronised"], ["evaluation"]]
    frames = tables.frames_from_columns(
        {
            "source": "s", "licence": "l", "split": "train", "group": "g", "sequence": "q", "domain": "body",
            "instant": np.array([r[0] for r in rows], np.int64), "view": [r[1] for r in rows], "track": [r[2] for r in rows],
            "media": "m", "media_index": 0, "width": 9, "height": 9, "silhouette_from": "none",
            "flags": [flags[r[3]] for r in rows],
        },
        len(rows),
    )  # fmt: skip
    found = dict.fromkeys(PairKind, 0)
    for a, b in combinations(frames.to_pylist(), 2):
        if "evaluation" in a["flags"] + b["flags"]:
            continue
        one, other = FrameKey.parse(a["key"]), FrameKey.parse(b["key"])
        if one.track == other.track and one.instant == other.instant and not a["flags"] + b["flags"]:
            found[PairKind.CROSS_VIEW] += 1
        if one.track == other.track and one.view == other.view:
            found[PairKind.CROSS_POSE] += 1
    assert possible_pairs(frames) == found

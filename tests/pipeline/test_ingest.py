"""Ingest of datasets that know their splits, and prepare what is dear to read."""

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manifests import table as tables
from manifests.commit import commits
from manifests.errors import RecipeError, SourceError, StageError
from manifests.types import Domain, FrameKey, Reason, Split
from pipeline import sources
from pipeline.executors import LocalExecutor
from pipeline.recipes import DATASETS, FLAGS, RECIPES, BuildRecipe, SourceRecipe, SplitRecipe
from pipeline.sources import SOURCES, build_source
from pipeline.sources.base import Card, Marker, Recording, Scan, Source
from pipeline.stage import run_stage
from pipeline.stages import Ingest
from tests.support.toy_stage import SilentWatcher

CARD = Card(
    title="Toys", domains=(Domain.HAND, Domain.BODY), tree="any", get="made here", licence="toy terms", terms="none",
    gives="nothing",
)  # fmt: skip


class ToySource(Source):
    """Two recordings of the same name in two splits, one of an evaluation set, one without a split."""

    card = CARD

    def look(self, root):
        return [Marker(what="any", found=True)]

    def prepare(self, root):
        assert self.work is not None
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "index").write_text("read once")
        yield 1, 1

    def recordings(self, root):
        named = [("a", Split.TRAIN), ("a", Split.TEST), ("b", None), ("c", Split.VAL)]
        return [Recording(sequence=n, group=f"{n}-{s}", split=s, files=()) for n, s in named]

    def scan(self, root, recording, *, split):
        assert (self.work / "index").read_text() == "read once"
        flags = [["gray"], [], ["gray", "resampled"], []]
        media = [f"{i}.jpg" for i in range(4)]
        table = self.table(
            recording, split, instant=np.array([4, 0, 2, 6]), view="v", media=media, width=9, height=9, flags=flags
        )
        return Scan(table, [])


@pytest.fixture
def ingest(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "toy", ToySource)

    def run(out="out", val_share=0.0, **options):
        source = SourceRecipe(kind="toy", name="toys", **options)
        recipe = BuildRecipe(name="toys", sources=(source,), split=SplitRecipe(val_share=val_share))
        run_stage(Ingest(recipe, {"toys": tmp_path}, tmp_path / out), tmp_path / out, LocalExecutor(), SilentWatcher())
        folder = tmp_path / out / "frames"
        frames = {c.unit: tables.read("frames", folder / c.file("frames").name) for c in commits(folder)}
        return frames, commits(folder)

    return run


def test_every_dataset_has_a_source_and_a_recipe():
    assert set(DATASETS) | {"cameras", "videos"} == set(SOURCES)
    for kind in DATASETS:
        (source,) = RECIPES[kind]().sources
        assert (source.kind, source.name) == (kind, kind)


def test_splits_are_taken_as_the_recipe_says(ingest, caplog):
    with caplog.at_level(logging.INFO):
        frames, _ = ingest()
    assert list(frames) == ["toys-b", "toys-train-a", "toys-val-c"]
    assert "1 of 4 recordings are of other splits than train, val" in caplog.text
    keys = [FrameKey.parse(key) for key in frames["toys-train-a"].column("key").to_pylist()]
    assert [(key.split, key.instant, key.track) for key in keys] == [("train", i, "all") for i in (0, 2, 4, 6)]
    frames, _ = ingest("both", splits=(Split.TRAIN, Split.TEST))
    assert list(frames) == ["toys-b", "toys-test-a", "toys-train-a"]


def test_some_are_held_out_of_a_dataset_without_val(ingest, monkeypatch):
    named = [(f"r{k}", Split.TRAIN) for k in range(8)] + [("x", Split.TEST)]
    recordings = [Recording(sequence=n, group=n, split=s, files=()) for n, s in named]
    monkeypatch.setattr(ToySource, "recordings", lambda self, root: recordings)
    monkeypatch.setattr("pipeline.ingest.DATASETS", ("toy",))
    frames, _ = ingest(val_share=0.3, splits=(Split.TRAIN, Split.VAL, Split.TEST))
    split_of = {name.split("-")[-1]: set(rows["split"].to_pylist()) for name, rows in frames.items()}
    assert split_of["x"] == {"test"}
    assert {next(iter(s)) for name, s in split_of.items() if name != "x"} == {"train", "val"}
    monkeypatch.setattr("pipeline.ingest.DATASETS", ())
    frames, _ = ingest("by-hand", val_share=0.3)
    assert {s for rows in frames.values() for s in rows["split"].to_pylist()} == {"train"}, "said by hand"


def test_nothing_of_the_split_is_an_error(ingest, monkeypatch):
    whole = ToySource.recordings
    monkeypatch.setattr(ToySource, "recordings", lambda self, root: [r for r in whole(self, root) if r.split])
    with pytest.raises(SourceError, match="none of 3 recordings is of split") as error:
        ingest(splits=())
    assert "other `splits`" in error.value.hint


def test_flags_that_the_recipe_leaves_out_are_counted(ingest):
    frames, done = ingest(without=("gray", "resampled"))
    assert frames["toys-b"].column("instant").to_pylist() == [0, 6]
    assert [c.rejects for c in done] == [{Reason.FLAGGED.value: 2}] * 3


def test_every_nth_instant(ingest):
    frames, _ = ingest(frame_step=3)
    assert frames["toys-b"].column("instant").to_pylist() == [0, 6]
    assert frames["toys-b"].column("media").to_pylist() == ["1.jpg", "3.jpg"]


def test_terms_and_domain_are_the_card_s_unless_the_recipe_says_otherwise(ingest):
    frames, _ = ingest()
    rows = frames["toys-b"]
    assert Counter(zip(rows["licence"].to_pylist(), rows["domain"].to_pylist(), strict=True)) == {
        ("toy terms", "hand"): 4
    }
    frames, _ = ingest("own", licence="bought", domain="body")
    rows = frames["toys-b"]
    assert Counter(zip(rows["licence"].to_pylist(), rows["domain"].to_pylist(), strict=True)) == {("bought", "body"): 4}


def test_a_domain_that_the_dataset_does_not_show(monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "toy", ToySource)
    monkeypatch.setattr(ToySource, "card", replace(CARD, domains=(Domain.HAND,)))
    with pytest.raises(RecipeError, match="Toys shows hand, not body"):
        build_source(SourceRecipe(kind="toy", name="toys", domain="body"))


def test_pictures_that_come_or_go_later_are_noticed(ingest, monkeypatch, tmp_path):
    folder = tmp_path / "a" / "deep"
    folder.mkdir(parents=True)
    (folder / "0.jpg").touch()
    named = [Recording(sequence=n, group=n, split=None, files=(), folder=f) for n, f in (("a", "a"), ("sb1", "SB1"))]
    monkeypatch.setattr(ToySource, "recordings", lambda self, root: named)
    ingest()
    ingest()
    (folder / "1.jpg").touch()
    with pytest.raises(StageError, match="other inputs: toys-a has changed\n"):
        ingest()
    (folder / "1.jpg").unlink()
    ingest()
    (tmp_path / "SB10").mkdir()
    (tmp_path / "SB10" / "0.jpg").touch()
    with pytest.raises(StageError, match="toys-sb1 has changed"):
        ingest()


def test_flags_that_no_frame_carries_are_refused():
    with pytest.raises(ValueError, match="no frame carries a flag `grey`; did you mean `gray`"):
        SourceRecipe(kind="toy", without=("grey",))


def test_every_flag_that_a_source_sets_is_known():
    """What is written as a flag in the sources is one of `FLAGS`."""
    told = set()
    for path in Path(sources.__file__).parent.glob("*.py"):
        told |= set(re.findall(r"(?:flags\.append|own \+=|flags \+=)\W+\"([a-z_]+)\"", path.read_text()))
    assert told
    assert told <= set(FLAGS)

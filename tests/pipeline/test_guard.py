"""A parser that dies: the picture is found and left out, and a kill from outside changes nothing."""

import multiprocessing

import numpy as np
import pytest

from manifests import table as tables
from manifests.types import Reason
from pipeline.crop import crop_recording
from pipeline.guard import GuardedParser, ParserCrashError, guarded
from pipeline.recipes import CropRecipe
from tests.support.deadly import DeadlyParser
from tests.support.figures import MAGENTA, ColourParser, Figure, OneColourParser, draw, rows_of_stills, write_stills

WALK = [Figure(100 + 4 * i, 120, colour=MAGENTA if i == 4 else (220, 30, 30)) for i in range(12)]


def crops_of(folder, parser):
    frames = tables.from_rows("frames", rows_of_stills(folder / "cam"))
    return crop_recording(frames, folder, recipe=CropRecipe(min_track=2), parser=parser, parser_threshold=0.4)


def attempt(folder, note):
    """One try of the unit in a process of its own, as an executor makes it."""
    crops_of(folder, guarded(DeadlyParser(), DeadlyParser, note))


def run_apart(*arguments):
    process = multiprocessing.get_context("spawn").Process(target=attempt, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_the_picture_that_kills_is_left_out_and_the_rest_is_kept(tmp_path):
    write_stills(tmp_path / "cam", [draw([figure]) for figure in WALK])
    note = tmp_path / "notes" / "unit"
    assert run_apart(tmp_path, note) == -6, "the first try dies of SIGABRT"
    crops, rejects = crops_of(tmp_path, guarded(DeadlyParser(), DeadlyParser, note))
    crashed = [(r.key.split("/")[3], r.detail) for r in rejects if r.reason is Reason.PARSER_CRASH]
    assert crashed == [("00000004", "the parser died on this picture (SIGABRT)")]
    assert set(crops.column("instant").to_pylist()) == set(range(12)) - {4}
    segments = dict(zip(crops.column("instant").to_pylist(), crops.column("segment").to_pylist(), strict=True))
    assert (segments[3], segments[5]) == (0, 1), "nobody is followed across it"


@pytest.mark.parametrize("kind", [ColourParser, OneColourParser])
def test_suspects_that_do_no_harm_give_the_same_crops(tmp_path, kind):
    """A worker that was killed from outside leaves a note too: the calls are made apart, and nothing changes."""
    write_stills(tmp_path / "cam", [draw([figure]) for figure in WALK])
    plain, left_out = crops_of(tmp_path, kind())
    note = tmp_path / "note"
    note.write_text("3\n7\n")
    guard = guarded(kind(), kind, note)
    crops, rejects = crops_of(tmp_path, guard)
    assert crops.equals(plain)
    assert rejects == left_out
    guard.close()
    assert not note.exists()


def test_the_note_names_the_call_under_way_and_those_of_earlier_tries(tmp_path):
    note = tmp_path / "note"
    image = np.zeros((8, 8, 3), np.uint8)
    first = GuardedParser(ColourParser(), ColourParser, note)
    for _ in range(3):
        first.parse([image])
    assert note.read_text() == "3\n"
    again = GuardedParser(ColourParser(), ColourParser, note)
    for _ in range(5):
        again.parse([image])
    assert note.read_text() == "3\n5\n"


def test_a_call_apart_that_dies_is_told(tmp_path):
    (tmp_path / "note").write_text("1\n")
    guard = guarded(DeadlyParser(), DeadlyParser, tmp_path / "note")
    with pytest.raises(ParserCrashError, match="SIGABRT"):
        guard.parse([np.full((8, 8, 3), MAGENTA, np.uint8)])


def test_of_a_batch_of_boxes_only_the_deadly_one_is_left_out(tmp_path):
    write_stills(tmp_path / "cam", [draw([figure]) for figure in WALK])
    boxes = [figure.box().tolist() for figure in WALK]
    rows = rows_of_stills(tmp_path / "cam", track="kid", box_from="dataset")
    rows = [row | {"box_xyxy_px": box} for row, box in zip(rows, boxes, strict=True)]
    frames = tables.from_rows("frames", rows)

    def attempt_boxed(note):
        parser = guarded(DeadlyParser(), DeadlyParser, note)
        return crop_recording(frames, tmp_path, recipe=CropRecipe(), parser=parser, parser_threshold=0.4)

    note = tmp_path / "note"
    note.write_text("1\n")  # the first try died on the first call: the batch of all twelve
    note.write_text(note.read_text() + "6\n")  # and the second when they were parsed one by one, on the fifth
    crops, rejects = attempt_boxed(note)
    assert [(r.key.split("/")[3], r.reason) for r in rejects] == [("00000004", Reason.PARSER_CRASH)]
    assert set(crops.column("instant").to_pylist()) == set(range(12)) - {4}
    assert set(crops.column("silhouette_from").to_pylist()) == {"parser"}

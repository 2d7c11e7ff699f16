"""The page that shows how to add a source is true: its code is run, from the file to the shards."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from manifests import table as tables
from manifests.commit import commits
from manifests.errors import SourceError
from manifests.types import Reason, Split
from pipeline import sources
from pipeline.recipes import SourceRecipe
from pipeline.sources import build_source

PAGE = Path(__file__).parents[3] / "docs" / "add-a-source.md"


def frames_of(out):
    folder = out / "frames"
    return pa.concat_tables([tables.read("frames", folder / c.file("frames").name) for c in commits(folder)])


@pytest.fixture
def page(monkeypatch):
    """The page's code as one module, and its source registered."""
    blocks = re.findall(r"``` python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    module = ModuleType("turning")
    monkeypatch.setitem(sys.modules, "turning", module)
    module.frames_of = frames_of
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sources.SOURCES, "turning", module.TurningSource)
    return module


def test_the_page_s_own_test_passes(page, tmp_path):
    page.test_from_raw_files_to_audited_shards(tmp_path)
    assert [*(tmp_path / "out/shards").glob("*.tar")], "it went the whole road"


def test_what_the_page_promises_of_faults(page, tmp_path):
    page.write_turning(tmp_path)
    source = build_source(SourceRecipe(kind="turning", name="turning"))
    _, bo = source.recordings(tmp_path)
    (reject,) = source.scan(tmp_path, bo, split=Split.TRAIN).rejects
    assert (reject.key, reject.reason, reject.count) == ("bo/*_cam1.jpg", Reason.MISSING, 1)
    (tmp_path / "cameras.json").write_text("{")
    with pytest.raises(SourceError, match=r"cameras\.json does not parse"):
        source.scan(tmp_path, bo, split=Split.TRAIN)
    (tmp_path / "cameras.json").unlink()
    with pytest.raises(SourceError, match=r"cameras\.json is not here"):
        source.recordings(tmp_path)

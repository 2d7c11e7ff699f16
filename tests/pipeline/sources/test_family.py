"""What all sources of datasets owe their callers, whichever they are."""

import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import pipeline.sources
from manifests.errors import RecipeError, SourceError
from manifests.types import Reason, Reject, Split
from pipeline.recipes import DATASETS, RECIPES, SourceRecipe
from pipeline.sources import SOURCES, build_source, trees
from pipeline.sources.base import Card, Source
from tests.support.aist_fixture import write_aist
from tests.support.dexycb_fixture import write_dexycb
from tests.support.forbidden import forbid
from tests.support.freihand_fixture import write_freihand
from tests.support.hanco_fixture import write_hanco
from tests.support.ho3d_fixture import write_ho3d
from tests.support.humbi_fixture import write_humbi
from tests.support.interhand_fixture import write_interhand
from tests.support.jrdb_fixture import write_jrdb
from tests.support.mars_fixture import write_mars
from tests.support.pennaction_fixture import write_pennaction
from tests.support.posetrack_fixture import write_posetrack
from tests.support.rejects import told
from tests.support.threedpw_fixture import write_threedpw

WRITERS: dict[str, Callable[[Path], Any]] = {
    "humbi": write_humbi,
    "aist": write_aist,
    "interhand": write_interhand,
    "3dpw": write_threedpw,
    "posetrack": write_posetrack,
    "pennaction": write_pennaction,
    "jrdb": write_jrdb,
    "mars": write_mars,
    "dexycb": write_dexycb,
    "ho3d": write_ho3d,
    "hanco": write_hanco,
    "freihand": write_freihand,
}
NAMES = (*DATASETS, "humbi_hand")  # recipes of one dataset
PAGES = Path(__file__).parents[3] / "docs" / "datasets"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The fixture of every dataset, by the recipe that reads it; not to be changed by a test."""
    found = {}
    for kind in DATASETS:
        found[kind] = tmp_path_factory.mktemp("family") / kind
        WRITERS[kind](found[kind])
    return found | {"humbi_hand": found["humbi"]}


def source_of(name: str, work: Path | None = None, **options: Any) -> Source:
    recipe = RECIPES[name]().sources[0]
    return build_source(SourceRecipe(kind=recipe.kind, name=name, domain=recipe.domain, **options), work)


def outcome(name: str, root: Path, work: Path) -> list[Any]:
    """All that a source says of a root: frames and rejects of each recording, and what is wrong where it says so."""
    source, said = source_of(name, work, splits=tuple(Split)), list[Any]()
    try:
        list(source.prepare(root))
        recordings = source.recordings(root)
    except SourceError as error:
        return [error.what]
    for one in recordings:
        said.append(one)
        try:
            scan = source.scan(root, one, split=one.split or Split.TRAIN)
        except SourceError as error:
            said.append(error.what)
            continue
        rows = scan.frames if isinstance(scan.frames, list) else scan.frames.to_pylist()
        labels = [source.labels(root, row) for row in rows]
        said += [rows, scan.rejects, [one and (one.reject, str(one.box_xyxy_px)) for one in labels]]
    return said


@pytest.mark.parametrize("how", ["whole", "cut short", "without every other file"])
@pytest.mark.parametrize("name", NAMES)
def test_where_a_root_lies_changes_nothing(roots: dict[str, Path], name: str, how: str, tmp_path: Path) -> None:
    said = []
    for place in ("here", "far/away"):
        root = Path(shutil.copytree(roots[name], tmp_path / place / name))
        for number, path in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
            if how == "cut short":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            elif how != "whole" and number % 2:
                path.unlink()
        said.append(outcome(name, root, tmp_path / place / "work"))
        assert str(tmp_path) not in str(said[-1])
        told(one for part in said[-1] if isinstance(part, list) for one in part if isinstance(one, Reject))
    assert str(said[0]) == str(said[1])  # NaN is not equal to itself
    if how == "whole" and name != "freihand":
        assert any(isinstance(part, list) and part and isinstance(part[0], dict) for part in said[0])


@pytest.mark.parametrize("kind", sorted(set(SOURCES) - set(DATASETS)))
def test_nor_does_where_own_videos_lie(kind: str, tmp_path: Path) -> None:
    said = []
    for place in ("here", "far/away"):
        folder = tmp_path / place / "kitchen"
        folder.mkdir(parents=True)
        for camera in ("left.mp4", "right.mp4"):
            (folder / camera).write_bytes(b"no video")
        source = build_source(SourceRecipe(kind=kind, name=kind))
        found = [source.scan(folder.parent, one, split=Split.TRAIN) for one in source.recordings(folder.parent)]
        said.append([reject for scan in found for reject in scan.rejects])
        assert str(tmp_path) not in str(said)
    assert {reject.reason for reject in said[0]} == {Reason.UNREADABLE}
    assert said[0] == said[1]


@pytest.mark.parametrize("name", NAMES)
def test_each_dataset_is_known_by_its_own_source_alone(roots: dict[str, Path], name: str) -> None:
    knows = {one for one in NAMES if source_of(one).look(roots[name])[0].found}
    assert knows == ({"humbi", "humbi_hand"} if name.startswith("humbi") else {name})  # one root, two kinds of sessions
    assert all(marker.found for marker in source_of(name).look(roots[name]) if marker.needed)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"freihand"}))
def test_recordings_are_sorted_and_the_same_again(roots: dict[str, Path], name: str, tmp_path: Path) -> None:
    source = source_of(name, tmp_path)
    list(source.prepare(roots[name]))
    found = source.recordings(roots[name])
    assert found == sorted(found, key=lambda one: one.sequence)
    assert len({(one.split, one.sequence) for one in found}) == len(found) > 0
    assert all(one.files == tuple(sorted(one.files)) for one in found)
    assert source_of(name, tmp_path).recordings(roots[name]) == found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("made", ["folder", "file", "nothing"])
def test_any_other_root_is_refused_with_a_hint(name: str, made: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    if made == "folder":
        root.mkdir()
    elif made == "file":
        root.write_text("no dataset")
    source = source_of(name, tmp_path / "work")
    with pytest.raises(SourceError) as error:
        source.recordings(root)
    assert error.value.what
    assert len(error.value.hint) > 10
    assert str(root) in error.value.where
    assert not source.look(root)[0].found


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"freihand"}))
def test_folders_that_may_not_be_read_are_passed_over(
    roots: dict[str, Path],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).symlink_to(roots[name])
    for shut in ("lost+found", "images", "rgb", "annotations", "train"):
        (data / shut).mkdir()
        forbid(data / shut, monkeypatch)
    source = source_of(name, tmp_path / "work")
    assert all(marker.found for marker in source.look(data) if marker.needed)
    list(source.prepare(data))
    assert source.recordings(data)
    assert f"{data / 'lost+found'} may not be read: passed over" in caplog.text
    forbid(data, monkeypatch)
    with pytest.raises(SourceError, match="you may not read this folder"):
        source.recordings(data)


@pytest.mark.parametrize(
    ("count", "what", "said"),
    [
        (2, "images are not there", "2 images are not there"),
        (1, "images are not there", "1 image is not there"),
        (1, "images that info/ lists are not there", "1 image that info/ lists is not there"),
        (1, "frames of the labels have no image", "1 frame of the labels has no image"),
        (1, "images: of cameras that are gone", "1 image: of cameras that are gone"),
        (1, "of 3 frames have no image", "1 of 3 frames have no image"),
    ],
)
def test_one_of_a_kind_is_singular(count: int, what: str, said: str) -> None:
    assert trees.numbered(count, what) == said


@pytest.mark.parametrize("name", NAMES)
def test_protocols_that_a_dataset_has_not_are_refused(name: str) -> None:
    source = source_of(name)
    for protocol in source.protocols:
        assert source_of(name, protocol=protocol).recipe.protocol == protocol
    wrong = f"{source.protocols[0]}x" if source.protocols else "official"
    said = (
        rf"no split protocol `{wrong}`\n.*\n.*`{source.protocols[0]}`" if source.protocols else "no split protocols\n"
    )
    with pytest.raises(RecipeError, match=said):
        source_of(name, protocol=wrong)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_card_says_all_there_is_to_know(kind: str) -> None:
    card = SOURCES[kind].card
    for field in fields(Card):
        assert getattr(card, field.name), field.name
        assert (
            field.name == "domains"
            or getattr(card, field.name) == getattr(card, field.name).strip(". \n")
            or field.name == "terms"
        )
    assert card.terms.endswith(".")


@pytest.mark.parametrize("kind", DATASETS)
def test_each_dataset_has_a_page(kind: str) -> None:
    page = (PAGES / f"{kind}.md").read_text()
    card = SOURCES[kind].card
    assert card.licence.casefold() in " ".join(page.split()).casefold()
    assert "make doctor ROOT=" in page
    recipes = re.findall(r"make build.*? RECIPE=(\w+)", page)
    assert kind in {source.kind for name in recipes for source in RECIPES[name]().sources}, recipes
    module = Path(str(pipeline.sources.__file__)).with_name(f"{SOURCES[kind].__module__.rpartition('.')[2]}.py")
    used = set(re.findall(r"Reason\.([A-Z_]+)", module.read_text()))
    assert {Reason[name].value for name in used if f"`{Reason[name].value}`" not in page} == set()
    steps = {source.frame_step for name in recipes for source in RECIPES[name]().sources if source.kind == kind}
    assert steps == {1} or f"`frame_step` is {max(steps)}" in page


def test_a_fixture_for_each_dataset() -> None:
    assert set(WRITERS) == set(DATASETS)
    assert {path.stem for path in PAGES.glob("*.md")} == set(DATASETS)

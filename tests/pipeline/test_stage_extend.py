"""Builds that grow: what is there stays byte for byte, what is new is added, and nothing in between passes for whole."""

import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.commit import UnitWriter, read_commit
from manifests.errors import SourceError, StageError
from manifests.lineage import behind
from manifests.recipes import read_recipe
from manifests.sample import read_tar
from pipeline.__main__ import with_images
from pipeline.executors import LocalExecutor
from pipeline.recipes import (
    RECIPES,
    BuildRecipe,
    CropRecipe,
    PairRecipe,
    ShardRecipe,
    SourceRecipe,
    SplitRecipe,
)
from pipeline.stage import FAILED, _settle_plan, check_recipes, finished, read_failures, read_plan, require, run_stage
from pipeline.stages import Render, stages
from synthetic.scene import SceneRecipe
from tests.support.figures import Figure, draw, write_stills
from tests.support.folders import contents
from tests.support.kills import RECIPE as KILLED
from tests.support.samples import asset
from tests.support.toy_stage import SilentWatcher, Toy

RECIPE = replace(KILLED, shard=ShardRecipe(rows=8))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips."""
    for name in ("a", "b"):
        add_clip(tmp_path / "clips", name)
    return tmp_path / "clips"


def add_clip(root: Path, name: str) -> None:
    start = 80 + 10 * ord(name[0])  # no two alike
    write_stills(root / name, [draw([Figure(start % 200 + 60 + 5 * i, 120)]) for i in range(9)])


def build(root: Path, out: Path, *verbs: str, recipe: BuildRecipe = RECIPE, **how: bool) -> None:
    there = stages(recipe, roots={source.name: root for source in recipe.sources}, assets=root, out=out)
    for verb in verbs or ("ingest", "crop", "pairs", "shards"):
        run_stage(there[verb](), out, LocalExecutor(), SilentWatcher(), **how)


def keys(out: Path) -> list[str]:
    return sorted(sample.key for path in (out / "shards").glob("*.tar") for sample in read_tar(path))


def test_an_extended_build_has_the_tables_of_a_new_one_and_the_shards_it_had(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "grown")
    before = contents(tmp_path / "grown")
    for name in ("c", "d"):  # twice
        add_clip(clips, name)
        build(clips, tmp_path / "grown", extend=True)
    build(clips, tmp_path / "new")
    for stage in ("frames", "crops", "pairs"):
        assert contents(tmp_path / "grown" / stage) == contents(tmp_path / "new" / stage)
    after = contents(tmp_path / "grown")
    shards = {name for name in before if name.startswith("shards/train")}
    assert {name: after[name] for name in shards} == {name: before[name] for name in shards}
    assert len(shards) < len({name for name in after if name.startswith("shards/train")})
    pairs = Build(tmp_path / "grown").table("pairs", columns=["key"]).column("key").to_pylist()
    assert keys(tmp_path / "grown") == sorted(pairs) == keys(tmp_path / "new")
    assert Build(tmp_path / "grown").table("shards").num_rows == len(list((tmp_path / "grown/shards").glob("*.tar")))
    build(clips, tmp_path / "grown")  # goes on without the flag: nothing is left to do
    assert contents(tmp_path / "grown") == after


def test_an_extension_that_was_stopped_goes_on_to_the_same_bytes(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    add_clip(clips, "c")
    build(clips, tmp_path / "out", extend=True)
    whole = contents(tmp_path / "out")
    for stage in ("frames", "crops", "pairs", "shards"):
        last = max(
            path for path in (tmp_path / "out" / stage).glob("*.json") if path.name not in ("plan.json", "stats.json")
        )
        last.unlink()
        build(clips, tmp_path / "out")
        assert contents(tmp_path / "out") == whole


def test_what_is_new_is_refused_without_the_flag(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    before = contents(tmp_path / "out")
    add_clip(clips, "c")
    with pytest.raises(
        StageError, match=r"(?s)other inputs: videos-c is new.*`make` command with EXTEND=1 keeps what is here"
    ):
        build(clips, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_stage_that_was_not_extended_is_behind_and_so_are_those_after_it(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    add_clip(clips, "c")
    build(clips, tmp_path / "out", "ingest", extend=True)
    plan = read_plan(tmp_path / "out/crops")
    assert list(behind(plan, Build(tmp_path / "out").commits)) == [("frames", "not used yet", ["videos-c"])]
    with pytest.raises(StageError, match=r"(?s)`crops` is behind `frames`: videos-c not used yet.*`make crop`"):
        build(clips, tmp_path / "out", "pairs", extend=True)
    with pytest.raises(StageError, match="`crops` is behind `frames`"):
        build(clips, tmp_path / "out", "shards", extend=True)
    build(clips, tmp_path / "out", "crop", "pairs", extend=True)
    assert list(behind(read_plan(tmp_path / "out/shards"), Build(tmp_path / "out").commits)) == [
        ("pairs", "not used yet", ["videos-c"])
    ]


def test_the_audit_sees_a_build_that_was_extended_half_way(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out)
    assert errors(out) == []
    add_clip(clips, "c")
    for verb, late in (("ingest", "crops/"), ("crop", "pairs/"), ("pairs", "shards/")):
        build(clips, out, verb, extend=True)
        found = [finding for finding in audit(out, threads=2).findings if finding.rule == "behind"]
        assert [(finding.where, finding.examples) for finding in found] == [(late, ("videos-c",))]
        assert found[0].severity is Severity.ERROR
    build(clips, out, "shards", extend=True)
    assert errors(out) == []


def test_the_audit_sees_a_unit_of_another_decision(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out)
    path = out / "frames/plan.json"
    path.write_text(path.read_text().replace('"frame_step": 1', '"frame_step": 2', 1))
    assert errors(out) == [("fingerprint", "frames/videos-a.json")]


def test_a_plan_that_tells_nonsense_is_a_finding(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out)
    plan = read_plan(out / "crops")
    for key, nonsense in (
        ("own", 7),
        ("own", {"videos-a": []}),
        ("own", {"videos-a": {"inputs": 3}}),
        ("packed", [[1]]),
    ):
        (out / "crops/plan.json").write_text(json.dumps(plan | {key: nonsense}))
        assert ("plan", "crops/plan.json") in errors(out)


def errors(out: Path) -> list[tuple[str, str]]:
    """Rule and place of the errors that an audit finds."""
    return [(f.rule, f.where) for f in audit(out, threads=2).findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (replace(RECIPE, sources=(replace(RECIPE.sources[0], frame_step=2),)), r"recipe\.source\.frame_step: 1 -> 2 \(videos-a"),
        (replace(RECIPE, crop=CropRecipe(min_track=2, margin=1.5)), r"recipe\.crop\.margin: 1\.25 -> 1\.5"),
        (replace(RECIPE, pair=PairRecipe(cross_pose=21, cross_view=0)), r"recipe\.pair\.cross_pose: 20 -> 21"),
        (replace(RECIPE, sources=(replace(RECIPE.sources[0], weight=2.0),)), r"recipe\.source\.weight: 1\.0 -> 2\.0"),
        (replace(RECIPE, shard=ShardRecipe(rows=9)), r"recipe\.shard\.rows: 8 -> 9"),
        (replace(RECIPE, split=SplitRecipe(val_groups=("b",))), r'recipe\.split: "train" -> "val" \(videos-b\)'),
    ],
)  # fmt: skip
def test_nothing_that_is_there_may_be_decided_otherwise(
    clips: Path, tmp_path: Path, recipe: BuildRecipe, told: str
) -> None:
    build(clips, tmp_path / "out")
    before = contents(tmp_path / "out")
    for extend in (False, True):
        with pytest.raises(StageError, match=told):
            build(clips, tmp_path / "out", recipe=recipe, extend=extend)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (replace(RECIPE, crop=CropRecipe(min_track=2, margin=1.5)), r"recipe\.crop\.margin: 1\.25 -> 1\.5"),
        (replace(RECIPE, pair=PairRecipe(cross_pose=21, cross_view=0)), r"recipe\.pair\.cross_pose: 20 -> 21"),
        (replace(RECIPE, sources=(replace(RECIPE.sources[0], weight=2.0),)), r"recipe\.weights\.videos: 1\.0 -> 2\.0"),
        (replace(RECIPE, shard=ShardRecipe(rows=9)), r"recipe\.shard\.rows: 8 -> 9"),
    ],
)  # fmt: skip
def test_a_recipe_that_a_late_stage_refuses_is_refused_before_any_work(
    clips: Path, tmp_path: Path, recipe: BuildRecipe, told: str
) -> None:
    out = tmp_path / "out"
    build(clips, out)
    more = SourceRecipe(kind="videos", name="others")
    for other, refused in ((RECIPE, False), (replace(RECIPE, sources=(*RECIPE.sources, more)), False), (recipe, True)):
        there = stages(other, roots={"videos": clips}, assets=clips, out=out)
        with pytest.raises(StageError, match=told) if refused else nullcontext():
            check_recipes([make() for make in there.values()], out)


def test_nothing_that_is_there_may_go(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    (clips / "b").rename(tmp_path / "b")
    with pytest.raises(StageError, match=r"(?s)videos-b is gone.*only adds"):
        build(clips, tmp_path / "out", extend=True)


def test_another_source_may_come(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    before = contents(tmp_path / "out/pairs")
    more = replace(RECIPE, sources=(*RECIPE.sources, SourceRecipe(kind="videos", name="others", weight=3.0)))
    build(clips, tmp_path / "out", recipe=more, extend=True)
    after = contents(tmp_path / "out/pairs")
    assert before.items() - after.items() == {("plan.json", before["plan.json"])}
    weights = Build(tmp_path / "out").table("shards", columns=["source", "weight"]).to_pylist()
    assert read_plan(tmp_path / "out/pairs")["recipe"]["weights"] == {"videos": 1.0, "others": 3.0}
    assert {(row["source"], row["weight"]) for row in weights} == {("videos", 1.0), ("others", 3.0)}


def test_more_people_to_render_leave_the_first_as_they_are() -> None:
    assets = asset("body.npz").parent
    plans = {}
    for people in (2, 3):
        render = SceneRecipe(num_identities=people, scenes_per_identity=1)
        plans[people] = Render(BuildRecipe(name="r", render=render), assets).plan()
    assert plans[2].units == plans[3].units[:2]
    assert (plans[2].recipe, plans[2].inputs) == (plans[3].recipe, plans[3].inputs)


def test_people_rendered_without_their_number_are_refused_with_it(tmp_path: Path) -> None:
    assets, out = asset("body.npz").parent, tmp_path / "renders"
    few, many = (Render(with_images(read_recipe("synthetic", RECIPES), images), assets) for images in (100, 200))
    for stage, other in ((few, many), (many, few)):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        stamp, _ = _settle_plan(stage, stage.plan(), out, extend=False)
        for unit in stage.plan().units[:-1]:
            with UnitWriter(out, stage="renders", unit=unit.id, fingerprint=stamp):
                pass
        with pytest.raises(StageError, match=r"with the same RECIPE, N=\d+, ROOT and OUT") as incomplete:
            require(tmp_path, "renders")
        number = int(re.findall(r"N=(\d+)", incomplete.value.hint)[0])
        assert with_images(few.recipe, number) == stage.recipe
        with pytest.raises(StageError, match=f"N={number} asks for as many images as are here"):
            _settle_plan(other, other.plan(), out, extend=False)
        _settle_plan(stage, stage.plan(), out, extend=False)


# --- what to know ---


def test_a_build_that_holds_nobody_out_is_told_from_the_first_stage_on(clips: Path, tmp_path: Path) -> None:
    held_out = replace(RECIPE, split=SplitRecipe(val_groups=("b",)))
    rendered = replace(RECIPE, render=SceneRecipe(num_identities=9), split=SplitRecipe(val_share=0.2))
    nobody = "nobody is held out: training will have no pair to validate on"
    for recipe, told in ((RECIPE, nobody), (held_out, ""), (rendered, "")):
        out = tmp_path / str(recipe.render is None) / (told and "told")
        there = stages(recipe, roots={"videos": clips}, assets=clips, out=out)
        for verb in ("ingest", "crop", "pairs", "shards") if recipe.render is None else ("ingest",):
            for _ in range(2):  # as well when there is nothing left to do
                summary = run_stage(there[verb](), out, LocalExecutor(), SilentWatcher())
                due = [told] if told and verb in ("ingest", "shards") else []
                assert [note.partition(";")[0] for note in summary.notes] == due
    everybody = replace(RECIPE, split=SplitRecipe(val_groups=("a", "b")))
    there = stages(everybody, roots={"videos": clips}, assets=clips, out=tmp_path / "all")
    summary = run_stage(there["ingest"](), tmp_path / "all", LocalExecutor(), SilentWatcher())
    assert [note.partition(":")[0] for note in summary.notes] == ["nobody is left to learn from"]


# --- what was mended ---


def damage_clip(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    for number in range(9):
        (root / name / f"{number:06d}.png").write_bytes(b"no picture")


def mend_clip(root: Path, name: str) -> None:
    shutil.rmtree(root / name)
    add_clip(root, name)


def test_a_clip_that_could_not_be_read_is_taken_in_once_it_is_mended(clips: Path, tmp_path: Path) -> None:
    """Its frames are committed, but there are none: the rest of the build was made without it."""
    out = tmp_path / "out"
    damage_clip(clips, "c")
    build(clips, out)
    before = contents(out)
    assert read_plan(out / "crops")["units"] == ["videos-a", "videos-b"]
    mend_clip(clips, "c")
    with pytest.raises(StageError, match=r"(?s)videos-c has changed.*EXTEND=1 keeps what is here"):
        build(clips, out)
    assert contents(out) == before
    build(clips, out, extend=True)
    assert_same_as_new(clips, out, tmp_path / "new")
    assert before.keys() - contents(out).keys() == {"frames/videos-c.rejects.parquet"}
    kept = {name for name in before if name.startswith("shards/train") or "videos-a" in name or "videos-b" in name}
    assert {name: contents(out)[name] for name in kept} == {name: before[name] for name in kept}


def test_a_clip_without_a_pair_is_taken_in_once_another_takes_its_place(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_stills(clips / "c", [draw([Figure(120, 120)])])  # one picture
    few = replace(RECIPE, crop=CropRecipe(min_track=1))
    build(clips, out, recipe=few)
    assert read_commit(out / "pairs/videos-c.json").counts["pairs"] == 0
    mend_clip(clips, "c")
    with pytest.raises(StageError, match=r"videos-c has changed"):
        build(clips, out, recipe=few)
    build(clips, out, recipe=few, extend=True)
    assert_same_as_new(clips, out, tmp_path / "new", recipe=few)


@pytest.mark.parametrize("how", [{}, {"extend": True}, {"retry_failed": True}])
def test_a_recording_on_which_a_later_stage_failed_is_taken_in_once_it_is_mended(
    clips: Path, tmp_path: Path, how: dict[str, bool]
) -> None:
    out = tmp_path / "out"
    write_stills(clips / "c", [draw([]) for _ in range(30)])  # nobody is there: the crop stage refuses so much waste
    with pytest.raises(StageError, match="29 of 30 frames of videos-c were left out"):
        build(clips, out)
    before = contents(out)
    mend_clip(clips, "c")
    build(clips, out, **how)
    assert_same_as_new(clips, out, tmp_path / "new")
    kept = {name for name in before if "videos-a" in name or "videos-b" in name}
    assert {name: contents(out)[name] for name in kept} == {name: before[name] for name in kept}


def test_a_recording_on_which_a_later_stage_failed_may_be_removed(clips: Path, tmp_path: Path) -> None:
    """As the error says."""
    out = tmp_path / "out"
    write_stills(clips / "c", [draw([]) for _ in range(30)])
    with pytest.raises(StageError, match=r"(?s)left out.*remove the recording"):
        build(clips, out)
    shutil.rmtree(clips / "c")
    build(clips, out)
    assert_same_as_new(clips, out, tmp_path / "new")
    assert not [name for name in contents(out) if "videos-c" in name]


def test_a_unit_that_was_never_committed_takes_another_input(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (clips / "recordings.toml").write_text("[b]\nfps = 0\n")
    with pytest.raises(SourceError, match="fps"):
        build(clips, out)
    (clips / "recordings.toml").unlink()
    build(clips, out)
    assert_same_as_new(clips, out, tmp_path / "new")


def test_what_pairs_were_made_of_may_not_be_mended(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out)
    before = contents(out)
    shutil.rmtree(clips / "b")
    write_stills(clips / "b", [draw([Figure(60 + 7 * i, 120)]) for i in range(12)])
    for extend in (False, True):
        with pytest.raises(StageError, match=r"(?s)videos-b has changed(?!.*adds the rest)"):
            build(clips, out, extend=extend)
    assert contents(out) == before


def assert_same_as_new(clips: Path, out: Path, new: Path, recipe: BuildRecipe = RECIPE) -> None:
    """All tables are those of a build that never knew it otherwise, and every pair is packed once."""
    build(clips, new, recipe=recipe)
    for stage in ("frames", "crops", "pairs"):
        assert contents(out / stage) == contents(new / stage)
    assert keys(out) == keys(new) != []
    assert errors(out) == []


# --- what failed ---


def run(out: Path, toy: Toy, *, retry_failed: bool = False) -> list[str]:
    watcher = SilentWatcher()
    run_stage(toy, out, LocalExecutor(), watcher, retry_failed=retry_failed)
    return [outcome.unit for outcome in watcher.outcomes]


def test_failures_are_listed_with_their_reasons_until_they_are_mended(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"toys/failed\.jsonl lists all that failed"):
        run(tmp_path, Toy(broken=(2, 5)))
    due = {"error": "SourceError", "what": "this toy is broken", "hint": "glue it"}
    assert read_failures(tmp_path / "toys") == {u: {"unit": u, "where": u, **due} for u in ("u002", "u005")}
    with pytest.raises(StageError):
        run(tmp_path, Toy(broken=(5,)))
    assert list(read_failures(tmp_path / "toys")) == ["u005"]
    run(tmp_path, Toy())
    assert not (tmp_path / "toys" / FAILED).exists()


def test_only_what_failed_is_run_again(tmp_path: Path) -> None:
    with pytest.raises(StageError):
        run(tmp_path / "out", Toy(broken=(2, 5)))
    (tmp_path / "out/toys/u000.json").unlink()  # as if the first run had been killed before it came to this
    with (tmp_path / "out/toys" / FAILED).open("a") as file:
        file.write('{"unit": "u007", "err')  # the kill cut a line
    assert run(tmp_path / "out", Toy(), retry_failed=True) == ["u002", "u005"]
    assert not finished(tmp_path / "out", "toys")
    assert not (tmp_path / "out/toys" / FAILED).exists()
    assert run(tmp_path / "out", Toy(), retry_failed=True) == ["u000"], "nothing failed: it is a run like any other"
    run(tmp_path / "calm", Toy())
    assert contents(tmp_path / "calm") == contents(tmp_path / "out")

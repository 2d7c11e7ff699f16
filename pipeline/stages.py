"""The stations of the road as stages: ingest, render, crop, pair, shard."""

import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow.compute as pc
from typing_extensions import override

from manifests import table as tables
from manifests.build import Build
from manifests.commit import TEMPORARY, UnitWriter, commits
from manifests.errors import StageError
from manifests.lineage import hashes
from manifests.recipes import fingerprint
from manifests.types import EVALUATION, HELD_BACK, Split
from pipeline.crop import crop_recording
from pipeline.guard import guarded
from pipeline.ingest import RecordingWork, find_recordings, list_frames, states_of
from pipeline.pairs import COLUMNS, PEOPLE, allot, count_people, sample_pairs, told_strata
from pipeline.parse import DEVICE, HumanParser, build_parser, require_device
from pipeline.recipes import BuildRecipe, SourceRecipe
from pipeline.shards import BlockReader, plan_shards, shard_table, write_shard
from pipeline.sources import build_source
from pipeline.sources.base import Source
from pipeline.stage import Plan, Report, Stage, Unit, read_plan, require

if TYPE_CHECKING:
    from pipeline.render import Studio  # loads torch: for those who render

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
INDEX = "_index"  # below the frames: what sources derive from very large annotation files

ENOUGH_TO_JUDGE = 20  # frames; of fewer (a stray photo beside the clips) no share that is left out means anything


@dataclass
class Ingest(Stage):
    """List the frames of every recording: headers and small files only, no pixel is decoded."""

    name: ClassVar[str] = "frames"
    recipe: BuildRecipe
    roots: dict[str, Path]  # of each source
    out: Path

    @override
    def shapes(self) -> dict[str, Any]:
        """Of each source what its frames are, and who is held out. What a source weighs is for the pairs to tell."""
        sources = {f"sources.{source.name}": replace(source, weight=1.0) for source in self.recipe.sources}
        return {**sources, "split": self.recipe.split, "seed": self.recipe.seed} if sources else {}

    def _build(self, recipe: SourceRecipe) -> Source:
        return build_source(recipe, self.out / self.name / INDEX / recipe.name)

    @override
    def plan(self) -> Plan:
        """A unit is a recording of a split that the recipe takes."""
        found = find_recordings(self.recipe, self.roots, self._build)
        states = states_of(found, self.roots)
        units = tuple(
            Unit(w.unit, w, recipe={"source": w.source, "split": w.split}, inputs={"files": states[w.unit]})
            for w in found
        )
        return Plan(recipe=None, inputs={}, units=units)

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Scan one recording."""
        work: RecordingWork = unit.work
        frames, rejects = list_frames(self._build(work.source), self.roots[work.source.name], work)
        held_back = int(tables.has_flag(frames.column("flags"), EVALUATION).sum())
        if held_back:
            out.counts[HELD_BACK] += held_back
        out.table("frames", frames)
        out.reject(rejects)

    @override
    def notes(self, folder: Path) -> list[str]:
        """Whether anybody is held out, and left to learn from; of people that are to be rendered it is supposed."""
        there = {own["recipe"]["split"] for own in (read_plan(folder) or {"own": {}})["own"].values()}
        if self.recipe.render:
            held_out = self.recipe.split
            there |= {Split.TRAIN, *([Split.VAL] if held_out.val_share or held_out.val_groups else [])}
        return told_splits(there)


@dataclass
class Render(Stage):
    """Render synthetic people: each view is a frame and, being framed already, a crop."""

    name: ClassVar[str] = "renders"
    version: ClassVar[int] = 6
    pooled: ClassVar[bool] = True
    recipe: BuildRecipe
    assets: Path

    @override
    def decides(self) -> dict[str, Any]:
        """Of the people not how many there are: nothing of a scene depends on that."""
        if self.recipe.render is None:
            return {}
        one = replace(self.recipe.render, num_identities=1)
        return {"render": one, "split": self.recipe.split, "seed": self.recipe.seed, "crop": self.recipe.crop}

    @override
    def plan(self) -> Plan:
        """A unit is a scene."""
        recipe = self.recipe.render
        if recipe is None:
            return Plan(recipe=None, inputs={}, units=())
        from pipeline.render import Studio

        inputs = Studio(self.assets, recipe).inputs()
        units = tuple(Unit(f"{SYNTHETIC}-s{scene:06d}", scene) for scene in range(recipe.num_scenes))
        return Plan(recipe=self.decides(), inputs=inputs, units=units)

    @override
    def open(self) -> "Studio":
        """Load the body, list the clips, and open the renderer."""
        from pipeline.render import Studio

        assert self.recipe.render is not None, "the plan has no scenes without a render recipe"
        studio = Studio(self.assets, self.recipe.render)
        studio.renderer()
        return studio

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Render one scene."""
        from pipeline.render import render_scene

        made, rejects = render_scene(self.recipe, unit.work, opened, report, source=SYNTHETIC)
        for table, rows in made.items():
            out.table(table, tables.from_rows(table, rows))
        out.reject(rejects)


@dataclass
class Crop(Stage):
    """Decode every recording once, find and follow its people, and keep their crops and silhouettes."""

    name: ClassVar[str] = "crops"
    pooled: ClassVar[bool] = True
    recipe: BuildRecipe
    roots: dict[str, Path]
    assets: Path
    out: Path

    @override
    def decides(self) -> dict[str, Any]:
        """How people are found and cut out."""
        recipe = self.recipe
        return {"crop": recipe.crop, "parser": recipe.parser, "max_reject_share": recipe.max_reject_share}

    @override
    def plan(self) -> Plan:
        """A unit is a recording that has frames."""
        require(self.out, "frames")
        units = [
            Unit(unit, inputs={"frames": stamp})
            for unit, stamp in hashes("frames", commits(self.out / "frames")).items()
        ]
        parser = self.open()
        inputs = {"parser": parser.name if parser else "none"}
        return Plan(recipe=self.decides(), inputs=inputs, units=tuple(units))

    @override
    def open(self) -> HumanParser | None:
        """Load the human parser."""
        device = os.environ.get(DEVICE) or "cpu"
        if device != "cpu":
            require_device(device)
        return build_parser(self.recipe.parser, self.assets, device=device)

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Crop one recording."""
        path = self.out / "frames" / f"{unit.id}.frames.parquet"
        frames = tables.read("frames", path)
        name = frames.column("source")[0].as_py()
        root = self.roots[name]
        parser = guarded(opened, self.open, out.folder / TEMPORARY / "parser" / unit.id) if opened else None
        crops, rejects = crop_recording(
            frames,
            root,
            recipe=self.recipe.crop,
            parser=parser,
            parser_threshold=self.recipe.parser.threshold,
            labels=partial(build_source(self.recipe.source(name)).labels, root),
            progress=report,
        )
        if parser is not None:
            parser.close()
        used = len(set(crops.column("frame_key").to_pylist()))
        left_out = 1 - used / frames.num_rows
        if left_out > self.recipe.max_reject_share and frames.num_rows >= ENOUGH_TO_JUDGE:
            reasons = ", ".join(sorted({reject.reason.value for reject in rejects}))
            raise StageError(
                f"{frames.num_rows - used} of {frames.num_rows} frames of {unit.id} were left out ({reasons})",
                where=path,
                hint="mend or remove the recording; or raise max_reject_share in the recipe, and build to another OUT",
            )
        out.table("crops", crops)
        out.reject(rejects)


@dataclass
class Pairs(Stage):
    """Draw pairs from the tables alone."""

    name: ClassVar[str] = "pairs"
    version: ClassVar[int] = 2
    recipe: BuildRecipe
    out: Path

    @override
    def decides(self) -> dict[str, Any]:
        """How pairs are drawn."""
        return {"pair": self.recipe.pair, "seed": self.recipe.seed}

    @override
    def about(self) -> dict[str, dict[str, Any]]:
        """Of each source, what its pairs weigh."""
        return {"weights": source_weights(self.recipe)}

    @override
    def plan(self) -> Plan:
        """A unit is a sequence. Quotas of subjects, who may be in several, are shared out here."""
        units, weights = [], self.about()["weights"]
        for stage, needed in (("renders", self.recipe.render), ("crops", self.recipe.sources)):
            if needed:
                require(self.out, stage)
                for name, stamp in hashes(stage, commits(self.out / stage)).items():
                    # A unit is called after its source; of two that fit, both are told.
                    own = {source: weight for source, weight in weights.items() if name.startswith(f"{source}-")}
                    path = self.out / stage / f"{name}.crops.parquet"
                    units.append(Unit(name, path, recipe={"weights": own}, inputs={stage: stamp}))
        if (most := self.recipe.pair.per_subject) is not None:
            shown = [count_people(tables.read("crops", unit.work, columns=PEOPLE)) for unit in units]
            units = [
                replace(unit, recipe=unit.recipe | {"quotas": quotas})
                for unit, quotas in zip(units, allot(shown, most), strict=True)
            ]
        return Plan(recipe=self.decides(), inputs={}, units=tuple(units), about=self.about())

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Draw one sequence's pairs."""
        crops = tables.read("crops", unit.work, columns=COLUMNS)
        weight = source_weights(self.recipe)[crops.column("source")[0].as_py()] if crops.num_rows else 1.0
        quotas = unit.recipe.get("quotas", {})
        pairs, rejects = sample_pairs(crops, self.recipe.pair, seed=self.recipe.seed, weight=weight, quotas=quotas)
        out.table("pairs", pairs)
        out.reject(rejects)

    @override
    def notes(self, folder: Path) -> list[str]:
        """What the classes of pairs got."""
        return told_strata(folder, self.recipe.pair)


@dataclass
class Shards(Stage):
    """Pack the pairs into tars."""

    name: ClassVar[str] = "shards"
    version: ClassVar[int] = 2
    pooled: ClassVar[bool] = True  # a worker keeps the crops of the block of shards that it is at
    on_gpu: ClassVar[bool] = False
    recipe: BuildRecipe
    out: Path

    @override
    def decides(self) -> dict[str, Any]:
        """How pairs are packed."""
        return {"shard": self.recipe.shard, "seed": self.recipe.seed}

    @override
    def plan(self) -> Plan:
        """A unit is a shard. Pairs that came after the first shards are packed into shards of their own."""
        require(self.out, "pairs")
        parts = self._parts(hashes("pairs", commits(self.out / "pairs")))
        shards = plan_shards(self.out / "pairs", parts, rows=self.recipe.shard.rows, seed=self.recipe.seed)
        stamps = [fingerprint(part) for part in parts]
        units = (Unit(name, work, inputs={"packed": stamps[work.part]}, group=work.block) for name, work in shards)
        return Plan(recipe=self.decides(), inputs={}, units=tuple(units), packed=tuple(parts))

    def _parts(self, pairs: dict[str, str]) -> list[dict[str, str]]:
        """The pairs by unit, as they were packed before, and what is new; all in one where nothing was, or a unit changed."""
        folder = self.out / self.name
        old = (read_plan(folder) or {}).get("packed", []) if commits(folder) else []
        packed = {unit: stamp for part in old for unit, stamp in part.items()}
        if not packed or packed.items() - pairs.items():
            return [pairs]
        new = {unit: stamp for unit, stamp in pairs.items() if unit not in packed}
        return [*old, new] if new else old

    @override
    def open(self) -> BlockReader:
        """Nothing is read before the first shard asks for its block."""
        return BlockReader(self.out)

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Write one shard."""
        write_shard(out, unit.work, opened)

    @override
    def notes(self, folder: Path) -> list[str]:
        """Whether there is something to validate on, and to learn from."""
        return told_splits({commit.unit.partition("-")[0] for commit in commits(folder)})

    @override
    def finish(self, folder: Path) -> None:
        """Write the table of shards."""
        tables.write(
            "shards",
            shard_table(folder, source_weights(self.recipe), source_licences(self.recipe, self.out)),
            folder / "shards.parquet",
        )


def told_splits(there: set[str]) -> list[str]:
    """Say which side of the split is empty; training needs both."""
    told = {
        Split.TRAIN: "nobody is left to learn from: all are held out",
        Split.VAL: "nobody is held out: training will have no pair to validate on",
    }
    how = "hold out others with `split: {val_groups: [...]}`, another `val_share` or another `seed` in the recipe"
    hint = f"{how}, or build more people, to another OUT"
    return [f"{what}; {hint}" for split, what in told.items() if split not in there]


def source_weights(recipe: BuildRecipe) -> dict[str, float]:
    """The share of each source in the training mixture, relative to the others, evened out by the temperature."""
    weights = {source.name: source.weight for source in recipe.sources}
    weights |= {SYNTHETIC: recipe.render_weight} if recipe.render else {}
    return {name: weight ** (1 / recipe.pair.temperature) for name, weight in weights.items()}


def source_licences(recipe: BuildRecipe, out: Path) -> dict[str, str]:
    """The terms of each source; those of rendered people depend on who moved, so their pairs tell them."""
    licences = {source.name: build_source(source).licence for source in recipe.sources}
    if recipe.render is None:
        return licences
    told: set[str] = set()
    for commit in Build(out).commits("pairs"):
        if commit.unit.startswith(f"{SYNTHETIC}-") and (file := commit.file("pairs")):
            pairs = tables.read("pairs", out / "pairs" / file.name, columns=["source", "licence"])
            told |= set(pairs.filter(pc.equal(pairs["source"], SYNTHETIC)).column("licence").to_pylist())
    return licences | {SYNTHETIC: "; ".join(sorted(told))}


def stages(recipe: BuildRecipe, *, roots: dict[str, Path], assets: Path, out: Path) -> dict[str, Any]:
    """How to build each stage, by the verb that runs it, in the order of the road."""
    return {
        "ingest": partial(Ingest, recipe, roots, out),
        "render": partial(Render, recipe, assets),
        "crop": partial(Crop, recipe, roots, assets, out),
        "pairs": partial(Pairs, recipe, out),
        "shards": partial(Shards, recipe, out),
    }

"""The stations of the road as stages: ingest, render, crop, pair, shard."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from manifests import table as tables
from manifests.build import Build
from manifests.commit import TEMPORARY, UnitWriter, content_hash
from manifests.errors import SourceError, StageError
from manifests.files import stamp_of
from manifests.recipes import fingerprint
from manifests.splits import assign
from manifests.types import EVALUATION, Reason, Reject, Split
from pipeline.crop import crop_recording
from pipeline.guard import guarded
from pipeline.pairs import COLUMNS, sample_pairs
from pipeline.parse import DEVICE, HumanParser, build_parser, require_device
from pipeline.progress import watch
from pipeline.recipes import DATASETS, BuildRecipe, SourceRecipe
from pipeline.render import Studio, render_scene
from pipeline.shards import CropReader, plan_shards, shard_table, write_shard
from pipeline.sources import build_source
from pipeline.sources.base import STAGE, Recording, Source
from pipeline.stage import Plan, Report, Stage, Unit, require

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
INDEX = "_index"  # below the frames: what sources derive from very large annotation files

ENOUGH_TO_JUDGE = 20  # frames; of fewer (a stray photo beside the clips) no share that is left out means anything

# Clocks, calibrations and notes: a change of one number in them must not pass unseen because the size stayed.
_READ_WHOLE = {".csv", ".dat", ".json", ".toml", ".txt", ".xml", ".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class _RecordingWork:
    source: SourceRecipe
    recording: Recording
    split: Split


def _listing(root: Path, recording: Recording) -> list[list[str | int]]:
    """What tells one state of a recording from another: sizes of its media, content of its text files, names in its folder."""
    listing: list[list[str | int]] = []
    for name, size in recording.files:
        path = root / name
        whole = path.suffix.lower() in _READ_WHOLE
        listing.append([name, _stamp(path, size, path.stat().st_mtime_ns) if whole else size])
    if recording.folder:
        folder = root / recording.folder
        # A recording may be several folders of one beginning: SB10, SB11, ... for SB1.
        folders = [folder] if folder.is_dir() else sorted(folder.parent.glob(f"{folder.name}?"))
        names = sorted(name for one in folders for name in _names_below(str(one)))
        listing.append(
            [recording.folder, hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()]
        )
    return listing


def _names_below(folder: str) -> Iterator[str]:
    """Names of the files in a folder and those below it, by no more than listing them."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from (f"{entry.name}/{name}" for name in _names_below(entry.path))
                else:
                    yield entry.name
    except OSError as error:
        logger.warning("%s cannot be listed: %s", folder, error.strerror)


def _settled(recipe: SourceRecipe, recording: Recording, there: list[Recording]) -> Split | None:
    """A recording's own split; None where the recipe decides, as it does of whom to hold out of a dataset without `val`."""
    has_own = recipe.kind not in DATASETS or any(one.split is Split.VAL for one in there)
    return recording.split if has_own or recording.split is not Split.TRAIN else None


@lru_cache(maxsize=4096)  # annotations that thousands of recordings share are read once
def _stamp(path: Path, _size: int, _modified_ns: int) -> str:
    return stamp_of(path)


def _leave_out(frames: pa.Table, flags: tuple[str, ...]) -> tuple[pa.Table, list[Reject]]:
    """Take out the frames that carry one of the flags."""
    rejects: list[Reject] = []
    for flag in flags:
        bad = tables.has_flag(frames.column("flags"), flag)
        keys = frames.column("key").filter(pa.array(bad)).to_pylist()
        rejects += [Reject(STAGE, key, Reason.FLAGGED, f"the recipe leaves out `{flag}`") for key in keys]
        frames = frames.filter(pa.array(~bad))
    return frames, rejects


@dataclass
class Ingest(Stage):
    """List the frames of every recording: headers and small files only, no pixel is decoded."""

    name: ClassVar[str] = "frames"
    recipe: BuildRecipe
    roots: dict[str, Path]  # of each source
    out: Path

    def _build(self, recipe: SourceRecipe) -> Source:
        return build_source(recipe, self.out / self.name / INDEX / recipe.name)

    @override
    def plan(self) -> Plan:
        """A unit is a recording of a split that the recipe takes."""
        found: list[tuple[SourceRecipe, Recording, Split | None]] = []
        for recipe in self.recipe.sources:
            source, root = self._build(recipe), self.roots[recipe.name]
            watch(f"reading the annotations of {recipe.name}", source.prepare(root))
            there = source.recordings(root)
            taken = [one for one in there if one.split is None or one.split in recipe.splits]
            if len(taken) < len(there):
                logger.info(
                    "%s: %d of %d recordings are of other splits than %s",
                    recipe.name, len(there) - len(taken), len(there), ", ".join(recipe.splits),
                )  # fmt: skip
            if not taken:
                raise SourceError(
                    f"none of {len(there)} recordings is of split {', '.join(recipe.splits)}",
                    where=root,
                    hint="name other `splits` in the recipe, or give the folder of the other split",
                )
            found += [(recipe, one, _settled(recipe, one, there)) for one in taken]
        held_out = self.recipe.split
        free = [recording.group for _, recording, settled in found if settled is None]
        splits = assign(free, seed=self.recipe.seed, val_groups=held_out.val_groups, val_share=held_out.val_share)
        units, listing = list[Unit](), dict[str, str]()

        def look() -> Iterator[tuple[int, int]]:
            for number, (recipe, recording, settled) in enumerate(found, start=1):
                split = settled or splits[recording.group]
                # Datasets use one name again in another split of their own.
                unit = "-".join([recipe.name, *([split] if recording.split else []), recording.sequence])
                units.append(Unit(unit, _RecordingWork(recipe, recording, split)))
                listing[unit] = fingerprint(_listing(self.roots[recipe.name], recording))
                yield number, len(found)

        watch("looking for what has changed", look())
        decides = {"sources": self.recipe.sources, "split": self.recipe.split, "seed": self.recipe.seed}
        return Plan(recipe=decides, inputs=listing, units=tuple(units))

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Scan one recording."""
        work: _RecordingWork = unit.work
        root = self.roots[work.source.name]
        scan = self._build(work.source).scan(root, work.recording, split=work.split)
        frames = tables.from_rows("frames", scan.frames) if isinstance(scan.frames, list) else scan.frames
        if not frames.num_rows and not scan.rejects:
            raise SourceError("the recording holds no frame", where=root / work.recording.sequence, hint="remove it")
        frames, flagged = _leave_out(frames, work.source.without)
        out.table("frames", frames)
        held_back = int(tables.has_flag(frames.column("flags"), EVALUATION).sum())
        if held_back:
            out.counts["of an evaluation set, never paired"] += held_back
        place = f"{work.source.name}/{work.split}/{work.recording.sequence}/"
        out.reject(
            r if r.key.startswith(place) else replace(r, key=f"{work.source.name}/{r.key}") for r in scan.rejects
        )
        out.reject(flagged)


@dataclass
class Render(Stage):
    """Render synthetic people: each view is a frame and, being framed already, a crop."""

    name: ClassVar[str] = "renders"
    pooled: ClassVar[bool] = True
    recipe: BuildRecipe
    assets: Path

    @override
    def plan(self) -> Plan:
        """A unit is a scene."""
        recipe = self.recipe.render
        if recipe is None:
            return Plan(recipe=None, inputs={}, units=())
        files = Studio.of(recipe, self.assets).inputs(recipe.clips)
        inputs = {name: stamp_of(path) for name, path in files.items()}
        decides = {"render": recipe, "split": self.recipe.split, "seed": self.recipe.seed, "crop": self.recipe.crop}
        units = tuple(Unit(f"{SYNTHETIC}-s{scene:06d}", scene) for scene in range(recipe.num_scenes))
        return Plan(recipe=decides, inputs=inputs, units=units)

    @override
    def open(self) -> Studio:
        """Load the body, list the clips, and open the renderer."""
        assert self.recipe.render is not None, "the plan has no scenes without a render recipe"
        studio = Studio.of(self.recipe.render, self.assets)
        studio.renderer()
        return studio

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Render one scene."""
        frames, crops = render_scene(self.recipe, unit.work, opened, report, source=SYNTHETIC)
        out.table("frames", tables.from_rows("frames", frames))
        out.table("crops", tables.from_rows("crops", crops))


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
    def plan(self) -> Plan:
        """A unit is a recording that has frames."""
        require(self.out, "frames")
        build = Build(self.out)
        units = [c.unit for c in build.commits("frames") if (file := c.file("frames")) and file.rows]
        parser = self.open()
        inputs = {
            "frames": content_hash(build.folder("frames"), only=["frames"]),
            "parser": parser.name if parser else "none",
        }
        decides = {
            "crop": self.recipe.crop,
            "parser": self.recipe.parser,
            "max_reject_share": self.recipe.max_reject_share,
        }
        return Plan(recipe=decides, inputs=inputs, units=tuple(Unit(unit) for unit in units))

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
                hint="remove the recording, or raise max_reject_share in the recipe if this is what you expect",
            )
        out.table("crops", crops)
        out.reject(rejects)


@dataclass
class Pairs(Stage):
    """Draw pairs from the tables alone."""

    name: ClassVar[str] = "pairs"
    recipe: BuildRecipe
    out: Path

    @override
    def plan(self) -> Plan:
        """A unit is a sequence."""
        units, inputs = [], {}
        for stage, needed in (("renders", self.recipe.render), ("crops", self.recipe.sources)):
            if needed:
                require(self.out, stage)
                folder = self.out / stage
                inputs[stage] = content_hash(folder, only=["crops"])
                units += [
                    Unit(c.unit, folder / file.name)
                    for c in Build(self.out).commits(stage)
                    if (file := c.file("crops"))
                ]
        weights = source_weights(self.recipe)
        return Plan(
            recipe={"pair": self.recipe.pair, "seed": self.recipe.seed, "weights": weights},
            inputs=inputs,
            units=tuple(units),
        )

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Draw one sequence's pairs."""
        crops = tables.read("crops", unit.work, columns=COLUMNS)
        weight = source_weights(self.recipe)[crops.column("source")[0].as_py()] if crops.num_rows else 1.0
        pairs, rejects = sample_pairs(crops, self.recipe.pair, seed=self.recipe.seed, weight=weight)
        out.table("pairs", pairs)
        out.reject(rejects)


@dataclass
class Shards(Stage):
    """Pack the pairs into tars."""

    name: ClassVar[str] = "shards"
    recipe: BuildRecipe
    out: Path

    @override
    def plan(self) -> Plan:
        """A unit is a shard."""
        require(self.out, "pairs")
        folder = self.out / "pairs"
        shards = plan_shards(folder, rows=self.recipe.shard.rows, seed=self.recipe.seed)
        decides = {"shard": self.recipe.shard, "seed": self.recipe.seed}
        inputs = {"pairs": content_hash(folder, only=["pairs"])}
        return Plan(recipe=decides, inputs=inputs, units=tuple(Unit(name, work) for name, work in shards))

    @override
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Write one shard."""
        write_shard(out, unit.work, CropReader.of(self.out), self.out / "pairs")

    @override
    def finish(self, folder: Path) -> None:
        """Write the table of shards."""
        tables.write(
            "shards",
            shard_table(folder, source_weights(self.recipe), source_licences(self.recipe, self.out)),
            folder / "shards.parquet",
        )


def source_weights(recipe: BuildRecipe) -> dict[str, float]:
    """The share of each source in the training mixture, relative to the others."""
    weights = {source.name: source.weight for source in recipe.sources}
    return weights | ({SYNTHETIC: recipe.render_weight} if recipe.render else {})


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

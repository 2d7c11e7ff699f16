"""A build: the folder that holds everything a run writes, and how to read its tables whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from manifests import table as tables
from manifests.commit import Commit, commits, iter_tables

# The stage folders of a build, in the order of the road, and the tables that each holds.
STAGES: dict[str, tuple[str, ...]] = {
    "frames": ("frames",),
    "renders": ("frames", "crops", "labels", "scenes"),
    "crops": ("crops",),
    "pairs": ("pairs",),
    "shards": ("index",),
}


@dataclass(frozen=True, slots=True)
class Build:
    """The reading side of an output folder."""

    root: Path

    def folder(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.root / stage

    def commits(self, stage: str) -> list[Commit]:
        """What a stage has committed."""
        return commits(self.folder(stage))

    def table(self, name: str, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one table of all stages that hold it, committed units only, in the order of stages and units.

        Args:
            name: frames, crops, pairs, index, shards or rejects.
            columns: read only these.
        """
        wanted = list(columns) if columns is not None else None
        if name == "shards":
            return tables.read("shards", self.folder("shards") / "shards.parquet", columns=wanted)
        stages = [stage for stage, held in STAGES.items() if name in held or name == "rejects"]
        parts = [part for stage in stages for _, part in iter_tables(self.folder(stage), name, columns=wanted)]
        blank = tables.empty(name) if wanted is None else tables.empty(name).select(wanted)
        return pa.concat_tables(parts) if parts else blank

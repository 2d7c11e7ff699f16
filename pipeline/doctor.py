"""What a person wants to know before a build: which datasets are read, and what lies in a data folder.

The doctor changes nothing. It looks for every dataset under a folder and in the folders directly below, says which markers are
there and which are missing, lists the frames of some recordings as ingest would, and counts the pairs they allow.
"""

import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from manifests import table as tables
from manifests.doors import door
from manifests.errors import CrossposeError
from manifests.types import EVALUATION, EVERYBODY, PairKind, Split
from pipeline.progress import watch
from pipeline.recipes import DATASETS, RECIPES, PairRecipe, SourceRecipe
from pipeline.sources import SOURCES, build_source
from pipeline.sources.base import Marker, Recording, Source
from pipeline.sources.cameras import speaks_for_rig
from pipeline.sources.layout import may_search, require_folder
from pipeline.sources.trees import MAX_FOLDERS, list_folders, list_names

LOOKED_INTO = 100  # recordings of a dataset whose frames are listed, unless all are asked for
NAMES = (*DATASETS, "humbi_hand")  # recipes of one dataset
_OWN = ("videos", "cameras")
_ARCHIVE = re.compile(r"[^.].*\.(zip|tar|tar\.gz|tgz|tar\.part\w*)")
_SHOWN = 6  # names of archives


@dataclass
class Diagnosis:
    """What lies under a root, seen as one dataset.

    Attributes:
        name: of the recipe that would build it.
        root: that the recipe needs.
        markers: what was looked for.
        error: why nothing can be ingested, when nothing can.
        recordings: by split; without a split of their own under `free`.
        taken: recordings that the recipe takes.
        looked_into: those whose frames were listed.
        frames: listed.
        people: tracks that the dataset knows; 0: people are yet to be found.
        rejects: by reason, and the first detail of each.
        possible: pairs by kind, of the listed frames.
        drawn: pairs by kind that the recipe would draw of them.
    """

    name: str
    root: Path
    markers: list[Marker]
    error: CrossposeError | None = None
    recordings: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    looked_into: int = 0
    frames: int = 0
    people: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    possible: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)


def find_datasets(folder: Path) -> Iterator[tuple[str, Path, list[Marker]]]:
    """Find the datasets in a folder: (recipe's name, root, markers).

    The root is the folder itself, unless one folder below holds all that is there of the dataset.

    Raises:
        SourceError: the folder may not be read.
    """
    require_folder(folder)
    below = [folder / name for name in list_folders(folder) if may_search(folder / name)]
    nothing = True
    for name in NAMES:
        source = build_source(_source_recipe(name))
        here = {root: markers for root in (folder, *below) if (markers := source.look(root))[0].found}
        if not here:
            continue
        nothing = False
        most = sum(marker.found for marker in here.get(folder, []))
        whole = [root for root in below if sum(marker.found for marker in here.get(root, [])) >= max(most, 1)]
        for root in whole if len(whole) == 1 or folder not in here else [folder]:
            yield name, root, here[root]
    if nothing:  # then any clips are the user's own
        is_rig = speaks_for_rig(folder)
        sign = Marker.of(
            "a sign of a rig: calibration, timestamps.csv, or as much of each camera",
            is_rig,
            "if these folders are synchronous cameras of one recording: RECIPE=cameras",
            needed=False,
        )
        for name in _OWN:
            markers = build_source(_source_recipe(name)).look(folder)
            if markers[0].found and (is_rig or name == "videos"):
                yield name, folder, [*markers, sign]


def examine(name: str, root: Path, markers: list[Marker], *, everything: bool = False) -> Diagnosis:
    """List what a recipe would ingest.

    Args:
        name: of the recipe.
        root: of its source.
        markers: what was looked for there.
        everything: list the frames of all recordings, not of `LOOKED_INTO` spread over them.
    """
    found = Diagnosis(name, root, markers)
    recipe = _source_recipe(name)
    with tempfile.TemporaryDirectory(prefix="crosspose-doctor-") as work:
        source = build_source(recipe, Path(work))
        try:
            watch(f"reading the annotations of {name}", source.prepare(root))
            there = source.recordings(root)
            found.recordings.update(one.split or "free" for one in there)
            taken = [one for one in there if one.split is None or one.split in recipe.splits]
            found.taken = len(taken)
            step = 1 if everything else max(1, -(-len(taken) // LOOKED_INTO))
            watch(f"listing frames of {name}", _list_frames(found, source, root, taken[::step]))
        except CrossposeError as error:
            found.error = error
    return found


def print_doctor(folder: Path, console: Console, *, everything: bool = False) -> bool:
    """Say what lies in a folder; whether anything of it can be ingested."""
    found = []
    for name, root, markers in find_datasets(folder):
        found.append(examine(name, root, markers, everything=everything))
        _print_diagnosis(found[-1], console)
    if not found:
        console.print(f"[red]no dataset is known by its markers in {escape(str(folder))}[/], nor any clip or rig\n")
        console.print(
            f"`{door('pipeline', 'sources')}` says what each needs; give the folder that holds it as ROOT",
            soft_wrap=True,
        )
    in_doubt = [one for one in found if one.name in _OWN or one.error or any(m.needed > m.found for m in one.markers)]
    if archives := _archives(folder) if in_doubt or not found else []:
        more = f" and {len(archives) - _SHOWN} more" if len(archives) > _SHOWN else ""
        told = f"archives lie here that are not unpacked: {', '.join(archives[:_SHOWN])}{more}"
        if part := next((name for name in archives if ".tar.part" in name), None):
            whole = part.rpartition(".part")[0]
            told += f"; for parts: cat {whole}.part* > {whole}"
        console.print(f"[yellow]{escape(told)}[/]", soft_wrap=True)
    return any(one.frames for one in found)


def print_sources(console: Console) -> None:
    """Print the table of sources: what each needs, how to get it, its terms, what it gives."""
    if not console.is_terminal:
        console.width = 160  # a file has no width of its own
    table = Table(show_lines=True, title="Sources of pairs", expand=True)
    for heading, ratio in (
        ("recipe", None),
        ("dataset and terms", 3),
        ("under ROOT, and how to get it", 4),
        ("gives", 3),
    ):
        table.add_column(heading, ratio=ratio, overflow="fold", no_wrap=ratio is None)
    for kind, source in SOURCES.items():
        card = source.card
        shown = kind + ("\nhumbi_hand" if kind == "humbi" else "")
        table.add_row(
            f"[bold]{escape(shown)}[/]",
            f"[bold]{escape(card.title)}[/]\n{escape(card.licence)}\n[dim]{escape(card.terms)}[/]",
            f"{escape(card.tree)}\n[dim]{escape(card.get)}[/]",
            f"{', '.join(card.domains)}: {escape(card.gives)}",
        )
    console.print(table)
    console.print("make doctor ROOT=/data        says what of this lies in a folder")
    console.print("make build RECIPE=humbi ROOT=/data/HUMBI OUT=out/humbi")


def possible_pairs(frames: pa.Table) -> dict[PairKind, int]:
    """How many unordered pairs the frames of one recording allow, before anything is decoded."""
    frames = frames.filter(pa.array(~tables.has_flag(frames.column("flags"), EVALUATION)))
    in_step = frames.filter(pa.array(~tables.has_flag(frames.column("flags"), "unsynchronised")))
    return {
        PairKind.CROSS_VIEW: _pairs_in_groups(in_step, ["track", "instant"]),
        PairKind.CROSS_POSE: _pairs_in_groups(frames, ["track", "view"]),
    }


def _pairs_in_groups(frames: pa.Table, columns: list[str]) -> int:
    sizes = frames.group_by(columns).aggregate([([], "count_all")]).column("count_all")
    return int(pc.sum(pc.divide(pc.multiply(sizes, pc.subtract(sizes, 1)), 2)).as_py() or 0)


def _archives(folder: Path) -> list[str]:
    """Archives in a folder and directly below, sorted; paths below it."""
    names = list_names(folder)
    below = [name for name in list_folders(folder) if may_search(folder / name)]
    names += [f"{name}/{inner}" for name in below[:MAX_FOLDERS] for inner in list_names(folder / name)]
    return sorted(name for name in names if _ARCHIVE.fullmatch(name.rpartition("/")[2]))


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _source_recipe(name: str) -> SourceRecipe:
    return RECIPES[name]().sources[0]


def _list_frames(
    found: Diagnosis, source: Source, root: Path, recordings: list[Recording]
) -> Iterator[tuple[int, int]]:
    """Scan recordings one by one into the diagnosis."""
    tracks: set[tuple[str, str]] = set()
    most = PairRecipe()
    limits = {PairKind.CROSS_VIEW: most.cross_view, PairKind.CROSS_POSE: most.cross_pose}
    for number, recording in enumerate(recordings, start=1):
        scan = source.scan(root, recording, split=recording.split or Split.TRAIN)
        frames = tables.from_rows("frames", scan.frames) if isinstance(scan.frames, list) else scan.frames
        found.looked_into, found.frames = number, found.frames + frames.num_rows
        tracks.update((recording.sequence, t) for t in frames.column("track").unique().to_pylist() if t != EVERYBODY)
        for reject in scan.rejects:
            found.rejects[reject.reason] += reject.count
            found.details.setdefault(reject.reason, f"{reject.key}: {reject.detail}")
        for kind, count in possible_pairs(frames).items():
            found.possible[kind] += count
            found.drawn[kind] += min(count, limits[kind])
        yield number, len(recordings)
    found.people = len(tracks)


def _print_diagnosis(found: Diagnosis, console: Console) -> None:
    card = SOURCES[_source_recipe(found.name).kind].card
    console.print(f"\n[bold]{escape(card.title)}[/] in {escape(str(found.root))}", soft_wrap=True)
    for marker in found.markers:
        sign = "[green]✓[/]" if marker.found else "[red]✗ missing:[/]" if marker.needed else "[yellow]○ not there:[/]"
        console.print(
            f"  {sign} {escape(marker.what)}{'; ' + escape(marker.hint) if marker.hint else ''}", soft_wrap=True
        )
    if found.error is not None:
        console.print(f"  [red]{escape(str(found.error))}[/]", soft_wrap=True)
        return
    by_split = ", ".join(f"{count:,} {name}" for name, count in sorted(found.recordings.items()))
    console.print(f"  recordings: {by_split}; the recipe takes {found.taken:,}")
    of = (
        ""
        if found.looked_into == found.taken
        else f" (in {found.looked_into:,} of them, spread evenly; --all for every one)"
    )
    people = _count(found.people, "track of people", "tracks of people")
    who = people if found.people else "people are yet to be found"
    console.print(f"  would be ingested: {_count(found.frames, 'frame')}, {who}{of}")
    for reason, count in found.rejects.most_common():
        console.print(f"    left out: {count:,} {reason}, such as {escape(found.details[reason])}", soft_wrap=True)
    for kind in PairKind:
        console.print(
            f"  {kind}: {_count(found.possible[kind], 'pair')} possible, {found.drawn[kind]:,} would be drawn{of}"
        )
    console.print(f"  terms: {escape(card.licence)}. {escape(card.terms)}", soft_wrap=True)
    if not found.possible.total():
        console.print(f"  [red]nothing can be paired[/]{of}")
        return
    root, out = shlex.quote(str(found.root)), f"out/{found.name}"
    # What a shell would take apart, make would, too.
    step = (
        f"make build audit RECIPE={found.name} ROOT={root} OUT={out}"
        if root == str(found.root)
        else door("pipeline", "build", "--recipe", found.name, "--root", found.root, "--out", out)
    )
    console.print(f"  next: {escape(step)}", soft_wrap=True)

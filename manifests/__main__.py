"""The auditor's door: `python -m manifests audit|show|diff`."""

import argparse
import logging
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from manifests.audit.findings import plural
from manifests.audit.prove import Audit, audit
from manifests.audit.report import print_json, terminal, write_report
from manifests.build import Build
from manifests.diff import diff
from manifests.errors import CrossposeError, ManifestError
from manifests.schema import SCHEMAS
from manifests.sheet import choose_pairs, contact_sheet, write_sheet
from manifests.show import show_key, show_summary, show_table
from manifests.types import PairKind, Split


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 when all is well; 1 when the audit found errors, or `diff` differences; 2 with what, where and what to try on
        stderr when it could not be done.
    """
    arguments = _parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    console = Console(highlight=False)
    try:
        if arguments.verb == "audit":
            return _audit(arguments, console)
        if arguments.verb == "diff":
            return _diff(arguments, console)
        return _show(arguments, console)
    except CrossposeError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"{type(error).__name__}: {error}", style="red", markup=False
        )
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m manifests", description="Prove, show and compare builds.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    audit_verb = verbs.add_parser("audit", help="hold a build against every rule; writes OUT/audit/report.{json,html}")
    audit_verb.add_argument("out", type=Path, metavar="OUT", help="the build's folder")
    audit_verb.add_argument("--tables", action="store_true", help="look at tables alone: no image, no tar; far quicker")
    audit_verb.add_argument(
        "--all", action="store_true", help="decode all maps of rendered people, not a few of each scene"
    )
    audit_verb.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    show = verbs.add_parser("show", help="print what a build holds, a row by its key, or draw a contact sheet of pairs")
    show.add_argument("out", type=Path, metavar="OUT", help="the build's folder")
    show.add_argument("--table", choices=tuple(SCHEMAS), help="look in this table only; without --key, list its keys")
    show.add_argument("--key", help="print the rows of this key")
    show.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet of pairs as PNG")
    show.add_argument("--kind", choices=[kind.value for kind in PairKind], help="only pairs of this kind")
    show.add_argument("--source", help="only pairs of this source")
    show.add_argument("--split", choices=[split.value for split in Split], help="only pairs of this split")
    show.add_argument("--num", type=int, default=24, help="pairs on the sheet, or keys to list (24)")
    compare = verbs.add_parser("diff", help="tell two builds apart: recipes, units, rows, shards")
    compare.add_argument("out_a", type=Path, metavar="OUT_A")
    compare.add_argument("out_b", type=Path, metavar="OUT_B")
    arguments = parser.parse_args(argv)
    if arguments.verb == "audit" and arguments.tables and arguments.all:
        parser.error("--all decodes maps, and --tables looks at no pixels: ask for one of them")
    if arguments.verb == "show":
        if arguments.num < 1:
            parser.error("--num must be at least 1")
        if arguments.sheet is None and (arguments.kind or arguments.source or arguments.split):
            parser.error("--kind, --source and --split choose pairs for --sheet FILE")
        if arguments.sheet is not None and (arguments.key or arguments.table):
            parser.error("--sheet draws pairs; --table and --key print rows: ask for one of them")
    return arguments


def _audit(arguments: argparse.Namespace, console: Console) -> int:
    result = _with_progress(arguments.out, tables_only=arguments.tables, every_label=arguments.all)
    paths = write_report(arguments.out, result, shown_root=str(arguments.out))
    if arguments.json:
        print_json(console, result)
    else:
        console.print(terminal(result, str(arguments.out)), soft_wrap=True)
        console.print(f"report: {escape(str(paths[1]))}", soft_wrap=True)
    return 0 if result.passed else 1


def _with_progress(out: Path, *, tables_only: bool, every_label: bool) -> Audit:
    """Audit with a bar for each part on stderr; only a terminal sees it, and stdout stays clean for `--json`."""
    columns = TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {what: progress.add_task(what, total=None) for what in ("files", "rows", "images", "shards")}
        tell = lambda what, done, total: progress.update(tasks[what], completed=done, total=total)  # noqa: E731
        return audit(out, progress=tell, tables_only=tables_only, every_label=every_label)


def _show(arguments: argparse.Namespace, console: Console) -> int:
    build = Build(arguments.out)
    if not build.root.is_dir():
        raise ManifestError("there is no such folder", where=build.root, hint="give the OUT folder of a build")
    if arguments.sheet is not None:
        pairs = choose_pairs(
            build, num=arguments.num, kind=arguments.kind, source=arguments.source, split=arguments.split
        )
        write_sheet(arguments.sheet, contact_sheet(build, pairs))
        console.print(f"{pairs.num_rows} pairs: {escape(str(arguments.sheet))}", soft_wrap=True)
    elif arguments.key is not None:
        console.print(show_key(build, arguments.key, arguments.table))
    elif arguments.table is not None:
        console.print(show_table(build, arguments.table, num=arguments.num), soft_wrap=True)
    else:
        console.print(show_summary(build), soft_wrap=True)
    return 0


def _diff(arguments: argparse.Namespace, console: Console) -> int:
    found = diff(arguments.out_a, arguments.out_b)
    console.print(f"A: {escape(str(arguments.out_a))}\nB: {escape(str(arguments.out_b))}", soft_wrap=True)
    for difference in found:
        console.print(f"\n[bold]{difference.where}[/]  {escape(difference.message)}", soft_wrap=True)
        for example in difference.examples:
            console.print(f"  {escape(example)}", soft_wrap=True)
    console.print("\nno difference" if not found else f"\n{plural(len(found), 'difference')}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

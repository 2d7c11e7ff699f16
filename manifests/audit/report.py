"""Tell what an audit found: a table on the terminal, JSON for programs, one self-contained page for people."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from manifests.audit.findings import RULES, Finding, Severity, plural
from manifests.audit.page import Sheet, in_words, page, rules_told, source_rows
from manifests.audit.prove import Audit
from manifests.errors import CrossposeError, ManifestError
from manifests.files import write_bytes, write_json
from manifests.sheet import crops_of, draw_sheet, encode

logger = logging.getLogger(__name__)

SHEET_PAIRS = 12
COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def to_json(audit: Audit) -> dict[str, Any]:
    """Plain values: the same for the same build, wherever it lies and whenever it was audited."""
    return {
        "passed": audit.passed,
        "counts": {severity.value: audit.count(severity) for severity in Severity},
        "findings": [dataclasses.asdict(finding) for finding in audit.findings],
        "rules": RULES,
        "left_out": audit.left_out,
        "stats": audit.stats,
    }


def write_report(root: Path, audit: Audit, *, shown_root: str) -> tuple[Path, Path]:
    """Write `audit/report.json` and `audit/report.html` into a build.

    Args:
        root: of the build.
        audit: of it.
        shown_root: how the commands on the page name the build.

    Returns:
        the two files.

    Raises:
        ManifestError: they cannot be written.
    """
    folder = root / "audit"
    paths = folder / "report.json", folder / "report.html"
    try:
        write_json(paths[0], to_json(audit))
        write_bytes(paths[1], page_of(audit, shown_root).encode())
    except OSError as error:
        raise ManifestError(
            f"the report cannot be written: {error.strerror or error}",
            where=folder,
            hint="free space, or make it writable",
        ) from error
    return paths


def sheets_of(audit: Audit) -> list[Sheet]:
    """Contact sheets of pairs: some that chance draws, those at the ends of what is measured, and those that findings name."""
    named = [key for finding in audit.findings if finding.table == "pairs" for key in finding.examples]
    wanted = {
        "drawn by chance": audit.stats["drawn"],
        "named by findings": list(dict.fromkeys(named))[:SHEET_PAIRS],
        **audit.stats["extremes"],
    }
    sheets: list[Sheet] = []
    if not {"pairs", "crops"} <= audit.keys.keys():  # damaged or gone: findings tell
        return sheets
    for title, keys in wanted.items():
        try:
            pairs = audit.keys["pairs"].named(keys) if keys else []
            crops = audit.keys["crops"].named(
                [key for pair in pairs for key in crops_of(pair)], ["key", "jpeg", "silhouette"]
            )
            if pairs:
                jpeg = encode(draw_sheet(pairs, {crop["key"]: crop for crop in crops}), "JPEG")
                sheets.append(Sheet(title, [pair["key"] for pair in pairs], jpeg))
        except (CrossposeError, OSError, ValueError) as error:  # Arrow's errors are ValueErrors or OSErrors
            logger.info("no sheet of pairs %s: %s", title, error)
    return sheets


# --- terminal ---


def terminal(audit: Audit, shown_root: str) -> RenderableType:
    """The findings and the main numbers as rich tables."""
    parts: list[RenderableType] = [_numbers(audit.stats), escape(f"{in_words(audit.stats['terms'])}\n")]
    if audit.findings:
        parts.append(_findings(audit.findings, shown_root))
    verdict = ", ".join(plural(audit.count(severity), severity.value) for severity in Severity)
    style = "bold green" if audit.passed else "bold red"
    parts.append(f"[{style}]{'passed' if audit.passed else 'FAILED'}[/]: {verdict}; {rules_told(audit.left_out)}")
    return Group(*parts)


def _findings(findings: Sequence[Finding], shown_root: str) -> Group:
    table = Table(title="findings", title_justify="left", box=SIMPLE_HEAD, show_edge=False, expand=True)
    for name in ("", "rule", "count", "what, where"):
        table.add_column(name, ratio=1 if name == "what, where" else None, overflow="fold")
    for number, finding in enumerate(findings, start=1):
        place = " ".join({finding.table: 0, finding.where: 0}).strip()
        lines = [finding.message, f"in {place}", *(f"  {example}" for example in finding.examples[:3])]
        body = Text("\n".join(lines[1:]), style="dim")
        table.add_row(
            str(number),
            Text(finding.rule, style=COLOURS[finding.severity]),
            f"{finding.count:,}",
            Text(f"{lines[0]}\n").append(body).append(f"\ntry: {finding.hint}" if finding.hint else ""),
        )
    # Below the table, so that a command can be copied in one piece.
    commands = "\n".join(f"{n:3} $ {finding.command(shown_root)}" for n, finding in enumerate(findings, start=1))
    return Group(table, "", "to see them:", escape(commands), "")


def _numbers(stats: dict[str, Any]) -> Table:
    table = Table(title="pairs", title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for name in ("source", "domain", "split", "sequences", "groups", "frames", "crops", "cross-\nview", "cross-\npose"):
        table.add_column(name, justify="left" if name in ("source", "domain", "split") else "right", no_wrap=True)
    for row in source_rows(stats):
        table.add_row(*[escape(f"{value:,}" if isinstance(value, int) else str(value)) for value in row])
    return table


def page_of(audit: Audit, shown_root: str) -> str:
    """The report as one HTML page, see `manifests.audit.page`."""
    commands = [finding.command(shown_root) for finding in audit.findings]
    return page(to_json(audit), shown_root, sheets_of(audit), commands)


def print_json(console: Console, audit: Audit) -> None:
    """Write the report's JSON to a console, byte for byte as `report.json` has it."""
    console.file.write(json.dumps(to_json(audit), indent=1, sort_keys=True) + "\n")

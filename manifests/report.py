"""Tell what an audit found: a table on the terminal, JSON for programs, one self-contained page for people."""

import base64
import dataclasses
import html
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from manifests.audit import Audit
from manifests.build import Build
from manifests.errors import CrossposeError, ManifestError
from manifests.files import write_bytes, write_json
from manifests.findings import RULES, Finding, Severity, plural
from manifests.sheet import choose_pairs, contact_sheet, encode

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
        write_bytes(paths[1], page(audit, shown_root, sheet_of(root)).encode())
    except OSError as error:
        raise ManifestError(
            f"the report cannot be written: {error.strerror or error}",
            where=folder,
            hint="free space, or make it writable",
        ) from error
    return paths


def sheet_of(root: Path) -> bytes | None:
    """JPEG of a contact sheet; None when the build has no pair that can be shown, damage included."""
    build = Build(root)
    try:
        return encode(contact_sheet(build, choose_pairs(build, num=SHEET_PAIRS)), "JPEG")
    except (CrossposeError, OSError, ValueError) as error:  # Arrow's errors are ValueErrors or OSErrors
        logger.info("no contact sheet: %s", error)
        return None


# --- terminal ---


def terminal(audit: Audit, shown_root: str) -> RenderableType:
    """The findings and the main numbers as rich tables."""
    parts: list[RenderableType] = [_numbers(audit.stats)]
    if audit.findings:
        parts.append(_findings(audit.findings, shown_root))
    verdict = ", ".join(plural(audit.count(severity), severity.value) for severity in Severity)
    style = "bold green" if audit.passed else "bold red"
    parts.append(f"[{style}]{'passed' if audit.passed else 'FAILED'}[/]: {verdict}; {len(RULES)} rules")
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
            Text(f"{lines[0]}\n").append(body),
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


def source_rows(stats: dict[str, Any]) -> list[tuple[str | int, ...]]:
    """Source, domain, split, sequences, groups, frames, crops, cross-view and cross-pose pairs; a row per split of a source."""
    pairs = Counter[tuple[str, ...]]()
    for row in stats["pairs"]:
        pairs[row["source"], row["domain"], row["split"], row["kind"]] += row["rows"]
    return [
        (
            *(place := (row["source"], row["domain"], row["split"])), row["sequences"], row["groups"], row["frames"],
            row["crops"], pairs[(*place, "cross_view")], pairs[(*place, "cross_pose")],
        )
        for row in stats["sources"]
    ]  # fmt: skip


# --- page ---

STYLE = """
:root { --ink: #1f2328; --faint: #6a6f76; --line: #dcd8d0; --paper: #faf9f6; --bar: #4a7ba6; --good: #2a7d46;
  --error: #b3261e; --warning: #9a6700; --info: #2f6f8f; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1080px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 10px; } p { margin: 4px 0 12px; }
code { font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.faint { color: var(--faint); } .verdict { font-weight: 700; } .passed { color: var(--good); } .failed { color: var(--error); }
.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 10px; margin: 18px 0; }
.totals div { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
.totals b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; background: #fff; border: 1px solid var(--line); }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-size: 13px; color: var(--faint); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.finding { background: #fff; border: 1px solid var(--line); border-left: 5px solid var(--error); border-radius: 6px;
  padding: 10px 14px; margin: 10px 0; } .finding.warning { border-left-color: var(--warning); }
.finding.info { border-left-color: var(--info); } .finding code { display: block; }
.finding .command { margin-top: 6px; padding: 4px 8px; background: #f1efea; border-radius: 4px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 14px; }
.charts figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
figcaption { font-size: 13px; color: var(--faint); } figcaption b { color: var(--ink); }
svg { width: 100%; height: auto; display: block; } svg.small { width: 120px; border-bottom: 1px solid var(--line); } svg text { font: 10px system-ui, sans-serif; fill: var(--faint); }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 8px; }
details summary { cursor: pointer; margin-top: 8px; } .rules td:first-child { white-space: nowrap; }
"""


def page(audit: Audit, shown_root: str, sheet: bytes | None) -> str:
    """The report as one HTML page that needs nothing beside itself.

    Args:
        audit: to tell of.
        shown_root: how the commands name the build.
        sheet: JPEG of a contact sheet, or none.
    """
    stats = audit.stats
    verdict = "passed" if audit.passed else "failed"
    counts = ", ".join(plural(audit.count(severity), severity.value) for severity in Severity)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>audit {verdict}</title><style>{STYLE}</style>",
        f"<h1>Audit <span class='verdict {verdict}'>{verdict}</span></h1>",
        f"<p class=faint>{counts}; {len(RULES)} rules. Build: <code>{_text(shown_root)}</code></p>",
        _totals(stats),
        "<h2>Findings</h2>",
        *([_finding(finding, shown_root) for finding in audit.findings] or ["<p>None: every rule holds.</p>"]),
        _rules(audit.findings),
        "<h2>What there is</h2>",
        _table(
            ["source", "domain", "split", "sequences", "groups", "frames", "crops", "cross-view", "cross-pose"],
            source_rows(stats),
        ),
        "<h2>How the two images of a pair differ</h2>",
        _charts(stats["histograms"]),
        "<h2>What was left out, and why</h2>",
        _rejects(stats["rejects"]),
        "<h2>Silhouettes</h2>",
        _silhouettes(stats["silhouettes"]),
        "<h2>Pairs</h2>",
        _sheet(sheet, shown_root),
        "<h2>Stages</h2>",
        _table(
            ["stage", "units", "bytes", "fingerprint"],
            [
                (stage, row["units"], row["bytes"], " ".join(stamp[:16] for stamp in row["fingerprints"]))
                for stage, row in stats["stages"].items()
            ],
        ),
        "</html>\n",
    ]
    return "\n".join(parts)


class Markup(str):
    """Text that is HTML already, made here and of numbers alone."""


def _text(value: object) -> str:
    if isinstance(value, Markup):
        return value
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def _totals(stats: dict[str, Any]) -> str:
    kinds = Counter[str]()
    for row in stats["pairs"]:
        kinds[row["kind"]] += row["rows"]
    totals = {
        "frames": stats["rows"]["frames"],
        "crops": stats["rows"]["crops"],
        "pairs": stats["rows"]["pairs"],
        "cross-view": kinds["cross_view"],
        "cross-pose": kinds["cross_pose"],
        "shards": stats["shards"]["tars"],
        "in shards": megabytes(stats["shards"]["bytes"]),
        "left out": stats["rows"]["rejects"],
    }
    cards = "".join(f"<div><b>{_text(value)}</b>{name}</div>" for name, value in totals.items())
    return f"<div class=totals>{cards}</div>"


def megabytes(size: int) -> str:
    """Bytes for people: MB below a thousand of them, GB above; always with one digit after the point."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _finding(finding: Finding, shown_root: str) -> str:
    examples = "".join(f"<code>{_text(example)}</code>" for example in finding.examples)
    return (
        f"<div class='finding {finding.severity}'><b>{_text(finding.message)}</b> "
        f"<span class=faint>{finding.severity}, rule <i>{finding.rule}</i>, {finding.count:,} in "
        f"{_text(' '.join({finding.table: 0, finding.where: 0}).strip())}</span>{examples}"
        f"<code class=command>{_text(finding.command(shown_root))}</code></div>"
    )


def _rules(findings: Iterable[Finding]) -> str:
    counts = Counter(finding.rule for finding in findings)
    silent = "no finding" if counts["unchecked"] else "holds"  # silence is proof only if all was looked at
    rows = [(rule, plural(counts[rule], "finding") if counts[rule] else silent, what) for rule, what in RULES.items()]
    table = _table(["rule", "", "what it proves"], rows, kind="rules")
    return f"<details><summary>All {len(RULES)} rules</summary>{table}</details>"


def _table(names: Sequence[str], rows: Iterable[Sequence[object]], *, kind: str = "") -> str:
    rows = list(rows)
    if not rows:
        return "<p class=faint>Nothing.</p>"
    right = [isinstance(value, int) for value in rows[0]]
    head = "".join(f"<th{' class=n' if n else ''}>{_text(name)}</th>" for name, n in zip(names, right, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if n else ''}>{_text(v)}</td>" for v, n in zip(row, right, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table class='{kind}'><tr>{head}</tr>{body}</table>"


def _rejects(rows: list[dict[str, Any]]) -> str:
    ordered = sorted(rows, key=lambda row: (row["stage"], -row["rows"], row["reason"], row["source"]))
    told = [(row["stage"], row["reason"], row["source"], row["rows"]) for row in ordered]
    return _table(["stage", "reason", "source", "entries"], told)


def _silhouettes(rows: list[dict[str, Any]]) -> str:
    def per_cent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    told = [
        (
            row["source"],
            row["drawn_by"],
            row["crops"],
            Markup(small_bars(row["histogram"])) if row["histogram"] else "",
            "" if row["coverage"] is None else " / ".join(f"{100 * share:.0f}" for share in row["coverage"]) + " %",
            per_cent(row["full"] / row["crops"]),
            per_cent(row["agreement"]),
            per_cent(row["astray"]),
        )
        for row in rows
    ]
    names = [
        "source",
        "drawn by",
        "crops",
        "person's share, 0 to 100 %",
        "5 %, median, 95 %",
        "cover all",
        "overlap with the box",
        "astray",
    ]
    return _table(names, told) + (
        "<p class=faint>Overlap: median intersection over union of the box around the silhouette and the box that the dataset "
        "gave, where it gave one; astray: crops where it is below one half.</p>"
    )


def _sheet(sheet: bytes | None, shown_root: str) -> str:
    if sheet is None:
        return "<p class=faint>There is no pair that can be shown.</p>"
    command = f"python -m manifests show {shown_root} --sheet pairs.png --num 48"
    return (
        "<p class=faint>Target left, reference right, silhouettes outlined. More: "
        f"<code>{_text(command)}</code></p>"
        f"<img alt='pairs of target and reference' src='data:image/jpeg;base64,{base64.b64encode(sheet).decode()}'>"
    )


def _charts(histograms: dict[str, Any]) -> str:
    degrees = [f"{math.degrees(edge):.0f}" for edge in histograms["view_angle_rad"]["edges"]]
    seconds = [*(f"{edge:g}" for edge in histograms["dt_s"]["edges"][:-1]), "more"]
    shares = [f"{100 * edge:.0f}" for edge in histograms["coverage"]["edges"]]
    charts = (
        ("Angle between the views", "cross-view pairs, degrees", "view_angle_rad", degrees),
        ("Time between the images", "cross-pose pairs, seconds either way", "dt_s", seconds),
        ("Person's share of the crop", "crops, per cent inside the silhouette", "coverage", shares),
    )
    figures = [
        f"<figure><figcaption><b>{title}</b>, {unit}{_unknown(histograms[name])}</figcaption>"
        f"{bars(histograms[name]['counts'], labels)}</figure>"
        for title, unit, name, labels in charts
    ]
    return f"<div class=charts>{''.join(figures)}</div>"


def _unknown(histogram: dict[str, Any]) -> str:
    return f" ({histogram['unknown']:,} unknown)" if histogram["unknown"] else ""


def bars(counts: Sequence[int], edges: Sequence[str], *, width: int = 320, height: int = 130) -> str:
    """An inline SVG of bars between labelled edges; every other label where they are many."""
    left, bottom, top = 8, 18, 16
    step = (width - 2 * left) / len(counts)
    most = max(counts) or 1
    every = math.ceil(len(edges) / 10)
    shapes = []
    for i, count in enumerate(counts):
        tall = (height - bottom - top) * count / most
        x, y = left + i * step, height - bottom - tall
        label = f"{edges[i]} to {edges[i + 1]}: {count:,}"
        shapes.append(
            f"<rect x='{x + 0.5:.1f}' y='{y:.1f}' width='{step - 1:.1f}' height='{tall:.1f}' fill='var(--bar)'>"
            f"<title>{_text(label)}</title></rect>"
        )
        if count == max(counts) and count:
            shapes.append(f"<text x='{x + step / 2:.1f}' y='{y - 4:.1f}' text-anchor='middle'>{count:,}</text>")
    ground = height - bottom
    shapes.append(f"<line x1='{left}' x2='{width - left}' y1='{ground}' y2='{ground}' stroke='var(--line)'/>")
    shapes += [
        f"<text x='{left + i * step:.1f}' y='{height - 5}' text-anchor='middle'>{_text(edge)}</text>"
        for i, edge in enumerate(edges)
        if i % every == 0
    ]
    return f"<svg viewBox='0 0 {width} {height}' role='img'>{''.join(shapes)}</svg>"


def small_bars(counts: Sequence[int], *, width: int = 120, height: int = 22) -> str:
    """An inline SVG of bars alone, to stand in a row of a table."""
    step, most = width / len(counts), max(counts) or 1
    shapes = [
        f"<rect x='{i * step:.1f}' y='{height - height * count / most:.1f}' width='{step - 1:.1f}' "
        f"height='{height * count / most:.1f}' fill='var(--bar)'><title>{count:,}</title></rect>"
        for i, count in enumerate(counts)
        if count
    ]
    return f"<svg class=small viewBox='0 0 {width} {height}' role='img'>{''.join(shapes)}</svg>"


def print_json(console: Console, audit: Audit) -> None:
    """Write the report's JSON to a console, byte for byte as `report.json` has it."""
    console.file.write(json.dumps(to_json(audit), indent=1, sort_keys=True) + "\n")

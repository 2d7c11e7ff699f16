"""The report as one HTML page that needs nothing beside itself: made of the report's JSON, and of nothing else."""

import base64
import hashlib
import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.audit.findings import RULES, Severity, plural
from manifests.doors import door

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #62686f; --line: #dcd8d0; --paper: #faf9f6; --card: #fff;
  --code: #f1efea; --bar: #4a7ba6; --good: #2a7d46; --error: #b3261e; --warning: #9a6700; --info: #2f6f8f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e3dd; --faint: #a09c94; --line: #3a3d42; --paper: #17191c; --card: #1f2226;
  --code: #2a2d32; --bar: #6fa3d1; --good: #63c384; --error: #f28b82; --warning: #e0b04c; --info: #7cc0e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1180px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 10px; } h3 { font-size: 15px; margin: 22px 0 8px; }
p { margin: 4px 0 12px; } code { font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
.faint { color: var(--faint); } .verdict { font-weight: 700; } .passed { color: var(--good); } .failed { color: var(--error); }
.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 10px; margin: 18px 0; }
.totals div, figure, .wide, .finding { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.totals div { padding: 10px 12px; } .totals b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
#search { position: sticky; top: 0; z-index: 1; background: var(--paper); padding: 8px 0; }
#search input { width: 100%; padding: 8px 12px; font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; overflow-wrap: normal; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
tr:last-child td { border-bottom: 0; } th { font-size: 13px; color: var(--faint); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td:first-child { white-space: nowrap; }
td code { display: block; overflow-wrap: anywhere; min-width: 220px; }
.finding { border-left: 5px solid var(--error); padding: 10px 14px; margin: 10px 0; } .finding > code { display: block; }
.finding.warning { border-left-color: var(--warning); } .finding.info { border-left-color: var(--info); }
.mend { margin: 6px 0 0; } .command { margin-top: 6px; padding: 4px 8px; background: var(--code); border-radius: 4px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 14px; }
figure { margin: 0; padding: 10px 12px; max-width: 560px; } figcaption { font-size: 13px; color: var(--faint); } figcaption b { color: var(--ink); }
svg { width: 100%; height: auto; display: block; } svg text { font: 10px system-ui, sans-serif; fill: var(--faint); }
svg.small { width: 120px; border-bottom: 1px solid var(--line); }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 8px; }
details summary { cursor: pointer; margin: 8px 0; } [hidden] { display: none !important; }
@media (max-width: 600px) { body { padding: 16px 12px 48px; } }
"""

# Hides what does not hold every word that is looked for, and opens what is folded around what does.
SCRIPT = """
const field = document.querySelector('#search input'), told = document.querySelector('#search span');
const items = [...document.querySelectorAll('.finding, tbody tr, .sheet')];
const texts = items.map(item => item.textContent.toLowerCase());
field.addEventListener('input', () => {
  const words = field.value.toLowerCase().split(/\\s+/).filter(word => word);
  let shown = 0;
  items.forEach((item, i) => { item.hidden = !words.every(word => texts[i].includes(word)); shown += !item.hidden; });
  document.querySelectorAll('details').forEach(fold => {
    fold.open = words.length > 0 && !!fold.querySelector('tbody tr:not([hidden]), .sheet:not([hidden])'); });
  told.textContent = words.length ? shown + ' of ' + items.length : '';
});
"""
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    + "'"
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture of pairs: what they have in common, their keys in order, and a JPEG."""

    title: str
    keys: list[str]
    jpeg: bytes


class Markup(str):
    """Text that is HTML already: made here, of what was escaped."""

    __slots__ = ()


def page(report: dict[str, Any], shown_root: str, sheets: Sequence[Sheet], commands: Sequence[str]) -> str:
    """Write the page.

    Args:
        report: what `report.json` holds.
        shown_root: how the commands name the build.
        sheets: of pairs.
        commands: what shows each finding.
    """
    stats, findings = report["stats"], report["findings"]
    verdict = "passed" if report["passed"] else "failed"
    counts = ", ".join(plural(report["counts"][severity.value], severity.value) for severity in Severity)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">',
        f"<title>audit {verdict}</title><style>{STYLE}</style>",
        f"<h1>Audit <span class='verdict {verdict}'>{verdict}</span></h1>",
        f"<p class=faint>{counts}; {rules_told(report['left_out'])}. Build: <code>{text(shown_root)}</code></p>",
        _totals(stats),
        "<div id=search><input type=search placeholder='words of a key, rule, source, reason...' aria-label=search>"
        " <span class=faint></span></div>",
        "<h2>Findings</h2>",
        *(
            [_finding(finding, command) for finding, command in zip(findings, commands, strict=True)]
            or ["<p>None: every rule holds.</p>"]
        ),
        _rules(report["rules"], findings, report["left_out"]),
        "<h2>What there is</h2>",
        _table(
            ["source", "domain", "split", "sequences", "groups", "frames", "crops", "cross-view", "cross-pose"],
            source_rows(stats),
        ),
        *_terms(stats["terms"]),
        *_balance(stats["balance"]),
        *_asked(stats["asked"]["classes"]),
        "<h2>How the two images of a pair differ</h2>",
        _charts(stats["histograms"]),
        _charts_by_source(stats["histograms_by_source"]),
        "<h2>Who is seen</h2>",
        _subjects(stats),
        "<h2>What was left out, and why</h2>",
        _rejects(stats["rejects"], shown_root),
        "<h2>Silhouettes</h2>",
        _silhouettes(stats["silhouettes"]),
        "<h2>Pairs</h2>",
        _sheets(sheets, shown_root),
        "<h2>Stages</h2>",
        _table(
            ["stage", "units", "bytes", "fingerprint"],
            [
                (stage, row["units"], row["bytes"], " ".join(stamp[:16] for stamp in row["fingerprints"]))
                for stage, row in stats["stages"].items()
            ],
        ),
        f"<script>{SCRIPT}</script></html>\n",
    ]
    return "\n".join(parts)


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


def text(value: object) -> str:
    """A value as HTML: numbers with commas, all else escaped."""
    if isinstance(value, Markup):
        return value
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def megabytes(size: int) -> str:
    """Bytes for people: MB below a thousand of them, GB above; always with one digit after the point."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def per_cent(share: float | None) -> str:
    """A share for people; nothing for none."""
    return "" if share is None else f"{100 * share:.0f} %"


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
    cards = "".join(f"<div><b>{text(value)}</b>{name}</div>" for name, value in totals.items())
    return f"<div class=totals>{cards}</div>"


def _finding(finding: dict[str, Any], command: str) -> str:
    examples = "".join(f"<code>{text(example)}</code>" for example in finding["examples"])
    place = " ".join({finding["table"]: 0, finding["where"]: 0}).strip()
    mends = f"<p class=mend>{_coded(finding['hint'])}</p>" if finding["hint"] else ""
    return (
        f"<div class='finding {finding['severity']}'><b>{text(finding['message'])}</b> "
        f"<span class=faint>{finding['severity']}, rule <i>{finding['rule']}</i>, {finding['count']:,} in "
        f"{text(place)}</span>{examples}<code class=command>{text(command)}</code>{mends}</div>"
    )


def _coded(sentence: str) -> str:
    """A sentence as HTML; what stands between backticks is code."""
    return "".join(f"<code>{text(part)}</code>" if i % 2 else text(part) for i, part in enumerate(sentence.split("`")))


def rules_told(left_out: Mapping[str, str]) -> str:
    """How many rules there are, and which were not held against all they are about."""
    told = f"{len(RULES)} rules"
    return f"{told}, not or not in full looked at: {', '.join(left_out)}" if left_out else told


def _rules(rules: dict[str, str], findings: Iterable[dict[str, Any]], left_out: Mapping[str, str]) -> str:
    counts = Counter(finding["rule"] for finding in findings)
    silent = "no finding" if counts["unchecked"] else "holds"  # silence is proof only if all was looked at
    rows = []
    for rule, what in rules.items():
        told = plural(counts[rule], "finding") if counts[rule] else "" if rule in left_out else silent
        missed = f"not looked at: {left_out[rule]}" if rule in left_out else ""
        rows.append((rule, "; ".join(filter(None, (told, missed))), what))
    return f"<details><summary>All {len(rules)} rules</summary>{_table(['rule', '', 'what it proves'], rows)}</details>"


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rows = list(rows)
    if not rows:
        return "<p class=faint>Nothing.</p>"
    right = [isinstance(value, int) for value in rows[0]]
    head = "".join(f"<th{' class=n' if n else ''}>{text(name)}</th>" for name, n in zip(names, right, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if n else ''}>{text(v)}</td>" for v, n in zip(row, right, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _terms(terms: dict[str, Any]) -> list[str]:
    told = [
        (
            row["source"], row["licence"], row["pairs"], row["research"], row["commercial"], ", ".join(row["duties"]),
            "" if row["verified"] else "no",
        )
        for row in terms["sources"]
    ]  # fmt: skip
    names = ["source", "terms", "pairs", "train for research", "commercially", "they ask for", "verified"]
    return [
        "<h3>What may be trained on it</h3>",
        f"<p><b>{text(in_words(terms))}</b></p>",
        _table(names, told),
        "<p class=faint>Judged by the words of the terms alone; the strictest source decides for the build. Read the terms themselves "
        "before you rely on it.</p>",
    ]


def in_words(terms: dict[str, Any]) -> str:
    """What the terms of a build allow, in one sentence."""
    sure = f"for research: {terms['research']}; commercially: {terms['commercial']}"
    because = sorted({row["source"] for row in terms["sources"] if row["commercial"] == terms["commercial"] != "yes"})
    asked = f"; asks for {', '.join(terms['duties'])}" if terms["duties"] else ""
    return f"Training {sure}{' (' + ', '.join(because) + ')' if because else ''}{asked}"


def _balance(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    told = [
        (
            row["source"],
            f"{row['weight']:g}",
            per_cent(row["share"]),
            row["pairs"],
            per_cent(row["share_of_pairs"]),
            "" if row["repeats"] is None else f"{row['repeats']:g}",
        )
        for row in rows
    ]
    names = ["source", "weight", "of the mixture", "pairs to train on", "of all", "seen, to an average pair"]
    return ["<h3>The mixture that the recipe asks for</h3>", _table(names, told)]


def _asked(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    units = {"view_angle_deg": "degrees", "time_gap_s": "s"}
    told = [
        (
            row["source"], row["kind"], f"{row['from']:g} to {row['to']:g} {units[row['by']]}", row["pairs"],
            per_cent(row["got"]), per_cent(row["share"]),
        )
        for row in rows
    ]  # fmt: skip
    names = ["source", "kind", "class", "pairs", "of those known", "asked for"]
    return ["<h3>The classes of pairs that the recipe asks for</h3>", _table(names, told)]


def _subjects(stats: dict[str, Any]) -> str:
    told = [
        (row["source"], row["subjects"], row["pairs"], row["unknown"], row["most"] or "", row["most_pairs"])
        for row in stats["subjects"]
    ]
    names = ["source", "subjects", "pairs", "of unknown people", "most are of", "which has"]
    chart = ("Pairs of a subject", "subjects", "pairs_of_a_subject", stats["histograms"])
    return f"{_figures([chart])}<p></p>{_table(names, told)}"


def _rejects(rows: list[dict[str, Any]], shown_root: str) -> str:
    ordered = sorted(rows, key=lambda row: (row["stage"], -row["rows"], row["reason"], row["source"]))
    told = []
    for row in ordered:
        examples = "".join(f"<code>{text(': '.join(filter(None, one)))}</code>" for one in row["examples"])
        command = door("manifests", "show", shown_root, "--table", "rejects", "--key", row["examples"][0][0])
        shown = Markup(f"<details><summary>{len(row['examples'])} of them</summary>{examples}"
                       f"<code class=command>{text(command)}</code></details>")  # fmt: skip
        told.append((row["stage"], row["reason"], row["source"], row["rows"], shown))
    return _table(["stage", "reason", "source", "entries", "examples"], told)


def _silhouettes(rows: list[dict[str, Any]]) -> str:
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
        "source", "drawn by", "crops", "person's share, 0 to 100 %", "5 %, median, 95 %", "cover all", "overlap with the box",
        "astray",
    ]  # fmt: skip
    return _table(names, told) + (
        "<p class=faint>Overlap: median intersection over union of the box around the silhouette and the box that the dataset "
        "gave, where it gave one; astray: crops where it is below one half.</p>"
    )


def _sheets(sheets: Sequence[Sheet], shown_root: str) -> str:
    if not sheets:
        return "<p class=faint>There is no pair that can be shown.</p>"
    command = door("manifests", "show", shown_root, "--sheet", "pairs.png", "--num", "48")
    parts = [
        f"<p class=faint>Target, reference, then further views; silhouettes outlined. More: <code>{text(command)}</code></p>"
    ]
    for sheet in sheets:
        keys = "".join(
            f"<code>{text(door('manifests', 'show', shown_root, '--key', key))}</code>" for key in sheet.keys
        )
        picture = base64.b64encode(sheet.jpeg).decode()
        parts.append(
            f"<div class=sheet><h3>{text(sheet.title[:1].upper() + sheet.title[1:])}</h3>"
            f"<img alt='pairs of target and reference: {text(sheet.title)}' src='data:image/jpeg;base64,{picture}'>"
            f"<details><summary>{plural(len(sheet.keys), 'key')}</summary>{keys}</details></div>"
        )
    return "".join(parts)


# --- charts ---


def _edges(name: str, edges: Sequence[float]) -> list[str]:
    if name == "view_angle_rad":
        return [f"{math.degrees(edge):.0f}" for edge in edges]
    if name in ("coverage", "covisibility"):
        return [f"{100 * edge:.0f}" for edge in edges]
    return [*(f"{edge:g}" if edge < 1000 else f"{edge / 1000:g}k" for edge in edges[:-1]), "more"]


CHARTS = (
    ("Angle between the views", "cross-view pairs, degrees", "view_angle_rad"),
    ("Time between the images", "cross-pose pairs, seconds either way", "dt_s"),
    ("Person's share of the crop", "crops, per cent inside the silhouette", "coverage"),
    ("Covisibility", "pairs, per cent of the target's visible body that the reference shows", "covisibility"),
)


def _charts(histograms: dict[str, Any]) -> str:
    return _figures(
        [(title, unit, name, histograms) for title, unit, name in CHARTS if any(histograms[name]["counts"])]
    )


def _charts_by_source(by_source: dict[str, Any]) -> str:
    """The same of each source, folded; nothing where there is one source only."""
    sources = sorted({source for of in by_source.values() for source in of})
    if len(sources) < 2:
        return ""
    parts = []
    for title, unit, name in CHARTS:
        told = [(source, unit, name, {name: of}) for source, of in by_source.get(name, {}).items() if any(of["counts"])]
        if told:
            parts.append(f"<h3>{title}</h3>{_figures(told)}")
    return f"<details><summary>Of each of {len(sources)} sources</summary>{''.join(parts)}</details>"


def _figures(charts: Iterable[tuple[str, str, str, dict[str, Any]]]) -> str:
    figures = [
        f"<figure data-chart='{name}'><figcaption><b>{text(title)}</b>, {unit}{_unknown(of[name])}</figcaption>"
        f"{bars(of[name]['counts'], _edges(name, of[name]['edges']))}</figure>"
        for title, unit, name, of in charts
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
            f"<title>{text(label)}</title></rect>"
        )
        if count == max(counts) and count:
            shapes.append(f"<text x='{x + step / 2:.1f}' y='{y - 4:.1f}' text-anchor='middle'>{count:,}</text>")
    ground = height - bottom
    shapes.append(f"<line x1='{left}' x2='{width - left}' y1='{ground}' y2='{ground}' stroke='var(--line)'/>")
    shapes += [
        f"<text x='{left + i * step:.1f}' y='{height - 5}' text-anchor='middle'>{text(edge)}</text>"
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

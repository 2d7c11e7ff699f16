"""What a comparison of starts says: curves over the share of the data, tables, and a page of both."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.finetuning.evaluate import LEVEL, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3  # of curves
_COLOURS = ("tab:blue", "tab:orange", "tab:gray", "tab:green", "tab:red", "tab:purple")


def curves_of(report: Mapping[str, Any]) -> bytes:
    """Each score over the share of the data, the main one first, a line for each start, with its intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = _by_weight(report)
    columns = min(len(names), _COLUMNS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 0.5 + 3.5 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for name, axes in zip(names, every, strict=False):
        _curve(axes, report, name)
    for axes in every[len(names) :]:
        axes.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _curve(axes: "Axes", report: Mapping[str, Any], name: str) -> None:
    shares = sorted({row["share"] for row in report["rows"]})
    for number, start in enumerate(report["starts"]):
        own = {row["share"]: row["scores"][name] for row in report["rows"] if row["start"] == start}
        x = [100 * share * 1.02 ** (number - 1) for share in shares]  # beside each other
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(x, [own[share]["mean"] for share in shares], "o-", color=colour, label=start)
        for place, share in zip(x, shares, strict=True):
            if own[share]["low"] is not None:
                axes.plot([place, place], [own[share]["low"], own[share]["high"]], color=colour, linewidth=1.5)
    score = report["scores"][name]
    if score["constant"] is not None:
        axes.axhline(score["constant"], color="black", linewidth=1, linestyle="--", label="constant answer")
    axes.set_xscale("log")
    axes.set_xticks([100 * share for share in shares], [f"{100 * share:g}" for share in shares], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("share of the training examples, %")
    axes.set_ylabel(f"{name}{'' if score['unit'] == 'none' else ', ' + score['unit']}; {score['better']} is better")
    axes.grid(visible=True, alpha=0.3)


def _by_weight(report: Mapping[str, Any]) -> list[str]:
    """Names of the scores, the main one first."""
    return [report["main"], *(name for name in report["scores"] if name != report["main"])]


def rows_of(report: Mapping[str, Any], name: str) -> list[tuple[str, str, str, str]]:
    """Share, start, value and difference to the first start of a score, as text, by share."""
    unit = report["scores"][name]["unit"]

    def told(value: Mapping[str, Any]) -> str:
        text = spoken(value["mean"], unit)
        return text if value["low"] is None else f"{text} [{spoken(value['low'], unit)}, {spoken(value['high'], unit)}]"

    rows = sorted(report["rows"], key=lambda row: -row["share"])
    return [
        (
            f"{100 * row['share']:g} %",
            row["start"],
            told(own),
            "" if own["difference"] is None else told(own["difference"]),
        )
        for row in rows
        for own in [row["scores"][name]]
    ]


def page_of(report: Mapping[str, Any], pictures: Sequence[bytes]) -> str:
    """One file without scripts: a table for each score, the curves, and predictions."""
    data, first = report["dataset"], html.escape(next(iter(report["starts"])))
    tables = ""
    for name in _by_weight(report):
        score = report["scores"][name]
        unit = "" if score["unit"] == "none" else f", {score['unit']}"
        none = score["constant"]
        constant = "" if none is None else f" A constant answer: {spoken(none, score['unit'])}."
        tables += (
            f"<h2>{html.escape(name)}{html.escape(unit)}</h2><p>{score['better']} is better; {html.escape(score['convention'])}.{constant}"
            f"<table><tr><th>data<th>start<th>mean over seeds<th>above {first}"
            + "".join("<tr>" + "".join(f"<td>{html.escape(text)}" for text in row) for row in rows_of(report, name))
            + "</table>"
        )
    images = "".join(
        f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">' for picture in pictures
    )
    learned = "; ".join(", ".join(f"{name} {value}" for name, value in one.items()) for one in report["train"])
    starts = "; ".join(f"{html.escape(name)}: {html.escape(init)}" for name, init in report["starts"].items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Starts compared</title><style>'
        "body{font:15px/1.45 system-ui,sans-serif;margin:2em;color-scheme:light dark}table{border-collapse:collapse}"
        "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #8884}img{max-width:100%}</style>"
        f"<h1>{html.escape(report['task'])} from {len(report['starts'])} start{'s' * (len(report['starts']) > 1)}</h1>"
        f"<p>Recipe {html.escape(report['recipe'])}: the same head, data, order and {report['steps']} steps; seeds"
        f" {', '.join(map(str, report['seeds']))}. Learned from {html.escape(learned)}. Scored on {html.escape(data['dataset'])} {data['split']}, {data['examples']} examples of"
        f" {data['subjects']}: {html.escape(data['protocol'])}. {starts}.<p>Brackets: {100 * LEVEL:.0f} % intervals from drawing seeds and"
        f" people anew where a score is a mean over examples, else from the spread of the seeds.{images}{tables}</html>\n"
    )

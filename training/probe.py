"""Does a run use its references? Completion of held-out pairs with the true reference, and with wrong ones.

Each masked target is completed four times: with its own reference, a black picture, another person's reference, and the same person's
in another pose. A network that looks at its reference is worse with a wrong one; one that does not is the same. No label is
needed. Differences are taken pair by pair; their intervals come from drawing subjects, and runs where there are several, anew: pairs
of one person are no independent evidence.
Shape letters: `R` runs, `B` pairs of a batch, `n` pairs, `K` references, `S` subjects, `C H W` image.
"""

import base64
import html
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from manifests.errors import TrainingError
from manifests.negatives import hard_negatives
from manifests.recipes import changed_keys, to_mapping
from manifests.seeds import rng_for
from training.augment import STD_RGB, black, to_pixels
from training.checkpoints import write_atomic
from training.inputs import validation_groups
from training.losses import completed_patches, pair_losses, patchify, unpatchify
from training.objective import Inputs, Objective
from training.reconstruct import check_shards, draw_tiles, hide, load_run
from training.record import read_metrics, steps_left_out
from training.run_folder import few
from training.source import PairSource

logger = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REFERENCES = ("true", "black", "other person", "other pose")
NUM_DRAWS = 2000
LEVEL = 0.95
BATCH = 32
MIN_SUBJECTS = 8
"""Fewer tell nothing: intervals of 95 % from drawing subjects anew hold the truth 89 times in 100 with 8, 52 times with 2."""
FORMAT = 1

# Strata: what of a pair, and where its classes part. Radians and seconds; degrees in what is shown.
_EDGES: Mapping[str, tuple[float, ...]] = {
    "view angle": (0, 30, 60, 90, 135, 180.001),
    "time gap": (0, 0.25, 0.5, 1, 2, np.inf),
    "covisibility": (0, 0.25, 0.5, 0.75, 1.001),
}
_UNITS = {"view angle": "°", "time gap": " s", "covisibility": ""}


@dataclass(frozen=True, slots=True)
class Scores:
    """What the runs score on the pairs.

    Args:
        about: (n,) what each pair's sample says.
        loss_RKn: on masked patches, by reference; NaN where a pair has no such reference.
        psnr_RKn: dB, of the masked patches with the mean and deviation of the true ones.
        zero_n: loss of a network that predicts nothing.
    """

    about: list[dict[str, Any]]
    loss_RKn: Floats
    psnr_RKn: Floats
    zero_n: Floats


def probe(
    runs: Sequence[Path], source: PairSource, out: Path, *, device: torch.device, num_pairs: int = 512
) -> dict[str, Any]:
    """Probe runs that differ in their seed, and write `probe.json`, `probe.html` and `probe.png`.

    Args:
        runs: their folders.
        source: the pairs they were trained on; those of the validation split are scored.
        out: folder to write to.
        device: where the networks compute.
        num_pairs: at most so many, spread evenly over the split.

    Returns:
        What `probe.json` holds.

    Raises:
        TrainingError: a run has no checkpoint, was trained on other shards, or differs in more than its seed; the split is empty, or
            the folder cannot be written.
    """
    loaded = [load_run(run, device) for run in runs]
    for run, (objective, _) in zip(runs, loaded, strict=True):
        check_shards(run, source)
        first, other = (to_mapping(one.recipe) for one in (loaded[0][0], objective))
        changes = [change for change in changed_keys(first, other) if not change.startswith("seed:")]
        if changes:
            hint = "probe runs of one recipe together"
            raise TrainingError(f"the runs differ in more than their seed: {few(changes)}", where=run, hint=hint)
    pairs = _held_out(source, loaded[0][0], device, num_pairs)
    scores = _score([objective for objective, _ in loaded], pairs)
    report = {
        "format": FORMAT,
        "recipe": loaded[0][0].recipe.name,
        "runs": [
            {"run": str(run), "seed": o.recipe.seed, "step": step, "left_out": len(steps_left_out(read_metrics(run)))}
            for run, (o, step) in zip(runs, loaded, strict=True)
        ],
        "strata": strata(scores),
        "zero_loss": float(scores.zero_n.mean()),
    }
    report["doubts"] = doubts(report)
    picture = _picture(loaded[0][0], pairs, scores)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot write: {error}", where=out, hint="give another --out") from error
    write_atomic(out / "probe.json", (json.dumps(report, indent=2) + "\n").encode())
    write_atomic(out / "probe.png", picture)
    curves = [run / "loss.png" for run in runs if (run / "loss.png").exists()]
    write_atomic(
        out / "probe.html", _page(report, [_chart(report), picture, *(path.read_bytes() for path in curves)]).encode()
    )
    return report


def doubts(report: Mapping[str, Any]) -> list[str]:
    """Why it is not shown that the runs use their references; nothing where it is.

    It is shown if the runs complete better than predicting nothing would, and a wrong reference is worse by more than chance: a
    black one, and another person's. Chance is not known of too few people.
    """
    every, told = report["strata"][0], []
    gains = {name: every["gain"][name] for name in REFERENCES[1:3]}
    num_subjects = min(gain["subjects"] if gain else 0 for gain in gains.values())
    if num_subjects < MIN_SUBJECTS:
        told.append(f"too few people to tell: {num_subjects} of {MIN_SUBJECTS}")
    if (loss := every["loss"]["true"]["mean"]) >= report["zero_loss"]:
        told.append(f"its loss, {loss:.4f}, is not below that of predicting nothing, {report['zero_loss']:.4f}")
    told += [
        f"it is not shown to be worse with the reference `{name}`"
        for name, gain in gains.items()
        if num_subjects >= MIN_SUBJECTS and gain["low"] <= 0
    ]
    return told


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Held-out pairs, and whose reference stands for another one's: -1 where nobody's does."""

    about: list[dict[str, Any]]
    inputs: Inputs
    taken_Kn: Ints


def _held_out(source: PairSource, objective: Objective, device: torch.device, num_pairs: int) -> _Pairs:
    about: list[dict[str, Any]] = []
    parts: list[Inputs] = []
    for batch, group in validation_groups(source, objective.recipe, device, limit=num_pairs):
        about += source.about(batch, seed=None)
        parts.append(group.inputs)
    if not about:
        raise TrainingError(
            "the validation split is empty", where="shards", hint="rebuild the pairs with a validation share"
        )
    negatives = hard_negatives(
        [pair["target"]["key"] for pair in about],
        [pair["reference"]["key"] for pair in about],
        [pair.get("subject") for pair in about],
        seed=0,
    )
    own = np.arange(len(about))
    # A black reference takes the place of the pair's own, with its mask where references are masked.
    return _Pairs(about, _joined(parts), np.stack([own, own, negatives.other_person, negatives.other_pose]))


def _joined(parts: Sequence[Inputs]) -> Inputs:
    values = {name: [getattr(part, name) for part in parts] for name in Inputs.__slots__}
    joined: dict[str, Any] = {name: None if given[0] is None else torch.cat(given) for name, given in values.items()}
    return Inputs(**joined)


def _taken(inputs: Inputs, index: npt.NDArray[np.intp], reference: Ints) -> Inputs:
    """Some targets, each with the reference of some pair."""
    device = inputs.target_BCHW.device
    rows, others = (torch.from_numpy(np.asarray(places, np.int64)).to(device) for places in (index, reference))
    of_reference = {
        "reference_BCHW",
        "reference_visible_BV",
        "reference_masked_BM",
        "maps_BJGG",
        "weight_BJ",
        "further_BFCHW",
    }
    values = {name: getattr(inputs, name) for name in Inputs.__slots__}
    taken: dict[str, Any] = {
        name: None if value is None else value[others if name in of_reference else rows]
        for name, value in values.items()
    }
    return Inputs(**taken)


def _completed(objective: Objective, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and PSNR of each pair, and the completed patches."""
    target_BNP = patchify(inputs.target_BCHW, objective.recipe.architecture.patch_px)
    predicted_BNP = objective.predict(inputs)
    shown_BNP = completed_patches(predicted_BNP, target_BNP, inputs.masked_BM)
    # Colours stand last in a patch; their deviations bring errors back to the scale of pixels, 0 to 1.
    error_BNP = (shown_BNP - target_BNP) * target_BNP.new_tensor(STD_RGB).repeat(target_BNP.shape[-1] // 3)
    index_BM = inputs.masked_BM[..., None].expand(-1, -1, target_BNP.shape[-1])
    square_B = error_BNP.gather(1, index_BM).square().mean(dim=(1, 2))
    return pair_losses(predicted_BNP, target_BNP, inputs.masked_BM), -10 * torch.log10(square_B + 1e-12), shown_BNP


@torch.no_grad()
def _score(objectives: Sequence[Objective], pairs: _Pairs) -> Scores:
    loss_RKn = np.full((len(objectives), *pairs.taken_Kn.shape), np.nan)
    psnr_RKn = loss_RKn.copy()
    for r, objective in enumerate(objectives):
        for k, name in enumerate(REFERENCES):
            known = np.flatnonzero(pairs.taken_Kn[k] >= 0)
            for start in range(0, len(known), BATCH):
                index = known[start : start + BATCH]
                loss_RKn[r, k, index], psnr_RKn[r, k, index] = (
                    values.cpu().numpy() for values in _completed(objective, _with(pairs, k, index))[:2]
                )
            logger.info("run %d of %d, %s reference: %d pairs", r + 1, len(objectives), name, len(known))
    inputs = pairs.inputs
    target_BNP = patchify(inputs.target_BCHW, objectives[0].recipe.architecture.patch_px)
    zero_B = pair_losses(torch.zeros_like(target_BNP), target_BNP, inputs.masked_BM)
    return Scores(pairs.about, loss_RKn, psnr_RKn, zero_B.double().cpu().numpy())


def _with(pairs: _Pairs, k: int, index: npt.NDArray[np.intp]) -> Inputs:
    """Some targets with their references of a kind; the true one where there is none."""
    taken = pairs.taken_Kn[k, index]
    inputs = _taken(pairs.inputs, index, np.where(taken >= 0, taken, index))
    return inputs.with_references(black) if REFERENCES[k] == "black" else inputs


def strata(scores: Scores) -> list[dict[str, Any]]:
    """Means and intervals over all pairs, by kind, and by what is known of view angle, time gap and covisibility.

    Returns:
        One mapping for each stratum, all pairs first: what it is, its pairs and subjects, loss and PSNR by reference, and by
        how much the loss is higher with a wrong reference; None where no pair has one.
    """
    about = scores.about
    subject = np.unique([_subject_of(pair) for pair in about], return_inverse=True)[1]
    rows = [("all", "", np.ones(len(about), np.bool_))]
    kinds = np.array([pair["kind"] for pair in about])
    rows += [("kind", str(kind), kinds == kind) for kind in np.unique(kinds)]
    for name, edges in _EDGES.items():
        values = np.array([_value(pair, name) for pair in about])
        for low, high in pairwise(edges):
            top = "" if np.isinf(high) else f"{high:.3g}"
            rows.append(
                (
                    name,
                    f"{low:g} to {top}{_UNITS[name]}" if top else f"over {low:g}{_UNITS[name]}",
                    (values >= low) & (values < high),
                )
            )
    return [
        {
            "by": by,
            "class": what,
            "pairs": int(member.sum()),
            "subjects": len(np.unique(subject[member])),
            "loss": _by_reference(scores.loss_RKn[:, :, member], subject[member]),
            "psnr_db": _by_reference(scores.psnr_RKn[:, :, member], subject[member]),
            "gain": _by_reference(scores.loss_RKn[:, :, member] - scores.loss_RKn[:, :1, member], subject[member]),
        }
        for by, what, member in rows
        if member.any()
    ]


def _by_reference(values_RKn: Floats, subject_n: Ints) -> dict[str, Any]:
    return {name: interval(values_RKn[:, k], subject_n) for k, name in enumerate(REFERENCES)}


def interval(values_Rn: Floats, subject_n: Ints) -> dict[str, Any] | None:
    """Mean over runs and pairs, with an interval from drawing subjects and runs anew, and each run's own mean.

    Args:
        values_Rn: NaN where a pair has none.
        subject_n: whom each pair shows.

    Returns:
        mean, low, high, pairs, subjects and runs; low and high are None with fewer than two subjects; None without a value.
    """
    known = ~np.isnan(values_Rn).any(axis=0)
    if not known.any():
        return None
    values_Rn = values_Rn[:, known]
    subject_n = np.unique(subject_n[known], return_inverse=True)[1]
    num_runs, num_subjects = len(values_Rn), int(subject_n.max()) + 1
    count_S = np.bincount(subject_n)
    sum_RS = np.stack([np.bincount(subject_n, weights=row) for row in values_Rn])
    out = {"mean": float(values_Rn.mean()), "low": None, "high": None}
    if num_subjects > 1:
        rng = rng_for(0, "bootstrap", num_runs, num_subjects)
        runs = rng.multinomial(num_runs, np.full(num_runs, 1 / num_runs), NUM_DRAWS)
        subjects = rng.multinomial(num_subjects, np.full(num_subjects, 1 / num_subjects), NUM_DRAWS)
        drawn = np.einsum("dr,rs,ds->d", runs, sum_RS, subjects) / (num_runs * (subjects @ count_S))
        out["low"], out["high"] = (float(q) for q in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return {**out, "pairs": int(known.sum()), "subjects": num_subjects, "runs": values_Rn.mean(axis=1).tolist()}


def _subject_of(pair: Mapping[str, Any]) -> str:
    """Who a pair shows: the subject, or the recording where none is known."""
    return f"{pair['source']}/{pair.get('subject') or '/'.join(pair['target']['key'].split('/')[1:3])}"


def _value(pair: Mapping[str, Any], name: str) -> float:
    """What a stratum goes by, NaN where it is not known; time is of pairs that differ in it, angles of pairs that do not."""
    key = {"view angle": "view_angle_rad", "time gap": "dt_s", "covisibility": "covisibility"}[name]
    value, is_view = pair.get(key), pair["kind"] == "cross_view"
    if value is None or (name == "view angle" and not is_view) or (name == "time gap" and is_view):
        return float("nan")
    return float(np.degrees(value)) if name == "view angle" else abs(float(value))


@torch.no_grad()
def _picture(objective: Objective, pairs: _Pairs, scores: Scores, num_rows: int = 6) -> bytes:
    """Some pairs that have every reference, a row each: the hidden target, its references, and what comes of them."""
    complete = np.flatnonzero((pairs.taken_Kn >= 0).all(axis=0))
    complete = complete if len(complete) else np.arange(len(pairs.about))
    chosen = complete[np.linspace(0, len(complete) - 1, min(num_rows, len(complete))).astype(int)]
    patch_px, rows = objective.recipe.architecture.patch_px, []
    own = _with(pairs, 0, chosen)
    columns = [to_pixels(own.target_BCHW), hide(to_pixels(own.target_BCHW), own.masked_BM.cpu().numpy(), patch_px)]
    titles = ["target", "masked"]
    for k, name in enumerate(REFERENCES):
        inputs = _with(pairs, k, chosen)
        shown_BNP = _completed(objective, inputs)[2]
        columns += [to_pixels(inputs.reference_BCHW), to_pixels(unpatchify(shown_BNP, patch_px))]
        titles += [f"{name} reference", "completion"]
    for i, place in enumerate(chosen):
        losses = scores.loss_RKn[0, :, place]
        caption = "loss  " + "   ".join(f"{name} {loss:.3f}" for name, loss in zip(REFERENCES, losses, strict=True))
        rows.append(([column[i] for column in columns], [caption, pairs.about[place]["target"]["key"]]))
    return _png(
        draw_tiles(rows, titles, title=f"{objective.recipe.name}: held-out pairs; a missing reference is the true one")
    )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _chart(report: Mapping[str, Any]) -> bytes:
    """By how much the loss is higher with each wrong reference, by stratum."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in report["strata"] if row["pairs"] >= 2]
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for k, (name, colour) in enumerate(zip(REFERENCES[1:], ("tab:gray", "tab:red", "tab:blue"), strict=True)):
        drawn = [(i + 0.2 * (k - 1), row["gain"][name]) for i, row in enumerate(rows) if row["gain"][name]]
        for y, gain in drawn:
            if gain["low"] is not None:
                axes.plot([gain["low"], gain["high"]], [y, y], color=colour, linewidth=1.5)
        axes.plot(
            [gain["mean"] for _, gain in drawn], [y for y, _ in drawn], "o", color=colour, label=f"{name} reference"
        )
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['by']} {row['class']} ({row['pairs']})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("loss with it minus loss with the true reference, 95 % intervals")
    axes.legend(loc="best", fontsize="small")
    axes.grid(visible=True, axis="x", alpha=0.3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _page(report: Mapping[str, Any], pictures: Sequence[bytes]) -> str:
    """One file without scripts: tables, the chart, completions, and the runs' loss curves."""
    answer = (
        f"It is not shown that the runs use their references: {'; '.join(report['doubts'])}"
        if report["doubts"]
        else "The runs use their references"
    )
    runs = ", ".join(
        f"{run['run']} (seed {run['seed']}, step {run['step']}, {run['left_out']} left out for a spike)"
        for run in report["runs"]
    )
    tables = "".join(
        f"<h2>{title}</h2><table><tr><th>pairs by<th>class<th>pairs<th>subjects"
        + "".join(f"<th>{name} reference" for name in names)
        + "".join(
            f"<tr><td>{row['by']}<td>{html.escape(row['class'])}<td>{row['pairs']}<td>{row['subjects']}"
            + "".join(f"<td>{_spoken(row[part][name], digits)}" for name in names)
            for row in report["strata"]
        )
        + "</table>"
        for title, part, digits, names in (
            ("Loss on masked patches", "loss", 4, REFERENCES),
            ("Loss above that with the true reference", "gain", 4, REFERENCES[1:]),
            ("PSNR of masked patches, dB", "psnr_db", 2, REFERENCES),
        )
    )
    images = "".join(
        f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">' for data in pictures
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Probe</title><style>'
        "body{font:15px/1.45 system-ui,sans-serif;margin:2em;color-scheme:light dark}table{border-collapse:collapse}"
        "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #8884}small{opacity:.7}img{max-width:100%}</style>"
        f"<h1>{html.escape(answer)}</h1><p>{html.escape(report['recipe'])}: {html.escape(runs)}.<p>Held-out pairs, completed with their own and"
        f" with wrong references; predicting nothing has a loss of {report['zero_loss']:.4f}. Brackets: {100 * LEVEL:.0f} % intervals from drawing subjects and runs anew.{tables}{images}</html>\n"
    )


def _spoken(value: Mapping[str, Any] | None, digits: int) -> str:
    if value is None:
        return "none"
    text = f"{value['mean']:.{digits}f}"
    return (
        text
        if value["low"] is None
        else f"{text} <small>[{value['low']:.{digits}f}, {value['high']:.{digits}f}]</small>"
    )

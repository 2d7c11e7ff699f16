"""A picture of what a run completes: pairs of the validation split, never trained on, a row each.

Shape letters: `B` pairs, `N` patches of an image, `P` values of a patch, `C H W` image.
"""

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from manifests.errors import TrainingError
from manifests.recipes import from_mapping
from training.augment import black, to_pixels
from training.checkpoints import list_checkpoints, read_checkpoint, write_atomic
from training.inputs import validation_groups
from training.losses import completed_patches, pair_losses, patchify, unpatchify
from training.objective import Objective
from training.recipes import PretrainRecipe
from training.source import PairSource

logger = logging.getLogger(__name__)

COLUMNS = ("target", "masked target", "reference", "completion")
_TILE_PX, _GAP_PX, _TITLE_PX, _CAPTION_PX, _FONT_PX = 224, 8, 34, 44, 15
_INK, _PAPER, _HIDDEN = (20, 20, 20), (255, 255, 255), 128


@dataclass(frozen=True)
class Row:
    """One pair of the picture.

    Args:
        key: the pair's key.
        images: the four columns, each (H, W, 3) uint8.
        loss: on its masked patches.
        loss_black: the same with an all-black reference.
    """

    key: str
    images: tuple[npt.NDArray[np.uint8], ...]
    loss: float
    loss_black: float


def load_run(run: Path, device: torch.device) -> tuple[Objective, int]:
    """Read a run's last checkpoint.

    Returns:
        network, head and recipe in evaluation mode, and steps done.

    Raises:
        TrainingError: there is no checkpoint, or it is damaged.
        RecipeError: its recipe is of another version of crosspose.
    """
    found = list_checkpoints(run / "checkpoints")
    if not found:
        raise TrainingError("the run has no checkpoint", where=run, hint="train it first: `make pretrain`")
    checkpoint = read_checkpoint(found[-1])
    recipe = from_mapping(PretrainRecipe, checkpoint.recipe, where=str(found[-1]))
    objective = Objective(recipe)
    objective.model.load_state_dict(checkpoint.model)
    if objective.head is not None:
        objective.head.load_state_dict(checkpoint.head)
    return objective.to(device).eval(), checkpoint.step


@torch.no_grad()
def complete_rows(objective: Objective, source: PairSource, *, num_rows: int, device: torch.device) -> list[Row]:
    """Complete validation pairs, spread evenly over the split, with the masks of validation."""
    patch_px, rows = objective.recipe.architecture.patch_px, []
    for batch, group in validation_groups(source, objective.recipe, device, limit=num_rows):
        inputs = group.inputs
        target_BNP = patchify(inputs.target_BCHW, patch_px)
        predicted_BNP = objective.predict(inputs)
        blind_BNP = objective.predict(inputs.with_references(black))
        images = (
            to_pixels(inputs.target_BCHW),
            hide(to_pixels(inputs.target_BCHW), inputs.masked_BM.cpu().numpy(), patch_px),
            to_pixels(inputs.reference_BCHW),
            to_pixels(unpatchify(completed_patches(predicted_BNP, target_BNP, inputs.masked_BM), patch_px)),
        )
        losses = [pair_losses(p, target_BNP, inputs.masked_BM).tolist() for p in (predicted_BNP, blind_BNP)]
        rows += [
            Row(key, tuple(column[i] for column in images), losses[0][i], losses[1][i])
            for i, key in enumerate(batch.keys)
        ]
    return rows


def draw_rows(rows: list[Row], *, title: str) -> Image.Image:
    """Lay rows out under the names of their columns, each with its key and its losses."""
    told = [(list(r.images), [f"loss {r.loss:.3f}   with a black reference {r.loss_black:.3f}", r.key]) for r in rows]
    return draw_tiles(told, COLUMNS, title=title)


def draw_tiles(
    rows: Sequence[tuple[list[npt.NDArray[np.uint8]], list[str]]], columns: Sequence[str], *, title: str
) -> Image.Image:
    """Lay rows of pictures out under the names of their columns, each with two lines of text below it."""
    step_x, step_y = _TILE_PX + _GAP_PX, _TILE_PX + _CAPTION_PX
    width, top = len(columns) * step_x + _GAP_PX, 2 * _TITLE_PX
    sheet = Image.new("RGB", (width, top + len(rows) * step_y + _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT_PX)
    draw.text((_GAP_PX, 8), _fit(title, width - 2 * _GAP_PX, font), _INK, font)
    for i, name in enumerate(columns):
        draw.text((_GAP_PX + i * step_x, _TITLE_PX + 8), name, _INK, font)
    for j, (images, lines) in enumerate(rows):
        y = top + j * step_y
        for i, pixels in enumerate(images):
            tile = Image.fromarray(pixels).resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC)
            sheet.paste(tile, (_GAP_PX + i * step_x, y))
        for number, line in enumerate(lines):
            place = (_GAP_PX, y + _TILE_PX + 2 + 18 * number)
            draw.text(place, _fit(line, width - 2 * _GAP_PX, font), _INK, font)
    return sheet


def reconstruct(run: Path, source: PairSource, path: Path, *, device: torch.device, num_rows: int = 8) -> list[Row]:
    """Draw what a run completes.

    Args:
        run: the run's folder.
        source: its pairs; rows come from the validation split.
        path: PNG to write, whole or not at all.
        device: where the network computes.
        num_rows: pairs to show.

    Returns:
        The rows that were drawn.

    Raises:
        TrainingError: the run has no checkpoint, was trained on other shards, or the picture cannot be written.
    """
    objective, step = load_run(run, device)
    check_shards(run, source)
    rows = complete_rows(objective, source, num_rows=num_rows, device=device)
    sheet = draw_rows(rows, title=f"{objective.recipe.name}, step {step}: validation pairs, never trained on")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot write: {error}", where=path, hint="give another --out") from error
    write_atomic(path, buffer.getvalue())
    logger.info("%d completions of validation pairs: %s", len(rows), path)
    return rows


def check_shards(run: Path, source: PairSource) -> None:
    """Only the shards of the run are known to keep its training pairs apart from these."""
    claimed = json.loads((run / "recipe.json").read_text())["shards"] if (run / "recipe.json").exists() else None
    if claimed != source.shards_hash:
        raise TrainingError(
            "these are not the shards that the run was trained on, so its validation pairs may have been trained on",
            where=run,
            hint="give the run's own --shards",
        )


def hide(pixels_BHWC: npt.NDArray[np.uint8], masked_BM: npt.NDArray[np.int64], patch_px: int) -> npt.NDArray[np.uint8]:
    """Paint masked patches gray."""
    side = pixels_BHWC.shape[1] // patch_px
    hidden_BN = np.zeros((len(pixels_BHWC), side**2), dtype=np.bool_)
    np.put_along_axis(hidden_BN, masked_BM, values=True, axis=1)
    hidden_BHW = hidden_BN.reshape(-1, side, side).repeat(patch_px, axis=1).repeat(patch_px, axis=2)
    return np.where(hidden_BHW[..., None], np.uint8(_HIDDEN), pixels_BHWC)


def _fit(text: str, width_px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten a text in its middle until it fits."""
    if font.getlength(text) <= width_px:
        return text
    keep = len(text) // 2
    while keep > 1 and font.getlength(f"{text[:keep]}...{text[-keep:]}") > width_px:
        keep -= 1
    return f"{text[:keep]}...{text[-keep:]}"

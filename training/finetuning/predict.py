"""What a fine-tuned network says of a photograph."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from manifests.errors import SourceError, TrainingError
from training.checkpoints import write_atomic
from training.examples.pictures import read_picture
from training.finetuning.evaluate import SHOWN_PX, drawn_over
from training.finetuning.measure import ask, load_finetuned
from training.finetuning.mixture import normalised
from training.finetuning.sheet import png
from training.run_folder import make_folder
from training.views import cut_square, take

logger = logging.getLogger(__name__)

MARGIN = 1.2  # of the square around a box, as in the protocols of people in photographs
Floats = npt.NDArray[np.float64]


@torch.no_grad()
def predict(
    run: Path,
    images: Sequence[Path],
    out: Path,
    *,
    boxes: Sequence[Sequence[float]] = (),
    side: str | None = None,
    device: torch.device,
) -> list[Path]:
    """Ask a network for one photograph, or for one with the help of a second.

    Args:
        run: folder of the fine-tuning.
        images: the photographs; a task on two pictures that is given one sees it twice.
        out: where the answer goes (a mesh as `.glb`, classes as `.json`); its picture lies beside it as `.png`.
        boxes: x0, y0, x1, y1 of the person or hand in each photograph, pixels, turned upright as its EXIF says; the whole photograph
            where there are none.
        side: which hand is shown, for tasks on hands of one side: the other one is mirrored, and so is the answer.
        device: where the network computes.

    Returns:
        The files written.

    Raises:
        SourceError: a photograph is missing or damaged.
        TrainingError: nothing is trained yet, there are too many photographs, a box is empty or outside its photograph, a side is told
            to a task that asks for none, the picture would be written over a photograph, or the files cannot be written.
    """
    drawn = out.with_suffix(".png")
    if drawn.resolve() in [path.resolve() for path in images]:
        hint = "write to another folder, or under another name"
        raise TrainingError("the picture of the answer would replace the photograph", where=drawn, hint=hint)
    asked = load_finetuned(run, device)
    num = 2 if asked.task.reads == "two" else 1
    if not 1 <= len(images) <= num:
        hint = f"{asked.task.name} reads {num}"
        raise TrainingError(f"{len(images)} photographs are given", where="--image", hint=hint)
    if boxes and len(boxes) != len(images):
        raise TrainingError(
            f"{len(boxes)} boxes for {len(images)} photographs", where="--box", hint="give one for each"
        )
    if len(images) < num:
        logger.info(
            "one photograph is given, and seen twice; a second one of the same moment, or a neighbouring one, helps"
        )
    if not boxes:
        logger.info("whole photographs are taken; say --box of the person or hand if it is small in them")
    wanted = getattr(asked.task, "side", None)
    if wanted is None and side is not None:
        raise TrainingError(f"{asked.task.name} asks for no side", where="--side", hint="leave it out")
    if wanted is not None and side is None:
        logger.info("taken for a %s hand; say --side if it is the other one", wanted)
    flip = wanted is not None and side not in (None, wanted)
    if flip:
        logger.info("the %s hand is mirrored, and so is the answer: it is of a %s hand", side, wanted)
    image_px, cuts, pixels, shown = asked.network.architecture.image_px, [], [], []
    for place, path in enumerate(images):
        picture = _photograph(path)
        square = square_of(boxes[place], picture) if boxes else _middle(picture)
        cuts.append(cut_square(square, image_px=image_px, flip=flip))
        pixels.append(take(picture, cuts[-1]))
        shown.append(take(picture, cut_square(square, image_px=max(SHOWN_PX, image_px), flip=flip)))
        logger.info("%s: square %s", path, ", ".join(f"{edge:.1f}" for edge in square))
    views = (pixels * num)[:num]
    outputs = ask(asked, tuple(normalised(view[None], device) for view in views))
    make_folder(out.parent)
    written = asked.task.write(out, cuts[0], outputs)
    if out.suffix not in ("", *(path.suffix for path in written)):
        logger.info("%s is answered as %s, not %s", asked.task.name, written[0].suffix, out.suffix)
    write_atomic(drawn, png(Image.fromarray(drawn_over(asked, shown, outputs))))
    return [*written, drawn]


def _photograph(path: Path) -> npt.NDArray[np.uint8]:
    try:
        return read_picture(path, where=path, upright=True)
    except SourceError as error:
        hint = "give a photograph as JPEG or PNG" if path.exists() else "give a photograph that is there"
        raise SourceError(error.what, where=path, hint=hint) from error


def square_of(box: Sequence[float], picture_HW3: npt.NDArray[np.uint8]) -> Floats:
    """(4,) edges of the square around a box, with the margin.

    Raises:
        TrainingError: the box has no size, or lies outside the picture.
    """
    low, high = np.array(box, np.float64).reshape(2, 2)
    height, width = picture_HW3.shape[:2]
    told = ",".join(f"{edge:g}" for edge in box)
    if not (high > low).all():
        raise TrainingError(f"the box {told} is empty", where="--box", hint="give x0,y0,x1,y1 in pixels")
    if (high <= 0).any() or (low >= [width, height]).any() or not np.isfinite(box).all():
        hint = "give x0,y0,x1,y1 in pixels, from the upper left corner"
        raise TrainingError(
            f"the box {told} lies outside the photograph of {width} x {height}", where="--box", hint=hint
        )
    half = MARGIN * (high - low).max() / 2
    return np.concatenate([(low + high) / 2 - half, (low + high) / 2 + half])


def _middle(picture_HW3: npt.NDArray[np.uint8]) -> Floats:
    """The square around the whole photograph."""
    height, width = picture_HW3.shape[:2]
    middle, half = np.array([width, height]) / 2 - 0.5, max(width, height) / 2
    return np.concatenate([middle - half, middle + half])

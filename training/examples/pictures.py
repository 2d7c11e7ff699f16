"""Decodes pictures of datasets, which nobody has checked: sizes are looked at before anything is unfolded."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from manifests.errors import SourceError

MAX_SIDE_PX = 16_384
MAX_PIXELS = 80_000_000
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError)


def read_picture(source: Path | bytes, *, where: str | Path, upright: bool = False) -> npt.NDArray[np.uint8]:
    """Decode one picture.

    Args:
        source: a file, or its bytes.
        where: what it is called in an error.
        upright: turn it as its EXIF says, as all that show pictures do. Not for datasets: annotations are of the stored pixels.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        SourceError: it is missing, damaged, or larger than `MAX_SIDE_PX` or `MAX_PIXELS`.
    """
    hint = "get the picture again, or leave its entry out of the annotations"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            width, height = picture.size
            if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
                raise SourceError(f"the picture claims {width} x {height} px", where=where, hint=hint)
            return np.asarray((ImageOps.exif_transpose(picture) if upright else picture).convert("RGB"))
    except _DAMAGE as error:
        raise SourceError(f"the picture cannot be read: {_reason(error)}", where=where, hint=hint) from error


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""Human parsing: from the crop of a person to the probability that each pixel is a person.

`build_parser` turns a `ParserRecipe` into a `HumanParser`; the backends live in `pipeline.parsers`. Parsing is semantic: a
neighbour in the crop counts as person too. A `OneParser` can also draw the one person that a crop is centred on; with
others, telling people apart is left to `pipeline.people`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from manifests.errors import StageError
from pipeline.recipes import ParserRecipe

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Probability = npt.NDArray[np.float32]  # (H, W), 0..1

DEVICE = "CROSSPOSE_DEVICE"  # environment variable: where a torch backend runs; `cpu` by default
ASSETS = "CROSSPOSE_ASSETS"  # environment variable: the folder of fetched files


class HumanParser(Protocol):
    """Says which pixels are a person.

    A parser is built once per process (nets do not pickle) and is used by one thread.

    Attributes:
        name: backend, version, and the first twelve digits of the weights' SHA-256; recorded beside every silhouette.
    """

    name: str

    def parse(self, crops: Sequence[Image]) -> list[Probability]:
        """Parse crops of any sizes.

        Args:
            crops: (H, W, 3) uint8 RGB each, best 1.1 to 1.5 times the person's box.

        Returns:
            for each crop (H, W) float32, the probability of a person; one crop's result does not depend on the others.
        """
        ...


@runtime_checkable
class OneParser(HumanParser, Protocol):
    """A human parser that can also tell one person from the others in a crop."""

    def parse_one(self, crops: Sequence[Image]) -> list[tuple[Probability, float]]:
        """Parse the person in the middle of each crop, and nobody else.

        Args:
            crops: (H, W, 3) uint8 RGB each, about 1.3 times the person's box.

        Returns:
            for each crop the (H, W) float32 probability of this person, and how sure it is that there is one, 0..1.
        """
        ...


def assets_folder(assets: str | Path | None = None) -> Path:
    """The folder of fetched files: the argument, else `$CROSSPOSE_ASSETS`, else `assets` in the working folder."""
    return Path(assets or os.environ.get(ASSETS) or "assets")


def require_device(device: str) -> None:
    """Insist that torch can compute on a device.

    Raises:
        StageError: it cannot.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StageError(
            f"torch cannot compute on {device}: {str(error).splitlines()[0]}",
            where=DEVICE,
            hint="leave it out to compute on the CPU, or install torch with CUDA where there is a GPU",
        ) from error


def build_parser(recipe: ParserRecipe, assets: str | Path | None = None, *, device: str = "cpu") -> HumanParser | None:
    """Build the parser that a recipe names; None for the backend `none`.

    Args:
        recipe: which backend, and its settings.
        assets: folder of fetched files, see `assets_folder`.
        device: where a torch backend runs.

    Raises:
        StageError: weights are missing or are not the ones expected.
        RecipeError: the mmseg config does not exist, or says nothing about people.
    """
    # Imported here so that a build without parser needs neither OpenCV's nets nor torch.
    if recipe.backend == "selfie":
        from pipeline.parsers.selfie import SelfieParser

        return SelfieParser(assets_folder(assets), engine=recipe.engine)
    if recipe.backend == "mmseg":
        from pipeline.parsers.mmseg import MmsegParser

        return MmsegParser(recipe, device=device)
    return None

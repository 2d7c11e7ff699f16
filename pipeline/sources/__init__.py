"""One file per raw dataset: its layout on disk, turned into frames."""

import difflib

from manifests.errors import RecipeError
from pipeline.recipes import SourceRecipe
from pipeline.sources.base import Source
from pipeline.sources.cameras import CamerasSource
from pipeline.sources.videos import VideosSource

SOURCES: dict[str, type] = {"cameras": CamerasSource, "videos": VideosSource}


def build_source(recipe: SourceRecipe) -> Source:
    """The source that a recipe names.

    Raises:
        RecipeError: no source is of this kind.
    """
    if recipe.kind not in SOURCES:
        near = difflib.get_close_matches(recipe.kind, SOURCES, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"kinds: {', '.join(SOURCES)}"
        raise RecipeError(f"unknown kind of source `{recipe.kind}`", where=f"source {recipe.name}", hint=hint)
    source: Source = SOURCES[recipe.kind](recipe)
    return source

"""One file per raw dataset: its layout on disk, turned into frames."""

from pathlib import Path

from manifests.errors import RecipeError
from pipeline.recipes import SourceRecipe
from pipeline.sources.aist import AistSource
from pipeline.sources.base import Source, did_you_mean
from pipeline.sources.cameras import CamerasSource
from pipeline.sources.dexycb import DexYcbSource
from pipeline.sources.freihand import FreiHandSource
from pipeline.sources.hanco import HanCoSource
from pipeline.sources.ho3d import Ho3dSource
from pipeline.sources.humbi import HumbiSource
from pipeline.sources.interhand import InterHandSource
from pipeline.sources.jrdb import JrdbSource
from pipeline.sources.mars import MarsSource
from pipeline.sources.pennaction import PennActionSource
from pipeline.sources.posetrack import PoseTrackSource
from pipeline.sources.threedpw import ThreedpwSource
from pipeline.sources.videos import VideosSource

SOURCES: dict[str, type[Source]] = {
    "cameras": CamerasSource,
    "videos": VideosSource,
    "aist": AistSource,
    "hanco": HanCoSource,
    "mars": MarsSource,
    "interhand": InterHandSource,
    "humbi": HumbiSource,
    "pennaction": PennActionSource,
    "posetrack": PoseTrackSource,
    "dexycb": DexYcbSource,
    "3dpw": ThreedpwSource,
    "jrdb": JrdbSource,
    "ho3d": Ho3dSource,
    "freihand": FreiHandSource,
}


def build_source(recipe: SourceRecipe, work: Path | None = None) -> Source:
    """The source that a recipe names.

    Args:
        recipe: of the source.
        work: where it may keep what it derives from very large files.

    Raises:
        RecipeError: no source is of this kind.
    """
    if recipe.kind not in SOURCES:
        hint = did_you_mean(recipe.kind, SOURCES, f"kinds: {', '.join(SOURCES)}")
        raise RecipeError(f"unknown kind of source `{recipe.kind}`", where=f"source {recipe.name}", hint=hint)
    return SOURCES[recipe.kind](recipe, work)

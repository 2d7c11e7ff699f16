"""FreiHAND: known, so that it is refused with the reason. It makes no pairs, and hand meshes are evaluated on it.

``` text
<root>/training/rgb/00000000.jpg             130,240 pictures: 32,560 before four backgrounds
<root>/training_{K,mano,xyz,scale,verts}.json
<root>/evaluation/rgb/00000000.jpg           3,960 pictures; also a download of its own
```
Nothing says which pictures show one instant or follow one another.
"""

from pathlib import Path

from typing_extensions import override

from manifests.errors import SourceError
from manifests.types import Domain, Split
from pipeline.sources import trees
from pipeline.sources.base import Card, Marker, Recording, Scan, Source

ONLY_EVALUATION = "this is FreiHAND_pub_v2_eval; training_K.json is in FreiHAND_pub_v2"
NO_PAIRS = "no view grouping: unusable for pairs; FreiHAND is the evaluation set of hand meshes, and is kept out of pre-training"

CARD = Card(
    title="FreiHAND v2",
    domains=(Domain.HAND,),
    tree="training/rgb/00000000.jpg, training_K.json, evaluation/rgb/",
    get="the project page (University of Freiburg): FreiHAND_pub_v2, not FreiHAND_pub_v2_eval",
    licence="research only",
    terms="No commercial use. Here it is for evaluation only.",
    gives="nothing: no pair can be made of it",
)


class FreiHandSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home)
        trains = home is not None and (home / "training_K.json").is_file()
        return [
            Marker.of("training/rgb/ or evaluation/rgb/", home),
            Marker.of("training_K.json", trains, ONLY_EVALUATION, needed=False),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """Refuse it.

        Raises:
            SourceError: always.
        """
        what = "neither training/rgb/ nor evaluation/rgb/ is here"
        home = trees.require_home(root, _is_home, what, "give FreiHAND_pub_v2 as ROOT")
        if not (home / "training").is_dir() and not (home / "training_K.json").is_file():
            raise SourceError(ONLY_EVALUATION, where=home, hint=f"and there: {NO_PAIRS}")
        raise _refused(home)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """Refuse it.

        Raises:
            SourceError: always.
        """
        raise _refused(root)


def _refused(where: Path) -> SourceError:
    hint = "take HanCo for pairs: its `is_train` sequences are apart from FreiHAND's evaluation set"
    return SourceError(NO_PAIRS, where=where, hint=hint)


def _is_home(folder: Path) -> bool:
    """FreiHAND's folders: others have `training/` or `evaluation/` too, but not its JSON files beside them."""
    return any(
        (folder / part / "rgb").is_dir()
        and any((folder / f"{part}_{name}.json").is_file() for name in ("K", "xyz", "scale"))
        for part in ("training", "evaluation")
    )

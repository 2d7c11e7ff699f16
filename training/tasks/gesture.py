"""Which gesture a hand makes: HaGRID's 18 classes from few examples of each, or classes of rendered hands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from training.metrics.classes import top1
from training.tasks.base import Arrays, Score
from training.tasks.classify import Classify


@dataclass(frozen=True, slots=True, kw_only=True)
class Gesture(Classify):
    """A gesture is the same made by the other hand, but not turned: a thumb down is a thumb up upside down."""

    name: ClassVar = "gesture"
    main: ClassVar = "top1"
    flips: ClassVar = True
    turns: ClassVar = False

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Share of images whose likeliest class is the annotated one."""
        value = top1(measured["logits"], measured["class"])
        convention = f"top-1 over {len(self.classes)} classes, every image counted alike"
        return {"top1": Score(value=value, unit="share", better="higher", convention=convention)}

"""Which grasp a hand uses: GUN-71's 33 classes of Feix's taxonomy, one subject left out at a time, or rendered hands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from manifests.seeds import seed_for
from training.examples.base import About, Example
from training.metrics.classes import best_view_top1, top1
from training.tasks.base import Arrays, Cut, Score
from training.tasks.classify import Classify


@dataclass(frozen=True, slots=True, kw_only=True)
class Grasp(Classify):
    """Several pictures show one grasp: each counts, or only the one that the network is surest of."""

    name: ClassVar = "grasp"
    main: ClassVar = "best_view"
    flips: ClassVar = True
    turns: ClassVar = True

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:
        """Make "class", and "instance": a number for the grasp that is shown, of its name; of the picture's own without one."""
        instance = example.labels.get("instance", example.key)
        number = np.asarray(seed_for("instance", instance) >> 1, dtype=np.int64)
        return {**Classify.target(self, example, cut, about), "instance": number}

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Share of right instances by their surest view, and of right views."""
        logits, label, instance = measured["logits"], measured["class"], measured["instance"]
        num = len(np.unique(instance))
        each = f"top-1 over {len(self.classes)} classes"
        best = Score(
            value=best_view_top1(logits, label, instance),
            unit="share",
            better="higher",
            convention=f"{each}, the surest view (largest softmax) of each of {num} grasps",
        )
        every = Score(
            value=top1(logits, label),
            unit="share",
            better="higher",
            convention=f"{each}, every one of {len(label)} views counted",
        )
        return {"best_view": best, "all": every}

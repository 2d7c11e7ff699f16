"""Classes of rendered hands: which of a few finger poses a hand's is nearest to. Gestures and grasps that need nobody's terms.

Shape letters: `n` pictures, `C` classes, `F` numbers that describe how the fingers are bent.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from manifests.errors import TrainingError
from manifests.seeds import rng_for
from manifests.types import Domain, Reason, Reject
from training.examples.base import About, Example
from training.examples.free import Free
from training.heads.rotations import matrix_from_axis_angle

Floats = npt.NDArray[np.float64]

NUM_CLASSES = 12
CLEAR = 0.75  # the nearest prototype is at most so far, as a share of the second nearest's distance
ROUNDS = 20  # of moving prototypes to the middle of their class
MIRROR = (1.0, -1.0, -1.0)  # of the axis of a left hand's turn, to be read as a right one's


class FreeClasses:
    """Rendered hands, each with the class of its finger pose.

    The prototypes come from the train split, the same for every split of a build: poses that were drawn far apart, then moved to
    the middle of their class. A left hand has the class of its mirror image. Nobody makes half of two gestures: hands between two
    classes are left out.

    Args:
        root: of a build of hands.
        split: train, val or test.
        num_classes: number of prototypes.

    Raises:
        TrainingError: the build holds no hands, or fewer poses than classes.
    """

    def __init__(self, root: Path, *, split: str, num_classes: int = NUM_CLASSES) -> None:
        self._free = Free(root, split=split)
        if self._free.about.domain is not Domain.HAND:
            raise TrainingError("only hands have classes of poses", where=root, hint="make render RECIPE=free_hand")
        train = self._free if split == "train" else Free(root, split="train")
        train_nF = finger_numbers(train.poses(), train.sides())
        poses_F = np.unique(train_nF, axis=0)
        if len(poses_F) < max(2, num_classes):
            hint = "render more hands, or ask for fewer classes"
            raise TrainingError(f"{len(poses_F)} poses make no {num_classes} classes", where=root, hint=hint)
        self.prototypes_CF = prototypes(poses_F, num_classes)
        apart_nC = distances(finger_numbers(self._free.poses(), self._free.sides()), self.prototypes_CF)
        first_n, second_n = np.partition(apart_nC, 1, axis=1)[:, :2].T
        clear_n = first_n <= CLEAR * second_n
        self._places = np.flatnonzero(clear_n).tolist()
        self._classes = apart_nC.argmin(axis=1)[clear_n].tolist()
        about, keys = self._free.about, self._free.keys()
        between = [
            Reject("examples", keys[place], Reason.UNLABELLED, "between two classes")
            for place in np.flatnonzero(~clear_n).tolist()
        ]
        self._about = replace(
            about,
            labels=("class", *about.labels),
            classes=tuple(f"pose {number:02d}" for number in range(num_classes)),
            protocol=f"{about.protocol}; class: the nearest of {num_classes} finger poses of the train split, at most"
            f" {CLEAR:g} times as far as the second nearest",
            rejects=(*about.rejects, *between),
        )

    @property
    def about(self) -> About:
        """What is known of all."""
        return self._about

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        """Decode one; see `Free`."""
        example = self._free[self._places[index]]
        return replace(example, labels={"class": self._classes[index], **example.labels})

    def subjects(self) -> Sequence[str | None]:
        """The person of each picture."""
        subjects = self._free.subjects()
        return [subjects[place] for place in self._places]

    def keys(self) -> Sequence[str]:
        """The key of each picture."""
        keys = self._free.keys()
        return [keys[place] for place in self._places]

    def class_indices(self) -> Sequence[int]:
        """The class of each picture."""
        return list(self._classes)


def finger_numbers(poses_nR3: Floats, sides: Sequence[str | None]) -> Floats:
    """The rotations of all joints but the root as matrices, (n, F); those of left hands as their mirror image has them."""
    left = np.asarray([side == "left" for side in sides])
    fingers = poses_nR3[:, 1:] * np.where(left[:, None, None], MIRROR, 1.0)
    return np.asarray(matrix_from_axis_angle(torch.from_numpy(fingers)).flatten(1).numpy())


def prototypes(poses_nF: Floats, num_classes: int) -> Floats:
    """Find poses that stand for the others, (C, F): the same for the same poses, in whatever order they come."""
    poses_nF = poses_nF[np.lexsort(poses_nF.T)]
    rng = rng_for("free classes", len(poses_nF), num_classes)
    chosen = [int(rng.integers(len(poses_nF)))]
    for _ in range(num_classes - 1):
        apart_n = nearest(poses_nF, poses_nF[chosen])[1] ** 2
        chosen.append(int(rng.choice(len(poses_nF), p=apart_n / apart_n.sum())))
    middles_CF = poses_nF[chosen]
    for _ in range(ROUNDS):
        member_n = nearest(poses_nF, middles_CF)[0]
        for number in np.unique(member_n).tolist():  # a class that lost all its poses stays where it was
            middles_CF[number] = poses_nF[member_n == number].mean(axis=0)
    return middles_CF


def nearest(poses_nF: Floats, others_mF: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Index of the nearest other pose of each, and its distance, (n,)."""
    apart_nm = distances(poses_nF, others_mF)
    return apart_nm.argmin(axis=1), apart_nm.min(axis=1)


def distances(poses_nF: Floats, others_mF: Floats) -> Floats:
    """How far each pose is from each other one, (n, m)."""
    squared = sum((poses_nF[:, None, part] - others_mF[None, :, part]) ** 2 for part in range(poses_nF.shape[1]))
    return np.asarray(np.sqrt(squared))

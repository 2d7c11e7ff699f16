"""A task and its dataset without any file: where is the bright disc, and on which side of the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from torch import nn

from manifests.errors import TrainingError
from manifests.seeds import rng_for
from manifests.types import Domain
from training.checkpoints import write_atomic
from training.examples.base import About, Example
from training.tasks.base import Score

SIDE_PX = 64


@lru_cache(maxsize=512)
def draw_example(name: str, number: int) -> Example:
    """A disc on a striped ground; twelve people, each with a ground of its own."""
    rng = rng_for("toy task", name, number)
    person = number % 12
    x, y = rng.uniform(12, SIDE_PX - 13, 2)
    ground = rng_for("toy ground", name, person).integers(0, 90, (8, 8, 3), dtype=np.uint8)
    picture = cv2.resize(ground, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    cv2.circle(picture, (round(x * 16), round(y * 16)), 7 * 16, (250, 240, 200), -1, cv2.LINE_AA, 4)
    return Example(
        key=f"{name}/{number}",
        rgb_HW3=picture,
        square_xyxy_px=np.array([-0.5, -0.5, SIDE_PX - 0.5, SIDE_PX - 0.5]),
        labels={"keypoints_px": np.array([[x, y, 1.0]])},
        subject=f"{name}-{person}",
        second_HW3=picture[:, ::-1].copy(),
        second_square_xyxy_px=np.array([-0.5, -0.5, SIDE_PX - 0.5, SIDE_PX - 0.5]),
    )


class ToyExamples:
    """Discs of one split, `count` of them; the file `root/damaged` names one that cannot be read."""

    def __init__(self, root: Path, *, split: str, count: int = 48, labels: bool = True) -> None:
        self.split, self.count = split, count
        damaged = root / "damaged"
        self.damaged = damaged.read_text() if damaged.exists() else None
        self.about = About(
            name="toy",
            domain=Domain.BODY,
            split=split,
            labels=("keypoints_px",) if labels else (),
            classes=("left", "right"),
            protocol="discs, whole pictures",
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        example = draw_example(self.split, index)
        if example.key == self.damaged:
            raise TrainingError("the picture is damaged", where=example.key, hint="draw it again")
        return example

    def subjects(self) -> Sequence[str | None]:
        return [f"{self.split}-{number % 12}" for number in range(self.count)]


class PointHead(nn.Module):
    """A point of all tokens, with dropout: a run that goes on must draw the same."""

    def __init__(self, dim: int, num_patches: int, dropout: float) -> None:
        super().__init__()
        self.drop, self.map = nn.Dropout(dropout), nn.Linear(num_patches * dim, 2)

    def forward(self, maps):
        return self.map(self.drop(maps[-1].flatten(1))).float()


@dataclass(frozen=True, kw_only=True)
class ToyTask:
    """Find the disc, in shares of the image."""

    reads: str = "pooled"
    classes: tuple[str, ...] = ()
    weight: float = 1.0
    dropout: float = 0.1
    name: ClassVar[str] = "toy"
    main: ClassVar[str] = "distance"
    flips: ClassVar[bool] = True
    turns: ClassVar[bool] = True

    def check(self, train, test):
        for about in (*train, test):
            if "keypoints_px" not in about.labels:
                raise TrainingError(f"{about.name} has no points", where=about.split, hint="use discs")

    def head(self, widths, num_patches):
        return PointHead(widths[-1], num_patches, self.dropout)

    def target(self, example, cut, about):
        point = example.labels["keypoints_px"][0, :2]
        shown = cut.image_from_picture[:, :2] @ point + cut.image_from_picture[:, 2]
        return {"point": ((shown + 0.5) / cut.image_px).astype(np.float32)}

    def loss(self, outputs, target):
        return {"point": self.weight * (outputs - target["point"]).square().mean()}

    def constant(self, target, num):
        return target["point"].mean(dim=0).expand(num, 2)

    def measure(self, outputs, target):
        return {"distance": (outputs - target["point"]).norm(dim=1).cpu().numpy()}

    def scores(self, measured):
        value = float(np.median(measured["distance"]))
        mean = float(measured["distance"].mean())
        return {
            "distance": Score(value=mean, unit="share", better="lower", convention="of the image's side"),
            "median": Score(value=value, unit="share", better="lower", convention="of the image's side"),
        }

    def draw(self, image_HW3, outputs, index):
        drawn = image_HW3.copy()
        x, y = (outputs[index].detach().cpu().numpy() * len(image_HW3)).astype(int)
        return np.asarray(cv2.circle(drawn, (int(x), int(y)), 3, (255, 0, 0), -1))

    def write(self, out, cut, outputs):
        write_atomic(out, f"{outputs[0].tolist()}\n".encode())
        return [out]


def register(monkeypatch) -> None:
    """Let recipes name the toy task and its dataset."""
    from training.tasks import datasets, recipes

    monkeypatch.setitem(recipes.TASKS, "toy", "tests.support.toy_task:ToyTask")
    monkeypatch.setitem(datasets.READERS, "toy", "tests.support.toy_task:ToyExamples")

"""What the tasks share that name a class: head, loss, pictures.

Shape letters: `B` examples, `C` classes, `H W` image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

from manifests.errors import TrainingError
from manifests.files import write_json
from training.examples.base import About, Example
from training.heads.classifier import Classifier
from training.heads.pooling import OfPooled, Pool, Pooling
from training.tasks.base import Arrays, Cut, Tensors

SHOWN = 3  # classes named in a picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify:
    """One class of an image, from the feature of its tokens.

    Args:
        classes: their names, in the order of the labels; the first training set's.
        hidden: width between two linear maps; None is one linear map.
        pooling: how tokens become one feature, see `Pool`.
    """

    classes: tuple[str, ...] = ()
    hidden: int | None = None
    pooling: Pooling = "mean"

    reads: ClassVar[Literal["pooled"]] = "pooled"

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets with other classes, or none.

        Raises:
            TrainingError: which dataset has which.
        """
        for about in (*train, test):
            if "class" not in about.labels or len(about.classes) < 2 or about.classes != self.classes:
                raise TrainingError(
                    f"the classes are {_listed(about.classes)}; the task's are {_listed(self.classes)}",
                    where=f"{about.name}, {about.split}",
                    hint="train and test on datasets with the same classes, in the same order",
                )

    def head(self, widths: Sequence[int], num_patches: int) -> nn.Module:
        """A linear map of the pooled tokens, or two."""
        pool = Pool(widths[-1], num_patches, self.pooling)
        return OfPooled(pool, Classifier(pool.width, len(self.classes), hidden=self.hidden))

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:  # noqa: ARG002
        """Make "class", a number."""
        return {"class": np.asarray(example.labels["class"], dtype=np.int64)}

    def loss(self, outputs: Tensor, target: Tensors) -> Mapping[str, Tensor]:
        """Cross entropy."""
        return {"class": functional.cross_entropy(outputs.float(), target["class"])}

    def constant(self, target: Tensors, num: int) -> Tensor:
        """How frequent each class is."""
        count_C = target["class"].bincount(minlength=len(self.classes)).float()
        return (count_C / count_C.sum()).clamp(min=1e-6).log().expand(num, -1)

    def measure(self, outputs: Tensor, target: Tensors) -> Arrays:
        """Logits and labels."""
        return {
            "logits": outputs.float().cpu().numpy(),
            **{name: values.cpu().numpy() for name, values in target.items()},
        }

    def draw(self, image_HW3: npt.NDArray[np.uint8], outputs: Tensor, index: int) -> npt.NDArray[np.uint8]:
        """The likeliest classes in words, each with a bar as long as its probability."""
        out = image_HW3.copy()
        height, width = out.shape[:2]
        row_px = max(9, height // 14)
        for row, (name, share) in enumerate(self._ranked(outputs, index)[:SHOWN]):
            top = height - (min(SHOWN, len(self.classes)) - row) * row_px
            band = out[top : top + row_px]
            band[:] = band // 3
            band[:, : round(share * width)] += np.asarray([20, 90, 60], dtype=np.uint8)
            text = f"{name} {100 * share:.0f} %"
            place = 3, top + round(0.75 * row_px)
            cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, row_px / 32, (255, 255, 255), 1, cv2.LINE_AA)
        return out

    def write(self, out: Path, cut: Cut, outputs: Tensor) -> list[Path]:  # noqa: ARG002
        """Every class with its probability as JSON, the likeliest first."""
        ranked = self._ranked(outputs, 0)
        path = out.with_suffix(".json")
        write_json(path, {"classes": [{"name": name, "probability": round(share, 6)} for name, share in ranked]})
        return [path]

    def _ranked(self, logits_BC: Tensor, index: int) -> list[tuple[str, float]]:
        shares = logits_BC[index].detach().float().softmax(dim=0).tolist()
        return sorted(zip(self.classes, shares, strict=True), key=lambda pair: -pair[1])


def _listed(classes: Sequence[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:4])}{', ...' if len(classes) > 4 else ''})" if classes else "none"

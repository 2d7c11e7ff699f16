"""What a run leaves to read: `metrics.jsonl`, TensorBoard, and the loss curve as a picture.

Every number is written by step; a run that goes on from a checkpoint first drops what it had written beyond it.
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import TrainingError
from training.checkpoints import write_atomic

METRICS = "metrics.jsonl"


class Record:
    """Writer of a run's numbers.

    Args:
        folder: the run's folder.
        step: steps already done; lines of later ones are dropped.

    Attributes:
        left_out: steps of the run whose gradient was a spike, so far.

    Raises:
        TrainingError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / METRICS
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.left_out = len(steps_left_out(kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, kind: str, step: int, **numbers: float) -> None:
        """Write one line, as plain JSON and as curves called `kind/number`.

        Raises:
            TrainingError: the disk is full.
        """
        if numbers.get("left_out"):
            self.left_out += 1
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **numbers}) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"cannot write: {error}", where=self._path, hint="free some space, and run again"
            ) from error
        for name, number in numbers.items():
            self._board.add_scalar(f"{kind}/{name}", number, step)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read a run's lines in their order; an unfinished last line of a killed run is left out."""
    path = folder / METRICS
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def steps_left_out(lines: Iterable[dict[str, Any]]) -> list[int]:
    """Steps whose gradient was a spike, of a run's lines."""
    return [line["step"] for line in lines if line.get("left_out")]


def draw_loss_curve(folder: Path, path: Path, *, zero_loss: float) -> None:
    """Draw training and validation loss over the steps, the score of a zero prediction, and where steps were left out.

    Args:
        folder: the run's folder.
        path: PNG to write.
        zero_loss: what a network scores that always predicts zero.

    Raises:
        TrainingError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(folder)
    train = [line for line in lines if line["kind"] == "train"]
    step, loss = np.array([line["step"] for line in train]), np.array([line["loss"] for line in train])
    validation = [line for line in lines if line["kind"] == "validation"]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(step, loss, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(step, _smooth(loss), color="tab:blue", label="training, smoothed")
    for name, colour, label in (
        ("loss", "tab:orange", "validation"),
        ("loss_black", "tab:gray", "validation, black reference"),
    ):
        axes.plot([v["step"] for v in validation], [v[name] for v in validation], "o-", color=colour, label=label)
    axes.axhline(zero_loss, color="black", linestyle=":", linewidth=1, label=f"zero prediction, {zero_loss:.4f}")
    for number, spike in enumerate(spikes := steps_left_out(train)):
        axes.axvline(
            spike, ymax=0.04, color="tab:red", label=None if number else f"left out for a spike: {len(spikes)}"
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss on masked patches")
    axes.legend()
    axes.grid(visible=True, alpha=0.3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    write_atomic(path, buffer.getvalue())


def _smooth(values: npt.NDArray[np.float64], share: float = 0.05) -> npt.NDArray[np.float64]:
    """Mean of each value and those before it, over a window of `share` of them all."""
    window = max(1, int(len(values) * share))
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    smooth: npt.NDArray[np.float64] = (total[end] - total[start]) / (end - start)
    return smooth

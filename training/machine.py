"""Where a run happens: device, processes, signals. Nothing here changes a result."""

import os
import signal
import threading
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch import distributed as dist

from manifests.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What belongs to the machine.

    Args:
        device: where the network computes.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the last ones stay.
        console: where a progress bar is drawn; none when None.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    console: Console | None = None


def find_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device; in a torchrun job each process takes its own GPU.

    Raises:
        TrainingError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"no device is called {name}", where="--device", hint="take auto, cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"{name} is not here: {torch.cuda.device_count()} CUDA devices", where="--device", hint="take --device cpu"
        )
    return device


class Processes:
    """This process among those that torchrun started; alone when there is no torchrun.

    Args:
        machine: where it runs; decides between NCCL and gloo.
    """

    def __init__(self, machine: Machine) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._device = machine.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def __enter__(self) -> "Processes":
        if self.world > 1:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            dist.init_process_group("nccl" if self._device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the processes; all start from the weights of the first."""
        if self.world == 1:
            return model
        devices = [self._device] if self._device.type == "cuda" else None
        # The only buffers are position tables, equal everywhere.
        return nn.parallel.DistributedDataParallel(
            model, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False
        )

    def sum(self, *values: Tensor) -> list[float]:
        """Sum each number over the processes."""
        stacked = torch.stack(values)
        if self.world > 1:
            dist.all_reduce(stacked)
        numbers: list[float] = stacked.tolist()
        return numbers

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in some process."""
        return flag if self.world == 1 else self.sum(torch.tensor(float(flag), device=self._device))[0] > 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def from_first(self, value: dict[str, Any]) -> dict[str, Any]:
        """Take over the first process's value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


class StopSignal:
    """While it is open, SIGTERM and SIGINT ask the run to stop after the current step; a second one stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

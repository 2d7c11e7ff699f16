"""Where a run happens: device, processes, signals. Nothing here changes a result."""

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from manifests.errors import TrainingError
from training.masking import Longest

logger = logging.getLogger(__name__)
T = TypeVar("T")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What belongs to the machine.

    Args:
        device: where the network computes.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the last ones stay.
        log_every: steps between lines of the log.
        shard: share weights, gradients and the optimiser's state among the processes (FSDP2) instead of keeping them whole (DDP).
        recompute: compute activations again in the backward pass instead of keeping them: less memory, a third more work.
        compile: let torch.compile fuse the step; needs shapes that never change.
        profile_steps: write a trace of so many steps; none when 0.
        peak_tflops: what the device does at best in the recipe's precision; None: as known of it, for the MFU.
        console: where a progress bar is drawn; none when None.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 1
    shard: bool = False
    recompute: bool = False
    compile: bool = False
    profile_steps: int = 0
    peak_tflops: float | None = None
    console: Console | None = None


# bfloat16 without sparsity: of the H200 as measured with large products, of the others as their makers say.
_PEAK_TFLOPS = {"H200": 788.0, "A100": 312.0, "V100": 125.0}


def peak_tflops(machine: Machine) -> float | None:
    """What the device does at best, as told or as known of it; None when it is not known."""
    if machine.peak_tflops is not None or machine.device.type != "cuda":
        return machine.peak_tflops
    name = torch.cuda.get_device_name(machine.device)
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in name), None)


def profile_of(machine: Machine, out: Path) -> torch.profiler.profile | None:
    """Trace of the steps after the first few, for chrome://tracing or Perfetto; None when none is asked for."""
    if not machine.profile_steps:
        return None

    def write(profiler: torch.profiler.profile) -> None:
        (out / "profile").mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(out / "profile/trace.json.gz"))
        order = "self_cuda_time_total" if machine.device.type == "cuda" else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=40)
        (out / "profile/operators.txt").write_text(table, encoding="utf-8")

    schedule = torch.profiler.schedule(wait=1, warmup=2, active=machine.profile_steps, repeat=1)
    return torch.profiler.profile(schedule=schedule, on_trace_ready=write)


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


def hold_memory() -> None:
    """Keep memory that is let go for the next step instead of giving it back to the system, where the C library is glibc.

    A step's tensors are as large as those of the step before it; mapped anew each time, their pages cost a CPU step a tenth.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            set_option(option, 2**31 - 1)


class Processes:
    """This process among those that torchrun started; alone when there is no torchrun.

    Args:
        machine: where it runs; decides between NCCL and gloo.
    """

    def __init__(self, machine: Machine) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._device = machine.device
        self._wrapped: list[nn.parallel.DistributedDataParallel] = []

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def __enter__(self) -> "Processes":
        if self.world > 1:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
            if restarted and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                logger.warning(
                    "torchrun restarts with the addresses of dead processes in its store;"
                    " if these cannot be reached, start it with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
                )
            dist.init_process_group("nccl" if self._device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            if kind is None:
                self.wait()  # nobody hangs up while another is still talking
            # Who lets go of a group last waits for its threads. DDP's reducer would do so holding the interpreter's lock, for which they may wait.
            for network in self._wrapped:
                del network.logger, network.reducer
            dist.destroy_process_group()

    def share(self, objective: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """Keep a share of each weight in each process (FSDP2), gathered block by block while it is needed; alone, nothing."""
        if self.world == 1:
            return
        mesh = init_device_mesh(self._device.type, (self.world,))
        for module in (*blocks, objective):
            fully_shard(module, mesh=mesh)

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Average gradients over the processes; all start from the weights of the first."""
        if self.world == 1:
            return objective
        devices = [self._device] if self._device.type == "cuda" else None
        # The only buffers are position tables, which never change.
        network = nn.parallel.DistributedDataParallel(
            objective, device_ids=devices, gradient_as_bucket_view=True, forward_sync_buffers=False
        )
        self._wrapped.append(network)
        return network

    def longest(self, num: int) -> Longest:
        """How each `num` processes in a row find the largest of their numbers, also in a thread beside the network's work.

        Every process must ask for it, and all that are in one row must use it equally often.
        """
        if num == 1:
            return int
        row, _ = dist.new_subgroups(num, backend="gloo")  # type: ignore[no-untyped-call]

        def longest(length: int) -> int:
            value = torch.tensor(length)
            dist.all_reduce(value, dist.ReduceOp.MAX, group=row)
            return int(value)

        return longest

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

    def from_all(self, value: T) -> list[T]:
        """The value of each process, in their order; small ones."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values


class StopSignal:
    """While it is open, SIGTERM, SIGINT and SIGUSR1 ask the run to stop after the current step; a second one stops at once.

    Slurm sends SIGUSR1 ahead of a time limit, and SIGTERM when it takes a node away.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
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

"""A batch that is too large for the memory: one sentence with one that fits, which is tried out first."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from vitexp.data.datamodule import ImageDataModule
from vitexp.errors import UserError
from vitexp.training.task import Task

log = logging.getLogger(__name__)

# How those say it that have no error class of their own: MPS, torch's allocator on the CPU, CUDA's libraries, C++, and
# oneDNN, which says more where there is another reason.
_SIGNS = re.compile(
    "out of memory|can't allocate memory|not enough memory|ALLOC_FAILED|bad_alloc|could not create a primitive$"
)

_MAPPED, _RESIDENT = 0, 1  # columns of /proc/self/statm


class OutOfMemory(UserError):
    """The device has too little memory for the batch, or for the model."""

    exit_code = 1


def lacks_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be allocated, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _SIGNS.search(str(error)) is not None


@contextmanager
def explained_out_of_memory(trainer: Trainer, *, model: str) -> Iterator[None]:
    """To be put around what `trainer`, which has an ImageDataModule and an Task, fits and tests.

    Where memory runs out inside, smaller batches are tried on this process' device, and OutOfMemory is raised with what
    to type. model: its name, for people.
    """
    witness = _Witness(model)
    trainer.callbacks.append(witness)  # type: ignore[attr-defined]
    try:
        yield
    except Exception as error:
        if witness.sentence is None:
            raise
        raise OutOfMemory(witness.sentence) from error


class _Witness(Callback):
    """Sees the failure while all that will take memory the next time is still on the device: Lightning clears it away
    before the error arrives where it was called. The last of the callbacks, because it does not tidy up after itself.
    """

    def __init__(self, model: str) -> None:
        self.model, self.begun, self.unused = model, False, 0
        self.sentence: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = True
        self.unused = _pages(_MAPPED) - _pages(_RESIDENT)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not lacks_memory(exception):
            return
        data, device = cast(ImageDataModule, trainer.datamodule), pl_module.device  # type: ignore[attr-defined]
        processes, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        at_once = data.batch_size // (processes * accumulated)
        used = _used(device)  # before anything is released
        place = "the GPU" if device.type == "cuda" else "this machine"
        too_many = f"{place} has no memory for {at_once:,} images of {self.model} at a time{used}"
        if self.begun and at_once > 1:  # should the trials fail as well
            self.sentence = f"{too_many}; perhaps {_ways(data.batch_size, processes, accumulated, at_once // 2)}."

        traceback.clear_frames(exception.__traceback__)  # their variables hold the activations
        pl_module.zero_grad()
        _release(device)
        fitting: int | None = 0
        if self.begun:
            log.info("out of memory; looking for a batch that fits")
            spare = _spare(self.unused) if device.type == "cpu" else math.inf
            fitting = None if spare is None else _largest_fitting(trainer, cast(Task, pl_module), at_once, spare)
            _release(device)
        if fitting:
            self.sentence = f"{too_many}; {_ways(data.batch_size, processes, accumulated, fitting)}."
        elif fitting == 0 or at_once == 1:
            lacking = (
                f"even 1 image of {self.model} at a time" if self.begun else f"{self.model} and what belongs to it"
            )
            self.sentence = f"{place} has no memory for {lacking}{used}; {_less(trainer, data, device)}."


def _largest_fitting(trainer: Trainer, module: Task, at_once: int, spare: float) -> int | None:
    """How many images this device takes at once: the largest of 1, 2, 4, ... parts of `at_once` of which a step goes
    through, with an eighth to spare; 0 where not even one image does.

    spare: bytes that the largest may take beyond what this process holds. None where that cannot be tried by one
    process alone, or where the trial fails for another reason.
    """
    alone = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    if not alone or any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
        return None
    before, needed, fitting = _pages(_RESIDENT), 0, 0
    # Upwards, because a CPU's memory must not run out: Linux and libraries would end the process, and not the step.
    for halvings in range(at_once.bit_length() - 1, 0, -1):
        size = at_once >> halvings
        if fitting and needed * size / fitting > spare:
            break
        try:
            if not _fits(trainer, module, size + size // 8):
                break
        except Exception as error:
            log.debug("cannot try smaller batches", exc_info=error)
            return None
        fitting, needed = size, _pages(_RESIDENT) - before  # on a CPU the run gives nothing back: the most it took
    return fitting


def _fits(trainer: Trainer, module: Task, count: int) -> bool:
    # A compiled net would be compiled anew for each batch size; as it stands it takes rather more memory.
    compiled = "torch._dynamo" in sys.modules
    try:
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            _step(trainer, module, count)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        return False
    return True


def _step(trainer: Trainer, module: Task, count: int) -> None:
    """One step with `count` black images: forward and backward in training, else forward."""
    size = cast(ImageDataModule, trainer.datamodule).image_size  # type: ignore[attr-defined]
    images = torch.zeros(count, size, size, 3, dtype=torch.uint8, device=module.device)
    if trainer.state.fn != "fit":
        with torch.no_grad(), trainer.precision_plugin.test_step_context():
            module(images)
        return
    module.train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # What the optimizer will hold from its first step on, two averages for AdamW, where it has taken none.
    ahead = 0 if any(optimizer.state for optimizer in trainer.optimizers) else 2
    reserve = [torch.empty_like(parameter) for parameter in parameters for _ in range(ahead)]
    drawn, module.image_sizes = module.image_sizes, module.image_sizes and [max(module.image_sizes)]
    try:
        with trainer.precision_plugin.train_step_context():
            loss = module.training_step((images, torch.zeros(count, dtype=torch.int64, device=module.device)), 0)
    finally:
        module.image_sizes = drawn
    # Unlike backward() this does not wake the hooks of DDP, which would wait for the other processes.
    torch.autograd.grad(loss, parameters, allow_unused=True)
    del reserve


def _ways(batch_size: int, processes: int, accumulated: int, fitting: int) -> str:
    """What to type so that a process takes no more than `fitting` images at once."""
    smaller = f"data.batch_size={fitting * processes * accumulated}"
    for more in range(accumulated + 1, batch_size // processes + 1):
        at_once, rest = divmod(batch_size, more * processes)
        if not rest and at_once <= fitting:
            if at_once > fitting // 2:  # else the batch has no divisor that would use the device well
                same = f"takes {at_once:,} at a time to the same optimizer step"
                return f"trainer.accumulate_grad_batches={more} {same}, or {smaller}"
            break
    return f"{smaller} would fit"


def _less(trainer: Trainer, data: ImageDataModule, device: torch.device) -> str:
    """What else takes less memory."""
    ways = ["take a smaller model or data.image_size"]
    if device.type != "cpu" and data.resident != "memory":
        ways.append("data.resident=memory, which keeps the data set off the device")
    if device.type == "cuda" and trainer.precision == "32-true":
        ways.append("trainer.precision=bf16-mixed")
    return ", or ".join(ways)


def _used(device: torch.device) -> str:
    """How much of the memory is in use, in brackets, where the device knows."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    foreign = f", {others / 1e9:.0f} GB of it by others" if others > total / 10 else ""
    return f" ({(total - free) / 1e9:.0f} of {total / 1e9:.0f} GB in use{foreign})"


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:  # glibc keeps what is freed, and only there is this function
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def _spare(unused: int) -> float | None:
    """Bytes that this process may still use: three quarters of what the machine and its limits leave; None: unknown.

    unused: bytes that are mapped and will never be used.
    """
    group = Path("/sys/fs/cgroup")  # the limits of a container, version 2
    try:
        import resource

        machine = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
        left = [int(machine.split()[1]) * 1024]
        if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()) != "max":
            left.append(int(most) - int((group / "memory.current").read_text()))
        if (address_space := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
            left.append(address_space - unused - _pages(_RESIDENT))
        return 0.75 * min(left)
    except (ImportError, OSError, StopIteration):
        return None


def _pages(column: int) -> int:
    """A column of /proc/self/statm in bytes; 0 elsewhere than on Linux."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[column]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0

"""Explain in one sentence that a batch does not fit into memory, and name a batch size that was tried and fits."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from vitexp.data.datamodule import ImageDataModule
from vitexp.errors import UserError
from vitexp.training.task import Task, data_of

log = logging.getLogger(__name__)

# Messages of errors without a class of their own: MPS, torch's CPU allocator, CUDA libraries, C++, and oneDNN, whose
# message continues if there is another reason.
_SIGNS = re.compile(
    "out of memory|can't allocate memory|not enough memory|ALLOC_FAILED|bad_alloc|could not create a primitive$"
)

_MAPPED, _RESIDENT = 0, 1  # columns of /proc/self/statm


class OutOfMemory(UserError):
    """The device has too little memory for the batch or the model."""

    exit_code = 1


def lacks_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory could not be allocated, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _SIGNS.search(str(error)) is not None


@contextmanager
def explained_out_of_memory(trainer: Trainer, *, model: str) -> Iterator[None]:
    """Raise OutOfMemory if memory runs out inside, where `trainer` fits and tests a Task.

    Smaller batches are tried on the device of this process first, and the message says what to type instead. model: the
    model's name in the message.
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
    """A callback that examines a failure before Lightning clears the device, which still holds what a retry needs.

    The last of the callbacks, because it does not restore the state of the others.
    """

    def __init__(self, model: str) -> None:
        self.model, self.started, self.unused = model, False, 0
        self.sentence: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = True
        self.unused = _bytes(_MAPPED) - _bytes(_RESIDENT)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not lacks_memory(exception):
            return
        data, device = data_of(trainer), pl_module.device
        processes, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        at_once = data.batch_size // (processes * accumulated)
        used = _used(device)  # before anything is released
        place = "the GPU" if device.type == "cuda" else "this machine"
        too_many = f"{place} has too little memory for {at_once:,} images of {self.model} at a time{used}"
        if self.started and at_once > 1:  # in case the trials fail as well
            self.sentence = f"{too_many}; perhaps {_ways(data.batch_size, processes, accumulated, at_once // 2)}."

        traceback.clear_frames(exception.__traceback__)  # whose variables hold the activations
        pl_module.zero_grad()
        _release(device)
        fitting: int | None = 0
        if self.started:
            log.info("out of memory; looking for a batch size that fits")
            spare = spare_bytes(self.unused) if device.type == "cpu" else math.inf
            fitting = None if spare is None else _largest_fitting(trainer, cast(Task, pl_module), at_once, spare)
            _release(device)
        if fitting:
            self.sentence = f"{too_many}; {_ways(data.batch_size, processes, accumulated, fitting)}."
        elif fitting == 0 or at_once == 1:
            what = f"even 1 image of {self.model} at a time" if self.started else f"{self.model} and its optimizer"
            self.sentence = f"{place} has too little memory for {what}{used}; {_less(trainer, data, device)}."


def _largest_fitting(trainer: Trainer, module: Task, at_once: int, spare: float) -> int | None:
    """Return how many images fit: the largest of `at_once` / 2, / 4, ... that has an eighth to spare; 0 for none.

    None if one process alone cannot try, or if the trial fails for another reason. spare: bytes that the trial may use
    in addition to what this process holds.
    """
    alone = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    if not alone or any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
        return None
    sizes = [at_once >> halvings for halvings in range(at_once.bit_length() - 1, 0, -1)]
    try:
        return max(fitting_sizes(trainer, module, sizes, spare=spare), default=0)
    except Exception as error:
        log.debug("cannot try smaller batches", exc_info=error)
        return None


def fitting_sizes(trainer: Trainer, module: Task, sizes: Sequence[int], *, spare: float) -> Iterator[int]:
    """Try batches of `sizes` images, ascending; yield each that has an eighth to spare, until one does not fit.

    Ascending, because CPU memory must not run out: Linux would kill the process. trainer: on its device, in a fit or
    test of `module`. spare: bytes that the trials may use in addition to what this process holds.
    """
    before, needed, fitting = _bytes(_RESIDENT), 0, 0
    for size in sizes:
        if fitting and needed * size / fitting > spare:
            break
        if not _fits(trainer, module, size + size // 8):
            break
        fitting, needed = size, _bytes(_RESIDENT) - before  # the peak, because on a CPU the process keeps memory
        yield size


def _fits(trainer: Trainer, module: Task, count: int) -> bool:
    # A compiled net would be recompiled for each batch size; uncompiled, it takes a little more memory.
    compiled = "torch._dynamo" in sys.modules
    try:
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            step(trainer, module, count)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        return False
    return True


def step(trainer: Trainer, module: Task, count: int) -> None:
    """Take one step with `count` black images: forward, and in training backward."""
    size = data_of(trainer).image_size
    images = torch.zeros(count, size, size, 3, dtype=torch.uint8, device=module.device)
    if trainer.state.fn != "fit":
        with torch.no_grad(), trainer.precision_plugin.test_step_context():
            module(images)
        return
    module.train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # What the optimizer will hold after its first step: two averages for AdamW.
    ahead = 0 if any(optimizer.state for optimizer in trainer.optimizers) else 2
    reserve = [torch.empty_like(parameter) for parameter in parameters for _ in range(ahead)]
    drawn, module.image_sizes = module.image_sizes, module.image_sizes and [max(module.image_sizes)]
    try:
        with trainer.precision_plugin.train_step_context():
            loss = module.training_step((images, torch.zeros(count, dtype=torch.int64, device=module.device)), 0)
    finally:
        module.image_sizes = drawn
    # Unlike backward(), this does not run the hooks of DDP, which would wait for the other processes.
    torch.autograd.grad(loss, parameters, allow_unused=True)
    del reserve


def _ways(batch_size: int, processes: int, accumulated: int, fitting: int) -> str:
    """Return what to type so that a process takes at most `fitting` images at a time."""
    smaller = f"data.batch_size={fitting * processes * accumulated}"
    for more in range(accumulated + 1, batch_size // processes + 1):
        at_once, rest = divmod(batch_size, more * processes)
        if not rest and at_once <= fitting:
            if at_once > fitting // 2:  # otherwise no divisor of the batch would use the device well
                same = f"processes {at_once:,} at a time for the same optimizer step"
                return f"trainer.accumulate_grad_batches={more} {same}, or {smaller}"
            break
    return f"{smaller} would fit"


def _less(trainer: Trainer, data: ImageDataModule, device: torch.device) -> str:
    """Return other ways to use less memory."""
    ways = ["use a smaller model or data.image_size"]
    if device.type != "cpu" and data.resident != "memory":
        ways.append("data.resident=memory, which keeps the data set off the device")
    if device.type == "cuda" and trainer.precision == "32-true":
        ways.append("trainer.precision=bf16-mixed")
    return ", or ".join(ways)


def _used(device: torch.device) -> str:
    """Return how much of the memory is in use, in parentheses; "" if unknown."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    foreign = f", {others / 1e9:.0f} GB of it by other processes" if others > total / 10 else ""
    return f" ({(total - free) / 1e9:.0f} of {total / 1e9:.0f} GB in use{foreign})"


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:  # glibc keeps freed memory, and only glibc has this function
        with suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def spare_bytes(unused: int = 0) -> float | None:
    """Return the bytes that this process may still use, three quarters of what is left; None if unknown.

    unused: bytes that are mapped but will never be used.
    """
    group = Path("/sys/fs/cgroup")  # the limits of a container, version 2
    try:
        import resource

        machine = next(line for line in Path("/proc/meminfo").read_bytes().splitlines() if b"MemAvailable" in line)
        left = [int(machine.split()[1]) * 1024]
        if (group / "memory.max").exists() and (most := (group / "memory.max").read_bytes().strip()) != b"max":
            left.append(int(most) - int((group / "memory.current").read_bytes()))
        if (address_space := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
            left.append(address_space - unused - _bytes(_RESIDENT))
        return 0.75 * min(left)
    except (ImportError, OSError, StopIteration):
        return None


def _bytes(column: int) -> int:
    """Return a column of /proc/self/statm in bytes; 0 on systems other than Linux."""
    statm = Path("/proc/self/statm")
    return int(statm.read_bytes().split()[column]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0

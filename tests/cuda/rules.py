"""What code on CUDA must not do, as far as it can be seen from the operations of tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

aten = torch.ops.aten

# Code that may wait for the device in a step.
ALLOWED_READS = {
    "torch/amp/grad_scaler.py": "float16: whether gradients are finite decides whether a step is taken",
    "vitexp/training/checkpoints.py": "a checkpoint between two steps copies all weights",
}
# Code that may multiply in another dtype than autocast.
ALLOWED_DTYPES = {
    "vitexp/data/augment/": "augmentation computes in float32",
    "vitexp/training/muon.py": "Muon orthogonalizes in bfloat16",
}
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward}
COPIES = {aten._to_copy, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# Not tagged as pointwise, but these also take a CPU tensor without dimensions.
TAKES_CPU_SCALARS = {aten.fill_, aten.masked_fill_, aten.masked_fill}


class MixedDevices(RuntimeError):
    """An operation got tensors of the CPU and of the device."""


class ReadBack(RuntimeError):
    """A step waited for the device."""


class WrongDtype(RuntimeError):
    """A step computed or kept something in a dtype that mixed precision does not intend."""


def check_devices(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise MixedDevices for tensors of the CPU and of the device that CUDA does not take together.

    An operation on single elements accepts a CPU tensor without dimensions, and indexing accepts indices on the CPU.
    """
    packet = func.overloadpacket
    on_cpu = [tensor for tensor in tensors if not tensor.is_cuda]
    if packet in COPIES or not on_cpu or len(on_cpu) == len(tensors):
        return
    if packet in INDEXING and args[0].is_cuda:
        on_cpu = [tensor for tensor in on_cpu if not any(tensor is index for index in args[1])]
    takes_scalars = torch.Tag.pointwise in func.tags or packet in TAKES_CPU_SCALARS
    is_written = func._schema.is_mutable and not getattr(args[0], "is_cuda", True)
    if is_written or any(tensor.ndim or not takes_scalars for tensor in on_cpu):
        raise MixedDevices(f"{func} got tensors of the CPU and of the device")


def check_step(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], *, target: str, dtype: torch.dtype) -> None:
    """Raise ReadBack or WrongDtype if a step may not do this.

    target: the kind of device of the result. dtype: that of products.
    """
    packet = func.overloadpacket
    if packet in INDEXING:
        given = [index for index in args[1] if index is not None]
        reads = any(index.dtype in (torch.bool, torch.uint8) or not index.is_cuda for index in given)
    elif packet in COPIES:
        is_between_devices = len({target, *(tensor.device.type for tensor in tensors)}) > 1
        reads = is_between_devices and not kwargs.get("non_blocking", len(args) > 2 and args[2])
    else:
        reads = bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))
    if reads and not _comes_from(ALLOWED_READS):
        raise ReadBack(f"{func} in a step waits for the device")
    if packet in PRODUCTS and {tensor.dtype for tensor in tensors} != {dtype} and not _comes_from(ALLOWED_DTYPES):
        raise WrongDtype(f"{func} in a step got {[tensor.dtype for tensor in tensors]} instead of {dtype}")


def check_kept(trainer: Trainer, loss: Tensor) -> None:
    """Raise WrongDtype or MixedDevices if the loss or what training keeps is not float32 or not on the device."""
    kept: dict[str, Tensor] = {"the loss": loss, **dict(trainer.lightning_module.named_parameters())}
    for number, state in enumerate(trainer.optimizers[0].state.values()):
        kept |= {f"{key} of state {number}": value for key, value in state.items() if isinstance(value, Tensor)}
    for name, tensor in kept.items():
        if tensor.dtype != torch.float32:
            raise WrongDtype(f"{name} is {tensor.dtype}")
        if tensor.ndim and not tensor.is_cuda:
            raise MixedDevices(f"{name} is on the CPU")


def _comes_from(files: Mapping[str, str]) -> bool:
    """Return whether one of these files is being executed."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if any(file in frame.f_code.co_filename for file in files):
            return True
        frame = frame.f_back
    return False

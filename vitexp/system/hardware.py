"""What the machine can do, and what a network costs on it."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitexp.errors import ConfigError
from vitexp.text import plural


def choose_device(accelerator: str, *, key: str = "trainer.accelerator") -> torch.device:
    """Return the device that Lightning uses for `accelerator`; "gpu" is CUDA, or MPS on a Mac.

    Raises ConfigError, naming `key`, if it is missing.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if accelerator == "auto" or (accelerator == "gpu" and found != "cpu"):
        return torch.device(found)
    if not available.get(accelerator, False):
        raise ConfigError(f"{key}={accelerator}, but torch finds no such device; use {key}=cpu.")
    return torch.device(accelerator)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return Lightning's name for `precision`; "auto" is bf16-mixed if `device` computes in bf16, otherwise 32-true."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_computes_bf16()
    return "bf16-mixed" if fast else "32-true"


@contextmanager
def float32_matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Within the block, multiply float32 matrices on CUDA with this precision: highest, high (TF32) or medium (bf16).

    Other devices are left alone: torch would also round on some CPUs, which would not be repeatable.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _cpu_computes_bf16() -> bool:
    """Return whether the processor multiplies in bf16 (AMX, AVX512-BF16); torch has no public function for it yet."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return " amx_bf16" in flags or " avx512_bf16" in flags


def resolve_compile(choice: Literal["auto", "on", "off"] | bool, device: torch.device) -> bool:
    """Return whether to compile; "auto": on CUDA only, because on a CPU it gains little and costs a minute."""
    return device.type == "cuda" if choice == "auto" else choice in ("on", True)


def describe_device(device: torch.device) -> str:
    """Return the name of the device, as users know it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_cpu_name()}, {plural(torch.get_num_threads(), 'thread')}"
    return device.type


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def flops_per_image(net: nn.Module, image_size: int) -> int:
    """Return the floating-point operations of one forward pass; a multiply-add counts as two."""
    training = net.training
    net.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, image_size, image_size))
    net.train(training)
    return int(counter.get_total_flops())


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed tensors instead of returning it to the system page by page.

    A training step on a CPU frees and allocates hundreds of megabytes, which otherwise causes tens of thousands of page
    faults. Does nothing without glibc.
    """
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # mallopt(3)
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)  # never
        mallopt(top_pad, 64 << 20)

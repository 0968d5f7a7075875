"""The bare training step: what a net costs by itself."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from vitexp.bench.report import Row, Subject, paired_ratio
from vitexp.errors import ConfigError
from vitexp.runs.build import build, build_net
from vitexp.system.hardware import choose_device, flops_per_image, resolve_compile, resolve_precision
from vitexp.system.timing import finished, time_in_turns
from vitexp.text import duration, format_value
from vitexp.training.parameter_groups import parameter_groups

CLASSES = 43
# dtype of autocast and of the parameters
PRECISIONS = {
    "32-true": (None, torch.float32),
    "32": (None, torch.float32),
    "bf16-mixed": (torch.bfloat16, torch.float32),
    "bf16": (torch.bfloat16, torch.float32),
    "bf16-true": (None, torch.bfloat16),
}


class TrainStep:
    """Forward pass, cross-entropy, backward pass, clipping and optimizer step, on random images on the device.

    optimizer: creates a torch optimizer from parameter groups. precision: as Lightning names it. clip: maximum gradient
    norm; None: no clipping. Raises ConfigError for a precision that is not in PRECISIONS.
    """

    def __init__(
        self,
        *,
        net: nn.Module,
        optimizer: Callable[[Any], Optimizer],
        precision: str,
        batch_size: int,
        image_size: int,
        clip: float | None,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"trainer.precision={precision} cannot be benchmarked; use {', '.join(PRECISIONS)}.")
        self.autocast_dtype, dtype = PRECISIONS[precision]
        self.device, self.clip = device, clip
        self.net = net.to(device, dtype).train()
        self.optimizer = optimizer(parameter_groups(self.net))
        images = torch.randn(batch_size, 3, image_size, image_size, device=device, dtype=dtype)
        self.images = images.contiguous(memory_format=torch.channels_last)  # as in training
        self.labels = torch.randint(CLASSES, (batch_size,), device=device)
        if compiled:
            self.net.compile()

    def __call__(self) -> int:
        """Run one step; return the number of images."""
        torch.autograd.backward(self._forward())
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return len(self.labels)

    def _forward(self) -> torch.Tensor:
        autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.autocast_dtype is not None:
            autocast = torch.autocast(self.device.type, self.autocast_dtype)
        with autocast:
            logits = self.net(self.images)
        return F.cross_entropy(logits.float(), self.labels)

    def block(self) -> int:
        """Run one turn: several steps on CUDA, where synchronization would dominate a single one."""
        return sum(self() for _ in range(20 if self.device.type == "cuda" else 1))

    def warm_up(self) -> float:
        """Run the first steps; return how many seconds they took, including compilation."""
        start = finished(self.device)
        for _ in range(3):
            self()
        return finished(self.device) - start

    def activation_bytes(self) -> int:
        """Return the bytes that autograd saves for the backward pass; each storage counts once.

        Includes the batch and copies of the weights in half precision, but not the parameters.
        """
        parameters = {parameter.untyped_storage().data_ptr() for parameter in self.net.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self._forward()
        total = sum(kept.values())
        torch.autograd.backward(loss)
        self.optimizer.zero_grad()
        return total

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of the model with its buffers, of the gradients and of the optimizer state, after a step."""
        parameters = sum(parameter.nbytes for parameter in self.net.parameters())
        state = (value for values in self.optimizer.state.values() for value in values.values())
        return {
            "model": parameters + sum(buffer.nbytes for buffer in self.net.buffers()),
            "gradients": sum(parameter.nbytes for parameter in self.net.parameters() if parameter.requires_grad),
            "optimizer": sum(value.nbytes for value in state if isinstance(value, torch.Tensor)),
        }


def train_step(config: DictConfig, net: nn.Module, *, compiled: bool = False) -> TrainStep:
    """Return a TrainStep for `net` with the settings of `config`."""
    device = choose_device(config.trainer.accelerator)
    return TrainStep(
        net=net,
        optimizer=build(config.optim, _partial_=True),
        precision=str(resolve_precision(config.trainer.precision, device)),
        batch_size=config.data.batch_size,
        image_size=config.data.image_size,
        clip=config.trainer.gradient_clip_val,
        device=device,
        compiled=compiled,
    )


def measure_step(config: DictConfig) -> Subject:
    """Measure our step (also compiled, if training would compile it) and, with `peers`, the steps of the peers."""
    device = choose_device(config.trainer.accelerator)
    nets = {"vitexp": build_net(config, num_classes=CLASSES)}
    flops = 3 * flops_per_image(nets["vitexp"], config.data.image_size) * config.data.batch_size
    if config.peers:
        from vitexp.bench.peers import peer_nets

        nets |= peer_nets(config, num_classes=CLASSES)
    compiled = resolve_compile(config.trainer.compile, device)
    steps: dict[str, TrainStep] = {}
    details: dict[str, dict[str, float]] = {}
    for name, net in nets.items():
        for title in (name, f"{name}, compiled") if compiled else (name,):
            steps[title], details[title] = _warm(config, net, device, compiled=title != name)
    speeds = time_in_turns({name: step.block for name, step in steps.items()}, repeats=config.repeats, device=device)

    ours = "vitexp, compiled" if compiled else "vitexp"
    rows = [
        Row(name=name, rounds=each, compared=paired_ratio(speeds[ours], each), details=details[name])
        for name, each in speeds.items()
    ]
    seconds = config.data.batch_size / next(row for row in rows if row.name == ours).quartiles[1]
    matmul = _matmul_rate(device, str(resolve_precision(config.trainer.precision, device)))
    facts = {
        "flops_per_step": float(flops),
        "achieved_flops_per_s": flops / seconds,
        "matmul_flops_per_s": matmul,
        "share_of_matmul_rate": flops / seconds / matmul,
    }
    return Subject(
        title=f"Bare training step: {config.model.name}, batch {config.data.batch_size}",
        unit="images/s",
        comparison="ratio",
        comparison_title=f"{ours} / this",
        rows=rows,
        facts=facts,
        lines=[
            f"{ours}: {flops / 1e9:,.1f} GFLOP per step; {flops / seconds / 1e12:.3f} TFLOP/s, "
            f"{facts['share_of_matmul_rate']:.1%} of the {matmul / 1e12:.3f} TFLOP/s of a large matrix product",
            *(f"{name}: {_describe(each)}" for name, each in details.items()),
        ],
    )


def _warm(
    config: DictConfig, net: nn.Module, device: torch.device, *, compiled: bool
) -> tuple[TrainStep, dict[str, float]]:
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    step = train_step(config, net, compiled=compiled)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    details = {"warm_up_s": step.warm_up()}
    if cuda:
        details["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device) - before
    if not compiled:
        details["activation_bytes"] = step.activation_bytes()
    return step, details


def _describe(details: dict[str, float]) -> str:
    parts = [f"warm-up {duration(details['warm_up_s'])}"]
    for key, what in (("activation_bytes", "kept for the backward pass"), ("peak_memory_bytes", "peak memory")):
        if key in details:
            parts.append(f"{format_value(details[key] / 2**20)} MiB {what}")
    return ", ".join(parts)


def _matmul_rate(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of a large square matrix product in the precision of the step, the best of several."""
    autocast_dtype, dtype = PRECISIONS[precision]
    size = 8192 if device.type == "cuda" else 2048
    factors = [torch.randn(size, size, device=device, dtype=autocast_dtype or dtype) for _ in range(2)]
    fastest = math.inf
    for _ in range(8):
        start = finished(device)
        factors[0] @ factors[1]
        fastest = min(fastest, finished(device) - start)
    return 2 * size**3 / fastest

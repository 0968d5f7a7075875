"""The Muon optimizer for the hidden matrices of a net, with AdamW for everything else, as one optimizer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from vitexp.options import Doc, Field, Rate

# Coefficients of a quintic iteration that brings singular values into about [0.7, 1.2] (Jordan et al. 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class Muon(Optimizer):
    """Momentum with the update of each matrix replaced by the nearest orthogonal matrix (Jordan et al. 2024).

    params: groups of named parameters, see parameter_groups. Hidden matrices are the two-dimensional weights in
    `blocks` and between stages; a fused query-key-value weight is treated as three, a key-value weight as two. AdamW
    (`betas`, `eps`, `fused`) trains everything else (stem, head, tokens, tables of biases, vectors, convolutions). Both
    decay weights by lr * weight_decay per step.

    Unlike torch.optim.Muon, matrices of the same shape are orthogonalized together.
    Raises ValueError for a net without hidden matrices.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: Annotated[float, Field(gt=0, le=1e4), Doc("peak learning rate, for the given batch size")] = 1e-3,
        weight_decay: Annotated[
            float, Field(ge=0, le=1e4), Doc("each step shrinks the weights by lr times this")
        ] = 0.05,
        momentum: Annotated[Rate, Doc("momentum of the matrices")] = 0.95,
        nesterov: Annotated[bool, Doc("use Nesterov momentum")] = True,
        update_rms: Annotated[
            float,
            Field(gt=0, le=1000),
            Doc("root mean square of a matrix's update, in multiples of lr; AdamW's is about 0.2 (Liu 2025, sec. 2.2)"),
        ] = 0.2,
        betas: Annotated[tuple[Rate, Rate], Doc("betas of AdamW")] = (0.9, 0.999),
        eps: Annotated[float, Field(gt=0, le=1), Doc("eps of AdamW")] = 1e-8,
        fused: Annotated[bool | None, Doc("run each step of AdamW as one kernel")] = True,
    ) -> None:
        hidden: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for group in params:
            named = list(group["params"])
            for part, groups in ((True, hidden), (False, others)):
                if kept := [each for each in named if _is_hidden(*each) is part]:
                    groups.append({**group, "params": kept, "hidden": part})
        if not hidden:
            raise ValueError(
                "this model has no weight matrices in `blocks` for Muon to train; use optim=adamw or optim=sgd."
            )
        self.momentum, self.nesterov, self.update_rms = momentum, nesterov, update_rms
        super().__init__([*hidden, *others], {"lr": lr, "weight_decay": weight_decay})
        self._adamw = AdamW(
            [group for group in self.param_groups if not group["hidden"]], betas=betas, eps=eps, fused=fused
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run one step of Muon and AdamW. closure: computes the loss and its gradients; the loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for matrices in self._by_shape():
            self._step_matrices(*zip(*matrices, strict=True))
        # Loading a checkpoint replaces the groups and the state that AdamW holds.
        self._adamw.param_groups = [group for group in self.param_groups if not group["hidden"]]
        self._adamw.state = self.state
        self._adamw.step()
        return loss

    def _by_shape(self) -> Iterator[list[tuple[Tensor, Tensor, Tensor, dict[str, Any]]]]:
        """Yield (matrix, gradient, momentum, group) of all matrices with gradients, one list per shape."""
        found = defaultdict(list)
        for group in self.param_groups:
            if not group["hidden"]:
                continue
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                parts = {"qkv": 3, "kv": 2}.get(name.split(".")[-2], 1)
                split = (each.chunk(parts) for each in (parameter, parameter.grad, state["momentum_buffer"]))
                for matrix, gradient, buffer in zip(*split, strict=True):
                    found[matrix.shape].append((matrix, gradient, buffer, group))
        return iter(found.values())

    def _step_matrices(
        self,
        matrices: tuple[Tensor, ...],
        gradients: tuple[Tensor, ...],
        buffers: tuple[Tensor, ...],
        groups: tuple[dict[str, Any], ...],
    ) -> None:
        """Update matrices of one shape, each [rows, columns]."""
        torch._foreach_lerp_(buffers, gradients, 1 - self.momentum)
        updates = torch._foreach_lerp(gradients, buffers, self.momentum) if self.nesterov else buffers
        orthogonal = orthogonalized(torch.stack(tuple(updates))).to(matrices[0].dtype)
        # The root mean square of an orthogonal matrix is 1 / sqrt(longer side).
        scale = self.update_rms * math.sqrt(max(matrices[0].shape))
        torch._foreach_mul_(matrices, [1 - group["lr"] * group["weight_decay"] for group in groups])
        torch._foreach_add_(
            matrices, torch._foreach_mul(orthogonal.unbind(), [-group["lr"] * scale for group in groups])
        )


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return the approximate orthogonal factors U V^T of matrices U S V^T, [N, rows, columns], in bfloat16.

    A Newton-Schulz iteration brings the singular values near 1, which is close enough (Jordan et al. 2024).
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16()
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # singular values of at most 1
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _is_hidden(name: str, parameter: Tensor) -> bool:
    inside = {"blocks", "downsample"} & set(name.split("."))
    return parameter.ndim == 2 and bool(inside) and not name.endswith("_table")

"""Lion, the optimizer that a search over programs found (Chen et al. 2023, "Symbolic discovery of optimization")."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Steps by the sign of an average of the gradients: every weight moves by lr (algorithm 2 of the paper).

    betas: weight of the momentum in the step, and of its own past in the momentum. Weights decay by lr * weight_decay
    a step. The paper advises an lr 3 to 10 times smaller than AdamW's, and a weight_decay as many times larger.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, weight_decay: float, betas: tuple[float, float]) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. closure: computes the loss, with its gradients, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            momenta = [self.state[parameter]["momentum"] for parameter in parameters]
            in_step, in_momentum = group["betas"]
            directions = torch._foreach_lerp(momenta, gradients, 1 - in_step)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - in_momentum)
        return loss

"""The Lion optimizer (Chen et al. 2023, "Symbolic discovery of optimization algorithms")."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from torch.optim import Optimizer

from vitexp.options import Doc, Field, Rate


class Lion(Optimizer):
    """Steps of size lr in the direction of the sign of an average of the gradients (algorithm 2 of the paper).

    Weights decay by lr * weight_decay per step. The paper recommends an lr 3 to 10 times smaller than AdamW's, and a
    weight_decay larger by the same factor.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: Annotated[float, Field(gt=0, le=1e4), Doc("peak learning rate, for the given batch size")] = 2e-4,
        weight_decay: Annotated[
            float, Field(ge=0, le=1e4), Doc("each step shrinks the weights by lr times this")
        ] = 0.25,
        betas: Annotated[
            tuple[Rate, Rate], Doc("weight of the momentum in the step, and of the old momentum in the new one")
        ] = (0.9, 0.99),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. closure: computes the loss and its gradients; the loss is returned."""
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

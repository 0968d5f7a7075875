"""Lion against the algorithm in the paper."""

from __future__ import annotations

import copy

import torch
from torch import nn

from vitexp.training.lion import Lion

LR, DECAY, BETA1, BETA2 = 0.01, 0.1, 0.9, 0.99


def gradient(step: int, parameter: torch.Tensor) -> torch.Tensor:
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step), dtype=parameter.dtype)


def test_it_follows_the_algorithm_of_the_paper() -> None:
    """Algorithm 2: c = b1 m + (1 - b1) g; w -= lr (sign(c) + decay w); m = b2 m + (1 - b2) g."""
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((4, 3), (5,))]
    wanted = [parameter.detach().clone() for parameter in parameters]
    momenta = [torch.zeros_like(parameter) for parameter in wanted]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.0}]
    lion = Lion(groups, lr=LR, weight_decay=DECAY, betas=(BETA1, BETA2))
    for step in range(20):
        for index, parameter in enumerate(parameters):
            parameter.grad = g = gradient(step, parameter)
            c = BETA1 * momenta[index] + (1 - BETA1) * g
            decay = DECAY if index == 0 else 0.0
            wanted[index] = wanted[index] - LR * (c.sign() + decay * wanted[index])
            momenta[index] = BETA2 * momenta[index] + (1 - BETA2) * g
        lion.step()
    torch.testing.assert_close([each.detach() for each in parameters], wanted)


def test_it_resumes_from_its_state_and_skips_parameters_without_gradients() -> None:
    def trained(stop: int | None) -> torch.Tensor:
        torch.manual_seed(0)
        used, unused = nn.Parameter(torch.randn(6)), nn.Parameter(torch.ones(2))
        lion = Lion([used, unused], lr=LR, weight_decay=DECAY, betas=(BETA1, BETA2))
        for step in range(6):
            if step == stop:
                state = copy.deepcopy(lion.state_dict())
                lion = Lion([used, unused], lr=LR, weight_decay=DECAY, betas=(BETA1, BETA2))
                lion.load_state_dict(state)
            used.grad = gradient(step, used)
            lion.step()
        assert torch.equal(unused, torch.ones(2))
        return used.detach()

    assert torch.equal(trained(None), trained(3))

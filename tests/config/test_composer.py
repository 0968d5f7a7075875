"""Many configurations are composed as Hydra would compose each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vitexp.config import compose as composing
from vitexp.config.compose import Composer, compose, plain_of
from vitexp.errors import ConfigError
from vitexp.sweeps.grid import plan

CASES = [
    ["data.image_size=64", "model.depth=3", "seed=2"],  # other keys refer to data.image_size
    ["model=vit_small", "optim.lr=1e-3", "+callbacks.mine={_target_: a.B, c: 1}", "callbacks.mine.c=2"],
    ["~callbacks.curves", "callbacks.samples.right=3", "optim.betas=[0.8,0.9]"],
    ["data=folder", "data.root='a b'", "name=x", "trainer.max_epochs=2"],
    ["optim.lr=${training.temperature}", "training.temperature=2"],
    ["loss=focal", "loss.gamma=1", "model.name=other"],
    ["data.prepare.0.height=31", "data.batch_size=7", "optim=sgd", "optim.momentum=0.5"],
    ["experiment=gtsrb_best", "data.root=x", "model.dim=48", "++optim.lr=3"],
    ["training.image_sizes=[16,32]", "training.teacher=null", "checkpoint.monitor=val/loss"],
    ["model.dim=16", "model.dim=24"],
]


def test_every_kind_of_override() -> None:
    composer = Composer()
    for overrides in CASES:
        assert composer.compose(overrides) == plain_of(compose(overrides)), overrides


@pytest.mark.parametrize("override", ["optim.lrr=1", "optim=none", "+optim.lr=1", "name=[", "optim.lr=${none.such}"])
def test_errors_are_the_same(override: str) -> None:
    sentences = []
    for composed in (lambda words: plain_of(compose(words)), Composer().compose):
        with pytest.raises(ConfigError) as error:
            composed([override, "seed=1"])
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]


def test_a_grid_of_values_is_composed_once_per_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra needs 0.1 s for each composition: a grid of 2,000 trials took minutes."""
    calls: list[Sequence[str]] = []

    def counted(overrides: Sequence[str], **options: Any) -> Any:
        calls.append(overrides)
        return compose(overrides, **options)

    monkeypatch.setattr(composing, "compose", counted)
    arguments = ["model=vit_tiny,vit_small", "optim.lr=1e-4,2e-4,3e-4", "model.depth=range(1,5)", "seed=range(3)"]
    assert len(plan(Path("/nowhere/s"), ablation=None, arguments=arguments).trials) == 72
    assert len(calls) == 2

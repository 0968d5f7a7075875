"""Training on CUDA, rehearsed without a GPU: whole runs with every model, optimizer, augmentation, task and precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda.runs import options, rehearse

GROUPS = {group: options(group) for group in ("model", "optim", "augment", "loss", "schedule")}
RUNS = max(map(len, GROUPS.values()))


@pytest.mark.parametrize("number", range(RUNS))
def test_every_option_of_every_group(tmp_path: Path, number: int) -> None:
    """Each run takes the next option of every group, so that all occur."""
    chosen = {group: names[number % len(names)] for group, names in GROUPS.items()}
    model = chosen.pop("model")
    _, gpu = rehearse(tmp_path, *(f"{group}={name}" for group, name in chosen.items()), model=model)
    assert gpu.steps == 4

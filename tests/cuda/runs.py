"""Whole runs on the device that needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONF, composed, result
from tests.cuda.device import NAME, FakeGPU, fake_gpu
from vitexp.runs.run import run

SMALL = (
    *("data.train_per_class=2", "data.test_per_class=1", "data.val_fraction=0.5", "data.image_size=16"),
    *("data.batch_size=8", "data.num_workers=0", "logger=csv", "trainer=gpu", "trainer.compile=off"),
    *("trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1"),
    *("trainer.limit_test_batches=2", "trainer.enable_progress_bar=false"),
)
TINY_TIMM = (
    "model.timm_name=vit_tiny_patch16_224",
    "model.timm_kwargs={patch_size:8,embed_dim:12,depth:2,num_heads:2}",
)
TINY_VIT = ("model.dim=12", "model.depth=2", "model.num_heads=2", "model.patch_size=8")


def options(group: str) -> list[str]:
    """Return the names of all options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def slow(*values: Any) -> Any:
    """Return the values of a case that only `pytest -m slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def of_model(name: str) -> tuple[str, ...]:
    """Return the overrides that select a model, and make it tiny if it is a ViT or timm's."""
    tiny = TINY_VIT if name.startswith("vit") else TINY_TIMM if name == "timm" else ()
    return (f"model={name}", *tiny)


def rehearse(folder: Path, *overrides: str, model: str = "vit_tiny", figures: bool = False) -> tuple[Path, FakeGPU]:
    """Run a tiny training on the device to its end; return the run folder and what happened on the device."""
    config = composed(
        *SMALL, *([] if figures else ["callbacks=none"]), *of_model(model), f"log_dir={folder}", *overrides
    )
    with fake_gpu() as gpu:
        made = run(config, overrides=[])
    assert result(made)["status"] == "completed"
    assert result(made)["environment"]["device"] == NAME
    return made, gpu

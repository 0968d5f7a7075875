"""What all tests share: configurations composed as train.py does, and a tiny run."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

os.environ.setdefault("WANDB_MODE", "offline")
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # see vitexp/sweeps/engines/ray_engine.py; read when ray is imported
# Read when torch is imported. The nets are tiny: more threads would cost time, not save it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, nohup its command with SIGHUP; child processes would inherit that.
for ignored, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, usual)

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

CONF = Path(__file__).parents[1] / "conf"

# A network and a data set so small that a run takes seconds.
TINY = (
    "data.train_per_class=4",
    "data.test_per_class=2",
    "data.val_fraction=0.25",
    "data.batch_size=32",
    "data.num_workers=0",
    "checkpoint.monitor=auto",
    "model=vit_tiny",
    "model.dim=16",
    "model.depth=2",
    "model.num_heads=2",
    "model.patch_size=8",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache prepared images in a folder of the session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITEXP_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _signals_are_left_alone() -> Iterator[None]:
    """Fail a test after which another function would handle a signal, in whatever runs next in this process."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    after = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def composed(*overrides: str) -> DictConfig:
    """Return the configuration of `python train.py *overrides`, without Hydra's own node."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def tiny_run(folder: Path, *overrides: str) -> Path:
    """Run a tiny training with `overrides`; return its run folder."""
    from vitexp.runs.run import run

    before = set(folder.glob("*/*"))
    run(composed(*TINY, "logger=csv", f"log_dir={folder}", *overrides))
    [made] = set(folder.glob("*/*")) - before
    return made


def command(folder: Path, *overrides: str) -> list[str]:
    """Return the command that does the same in a separate process."""
    script = str(CONF.parent / "train.py")
    return [sys.executable, script, *TINY, "logger=csv", f"log_dir={folder}", *overrides]


def result(folder: Path) -> dict[str, Any]:
    """Return the content of result.json in a run folder."""
    return dict(json.loads((folder / "result.json").read_text()))

"""Tiny runs for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, composed, tiny_run
from vitexp.runs.run import run

FEW = ("callbacks=none", "trainer.limit_train_batches=1")


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def vit_run(logs: Path) -> Path:
    return tiny_run(logs, *FEW)


@pytest.fixture(scope="session")
def cnn_run(logs: Path) -> Path:
    before = set(logs.glob("*/*"))
    few = [each for each in TINY if not each.startswith("model")]
    run(composed(*few, *FEW, "model=simple_cnn", "logger=csv", f"log_dir={logs}"))
    [made] = set(logs.glob("*/*")) - before
    return made

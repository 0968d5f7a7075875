"""Runs that the rehearsals of this folder start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import composed
from tests.cuda.runs import SMALL, of_model
from vitexp.runs.run import run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT that was trained on the CPU."""
    folder = tmp_path_factory.mktemp("finished")
    few = ("trainer=cpu", "trainer.precision=bf16-mixed", "callbacks=none", f"log_dir={folder}")
    return run(composed(*SMALL, *of_model("vit_tiny"), *few), overrides=[])

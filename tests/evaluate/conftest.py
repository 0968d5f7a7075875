"""A tiny run for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import tiny_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic signs, two epochs: better than chance."""
    return tiny_run(
        tmp_path_factory.mktemp("finished"), "callbacks=none", "trainer.max_epochs=2", "model.patch_size=16"
    )

"""Whether another run was trained on the validation images of this one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import composed
from vitexp.errors import ConfigError
from vitexp.runs.leaks import refuse_other_split


def test_another_seed_is_allowed_if_the_data_set_has_validation_images_of_its_own(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name / "x.png")
    mine, theirs = (composed("data=folder", f"data.root={tmp_path}", f"seed={seed}") for seed in (0, 1))
    refuse_other_split(mine, theirs, key="training.teacher=RUN")
    (tmp_path / "val").rename(tmp_path.parent / f"{tmp_path.name}-val")
    with pytest.raises(ConfigError, match="was trained with seed=1, and therefore on validation images of this run"):
        refuse_other_split(mine, theirs, key="training.teacher=RUN")

"""Whether another run was trained on the validation images of this one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import composed
from vitexp.errors import ConfigError
from vitexp.runs.data_config import data_config
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


@pytest.mark.parametrize(
    ("mine", "theirs", "sentence"),
    [
        ("data.folds=5 data.fold=1", "data.folds=5 data.fold=0", "trained with data.fold=0, .* which has data.fold=1"),
        ("data.folds=5", "data.folds=4", "trained with data.folds=4, .* which has data.folds=5"),
        ("data.folds=5", "seed=0", "trained with data.folds=null, .* which has data.folds=5"),
        ("seed=0", "data.folds=5", "trained with data.folds=5, .* which has data.folds=null"),
    ],
)
def test_another_fold_contains_validation_images(mine: str, theirs: str, sentence: str) -> None:
    ours, other = composed(*mine.split()), composed(*theirs.split())
    refuse_other_split(ours, ours, key="training.teacher=RUN")
    with pytest.raises(ConfigError, match=sentence):
        refuse_other_split(ours, other, key="training.teacher=RUN")


@pytest.mark.parametrize("chosen", [["data=signs"], ["data.draw_seed=1"]])
def test_a_run_keeps_its_fold_when_its_data_are_named_again(chosen: list[str]) -> None:
    """Otherwise validation images, which fit the temperature of an evaluation, would be images it was trained on."""
    data = data_config(composed("data.folds=5", "data.fold=2"), chosen, image_size=32).data
    assert (data.folds, data.fold) == (5, 2)

"""Cross-checks of a configuration: one sentence that says what is wrong and what would be right."""

from __future__ import annotations

import pytest

from tests.conftest import composed
from vitexp.checks import check
from vitexp.errors import ConfigError


def test_the_defaults_stand() -> None:
    check(composed())


@pytest.mark.parametrize(
    ("override", "wrong", "right"),
    [
        ("model.patch_size=5", "does not divide data.image_size=32", "2, 4, 8 or 16"),
        ("model.num_heads=5", "does not divide model.dim=192", "1, 2, 3, 4, 6, 8, 12 or 16"),
        ("model.depth=0", "model.depth=0", "1 or more"),
        ("model.drop_path=1.0", "model.drop_path=1.0", "below 1"),
        ("data.val_fraction=0", "data.val_fraction=0", "between 0 and 1"),
        ("data.val_fraction=1", "data.val_fraction=1", "between 0 and 1"),
        ("data.batch_size=-4", "data.batch_size=-4", "1 or more"),
        ("data.batch_size=many", "data.batch_size=many", "1 or more"),
        ("data.num_workers=-1", "data.num_workers=-1", "auto"),
        ("data.on_broken=explode", "data.on_broken=explode", "refuse or skip"),
        ("seed=-1", "seed=-1", "0 or more"),
        ("seed=x", "seed=x", "integer"),
        ("optim.lr=0", "optim.lr=0", "above 0"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1", "at least 0"),
        ("schedule.warmup_epochs=99", "schedule.warmup_epochs=99", "trainer.max_epochs"),
        ("schedule.min_lr=1", "schedule.min_lr=1", "optim.lr"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0", "1 or more"),
        ("trainer.compile=maybe", "trainer.compile=maybe", "auto, on or off"),
        ("trainer.accumulate_grad_batches=3", "shared out evenly", "multiple of 3"),
        ("training.label_smoothing=1", "training.label_smoothing=1", "below 1"),
        ("training.mixup_alpha=-0.1", "training.mixup_alpha=-0.1", "0 (off) or more"),
        ("training.mix_prob=2", "training.mix_prob=2", "between 0 and 1"),
        ("training.patience=0", "training.patience=0", "null"),
        ("checkpoint.mode=best", "checkpoint.mode=best", "max or min"),
        ("checkpoint.monitor=test/accuracy", "checkpoint.monitor=test/accuracy", "val/"),
        ("name=../elsewhere", "name=../elsewhere", "folder under log_dir"),
    ],
)
def test_says_what_is_wrong_and_what_would_be_right(override: str, wrong: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(override))
    sentence = str(caught.value)
    assert wrong in sentence
    assert right in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_a_set_on_disk_needs_its_folder() -> None:
    with pytest.raises(ConfigError, match=r"data\.root"):
        check(composed("data=folder"))


def test_seed_zero_is_a_seed() -> None:
    check(composed("seed=0"))

"""Configurations of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import composed
from vitexp.config import renames
from vitexp.config.check import check
from vitexp.config.components import component
from vitexp.config.renames import read_config, upgrade, upgrade_overrides
from vitexp.errors import ConfigError
from vitexp.runs import resume

CALLBACKS = (
    "AttentionMaps AugmentedBatch ConfusionMatrix EmbeddingMap Explanations LearningCurves PositionEmbedding "
    "Reconstructions SamplePredictions pruning.Pruning"
)
FORMER = [
    *(f"vitexp.callbacks.{name}" for name in CALLBACKS.split()),
    *(f"vitexp.data.augment.{name}Augment" for name in ("Albumentations", "Batch", "Natural", "Signs")),
    *("vitexp.data.cifar.CIFAR", "vitexp.data.folder.Folder", "vitexp.data.gtsrb.GTSRB", "vitexp.data.signs.Signs"),
    *(f"vitexp.loggers.{name}_logger" for name in ("csv", "tensorboard", "wandb")),
    *("vitexp.models.SimpleCNN", "vitexp.models.ViT", "vitexp.models.resnet18"),
    *("vitexp.training.lion.Lion", "vitexp.training.muon.Muon"),
    *(f"vitexp.training.schedule.{name}" for name in ("Constant", "CosineRestarts", "CosineWarmup")),
]


@pytest.mark.parametrize("target", FORMER)
def test_every_class_of_the_first_version_is_found(target: str) -> None:
    upgraded = upgrade(OmegaConf.create({"model": {}, "data": {}, "logger": {"any": {"_target_": target}}}))
    assert component(upgraded.logger.any._target_) is not None


def test_the_run_of_an_earlier_version_that_is_included_is_valid_and_could_be_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VITEXP_CACHE", raising=False)
    folder = Path(resume.__file__).parent / "shipped" / "gtsrb"
    stored: Any = OmegaConf.load(folder / "result.json")
    check(read_config(folder / "config.yaml"))
    as_then = ("checkpoint.monitor=val/loss", "checkpoint.mode=min")  # the experiment has changed since
    now = composed(*upgrade_overrides(stored.overrides), *as_then)
    assert resume.differences(folder, now) == []


def test_a_former_pretraining_is_a_task() -> None:
    former = {
        "model": {},
        "data": {},
        "pretrain": {"mask_ratio": 0.6},
        "training": {"label_smoothing": 0.2},
        "loss": {},
    }
    upgraded = upgrade(OmegaConf.create(former))
    assert upgraded.task.mask_ratio == 0.6
    assert upgraded.task._target_ == "vitexp.training.masked_autoencoding.MaskedAutoencoding"
    assert upgraded.loss.label_smoothing == 0.2
    assert upgrade_overrides(["pretrain=mae", "+pretrain.mask_ratio=0.6", "training.label_smoothing=0", "seed=1"]) == [
        *("task=mae", "+task.mask_ratio=0.6", "loss.label_smoothing=0", "seed=1")
    ]


def test_a_renamed_key_keeps_null_and_reaches_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "MOVED", {"a.b": "top", "a.c": "x.y.z"})
    monkeypatch.setattr(renames, "ARGUMENTS", {"mine.Net": {"width": "dim"}})
    net, renamed = {"_target_": "mine.Net", "width": 3}, {"_target_": "mine.Net", "dim": 3}
    upgraded = upgrade(OmegaConf.create({"a": {"b": None, "c": 2}, "model": net, "nets": [{"inner": net}]}))
    assert upgraded == {"a": {}, "top": None, "x": {"y": {"z": 2}}, "model": renamed, "nets": [{"inner": renamed}]}


def test_an_override_names_the_current_class() -> None:
    overrides = ["model._target_=vitexp.models.resnet18", "+callbacks.mine._target_=vitexp.callbacks.Norms"]
    assert upgrade_overrides([*overrides, "model._target_=mine.Net"]) == [
        "model._target_=vitexp.models.resnet.ResNet18",
        "+callbacks.mine._target_=vitexp.training.callbacks.Norms",
        "model._target_=mine.Net",
    ]


def test_what_is_no_configuration_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match="is not the configuration of a run: model must be a mapping"):
        read_config(tmp_path / "config.yaml")

"""Every option of every config group composes and builds what it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning import Trainer
from omegaconf import OmegaConf
from torch import nn

from tests.conftest import CONF, composed
from vitexp.config.check import check
from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.source import Source
from vitexp.errors import ConfigError
from vitexp.models import ViT
from vitexp.runs.build import build, build_datamodule, build_net
from vitexp.runs.record import config_hash
from vitexp.system.hardware import choose_device
from vitexp.training.parameter_groups import parameter_groups


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


PLACES = {"signs": (), "huggingface": ("data.path=somewhere",)}  # drawn signs have no folder


@pytest.mark.parametrize("option", options("data"))
def test_data(option: str) -> None:
    config = composed(f"data={option}", *PLACES.get(option, ("data.root=somewhere",)))
    check(config)
    assert config.data.name == option
    datamodule, _ = build_datamodule(config)
    assert isinstance(datamodule.source, Source)
    assert datamodule.transforms


@pytest.mark.parametrize("option", options("augment"))
def test_augment(option: str) -> None:
    made = build(composed(f"augment={option}").augment)
    assert isinstance(made, nn.Module | AlbumentationsAugment)


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, marks=pytest.mark.slow) if option in ("vit_base", "vit_gtsrb") else option
        for option in options("model")
    ],
)
def test_model(option: str) -> None:
    size = 224 if option == "vit_b16" else 32
    config = composed(f"model={option}", f"data.image_size={size}")
    check(config)
    assert config.model.name == config.model.get("timm_name", option)
    if option == "timm":
        pytest.importorskip("timm")
    if option != "vit_b16":  # 86 million parameters; its own test shrinks it
        assert isinstance(build_net(config, num_classes=7), nn.Module)


@pytest.mark.parametrize("option", options("optim"))
def test_optim(option: str) -> None:
    net = ViT(image_size=8, num_classes=2, dim=8, depth=1, num_heads=1)
    optimizer = build(composed(f"optim={option}").optim, _partial_=True)(parameter_groups(net))
    assert optimizer.defaults["lr"] > 0


@pytest.mark.parametrize("option", options("schedule"))
def test_schedule(option: str) -> None:
    schedule = build(composed(f"schedule={option}").schedule)
    assert schedule(0, total_steps=100, steps_per_epoch=10, peak_lr=1.0) == pytest.approx(0.1)


OURS = ("debug", "compile", "float32_matmul_precision")  # keys of trainer that lightning.Trainer does not have


@pytest.mark.parametrize("option", options("trainer"))
def test_trainer(option: str, tmp_path: Path) -> None:
    config = composed(f"trainer={option}", "trainer.precision=32-true")
    check(config)
    if option in ("gpu", "ddp"):
        try:
            choose_device(config.trainer.accelerator)
        except ConfigError as error:
            assert "trainer.accelerator=cpu" in str(error)  # noqa: PT017 - either outcome is right, depending on the machine
            return
    arguments = {key: value for key, value in config.trainer.items() if key not in (*OURS, "precision")}
    trainer = Trainer(**arguments, logger=False, default_root_dir=tmp_path)
    assert trainer.max_epochs == config.trainer.max_epochs


def test_trainer_lists_every_argument_of_lightning() -> None:
    import inspect

    ours = {"logger", "callbacks", "default_root_dir", "enable_autolog_hparams", "model_registry"}  # set by the run
    ours |= {"barebones", "limit_predict_batches", "overfit_batches", "use_distributed_sampler"}  # with one valid value
    theirs = set(inspect.signature(Trainer).parameters) - ours
    assert set(composed().trainer) - {*OURS} == theirs


@pytest.mark.parametrize("option", options("callbacks"))
def test_callbacks(option: str) -> None:
    for callback in composed(f"callbacks={option}").callbacks.values():
        build(callback)


@pytest.mark.parametrize("option", options("logger"))
def test_logger(option: str, tmp_path: Path) -> None:
    for logger in composed(f"logger={option}").logger.values():
        build(logger, folder=tmp_path, run_id="an-id", name="a-name")


def test_hash_changes_with_what_is_computed_and_only_then() -> None:
    same = config_hash(composed())
    assert config_hash(composed("logger=none", "name=other", "log_dir=elsewhere")) == same
    assert config_hash(composed("seed=1")) != same
    assert config_hash(composed("optim.lr=2e-3")) != same
    assert config_hash(composed("callbacks=none")) == same, "figures change nothing"
    stopping = [
        f"+callbacks.mine={{_target_: lightning.pytorch.callbacks.Timer, duration: {hours}}}" for hours in (1, 2)
    ]
    assert len({same, *(config_hash(composed(override)) for override in stopping)}) == 3


def test_every_key_of_the_configuration_is_written_down_once() -> None:
    """The keys that users type (`fixed`) can be set without a leading plus sign."""
    fixed = (
        "seed name data.root data.download data.image_size data.batch_size data.val_fraction data.num_workers "
        "data.cache_dir data.prepare augment model.patch_size model.dim model.depth model.num_heads model.mlp_ratio "
        "model.dropout model.drop_path model.stem model.pool loss.label_smoothing training.mixup_alpha "
        "training.cutmix_alpha training.mix_prob training.ema_decay optim.lr optim.weight_decay "
        "schedule.warmup_epochs schedule.min_lr trainer.max_epochs trainer.precision trainer.devices trainer.compile"
    )
    config = composed()
    missing = [key for key in fixed.split() if OmegaConf.select(config, key, default="absent") == "absent"]
    assert missing == []

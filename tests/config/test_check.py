"""An invalid configuration is refused in one sentence that says what is wrong and how to fix it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import composed
from vitexp.config.check import check
from vitexp.errors import ConfigError


def test_the_defaults_stand() -> None:
    check(composed())


@pytest.mark.parametrize(
    ("override", "wrong", "right"),
    [
        ("model.patch_size=5", "does not divide data.image_size=32", "2, 4, 8, 16 or 32"),
        ("model.upsample=30", "model.upsample=30", "at least data.image_size=32"),
        ("model.upsample=50", "model.patch_size=4 does not divide model.upsample=50", "2, 5, 10 or 25"),
        ("training.layer_decay=0", "training.layer_decay=0", "above 0"),
        ("data.normalize=cifar", "data.normalize=cifar", "auto, train, imagenet or half"),
        ("model.num_heads=5", "does not divide model.dim=192", "1, 2, 3, 4, 6, 8, 12, 16, 24 or 32"),
        ("model.depth=0", "model.depth=0", "1 or more"),
        ("model.drop_path=1.0", "model.drop_path=1.0", "below 1"),
        ("data.val_fraction=0", "data.val_fraction=0", "between 0 and 1"),
        ("data.val_fraction=1", "data.val_fraction=1", "between 0 and 1"),
        ("data.folds=1", "data.folds=1", "null, or an integer from 2 to 1,000"),
        ("data.fold=1", "data.fold=1 has no effect", "data.folds=null"),
        ("data.batch_size=-4", "data.batch_size=-4", "1 or more"),
        ("data.batch_size=many", "data.batch_size=many", "1 or more"),
        ("data.num_workers=-1", "data.num_workers=-1", "auto"),
        ("data.on_broken=explode", "data.on_broken=explode", "refuse or skip"),
        ("seed=-1", "seed=-1", "0 or more"),
        ("seed=x", "seed=x", "integer"),
        ("optim.lr=0", "optim.lr=0", "above 0"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1", "a number of 0 or more"),
        ("schedule.warmup_epochs=99", "schedule.warmup_epochs=99", "trainer.max_epochs"),
        ("schedule.min_lr=1", "schedule.min_lr=1", "optim.lr"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0", "1 or more"),
        ("trainer.compile=maybe", "trainer.compile=maybe", "auto, on or off"),
        ("trainer.accumulate_grad_batches=3", "split evenly", "multiple of 3"),
        ("trainer.float32_matmul_precision=tf32", "trainer.float32_matmul_precision=tf32", "highest, high or medium"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp", "auto, ddp"),
        (
            "trainer.strategy={_target_: lightning.pytorch.strategies.FSDPStrategy}",
            "shards the network over the devices, which vitexp does not support",
            "use trainer.strategy=ddp",
        ),
        ("loss.label_smoothing=1", "loss.label_smoothing=1", "below 1"),
        ("training.mixup_alpha=-0.1", "training.mixup_alpha=-0.1", "0 (off), or a number"),
        ("training.mix_prob=2", "training.mix_prob=2", "between 0 and 1"),
        ("training.patience=0", "training.patience=0", "null"),
        ("checkpoint.mode=best", "checkpoint.mode=best", "auto, max or min"),
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


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("data.folds=5 data.fold=5", "data.fold=5 must be from 0 to 4, because data.folds=5."),
        (
            "data.folds=5 data.val_fraction=0.2",
            "data.val_fraction=0.2 and data.folds=5 both choose",
        ),
        ("experiment=gtsrb_best data.folds=5", "set data.val_fraction=0.1 if it comes from an experiment."),
        ("data.folds=2 data.train_per_class=3 data.batch_size=128", "larger than the training part of 64 images"),
        ("data.folds=2 data.fold=1 data.train_per_class=3 data.batch_size=128", "the training part of 65 images"),
    ],
)
def test_folds_replace_the_fraction(overrides: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides.split()))
    assert sentence in str(caught.value)


def test_an_automatic_batch_that_can_never_be_split_is_refused_before_data_are_read() -> None:
    check(composed("data.batch_size=auto", "trainer.devices=4", "trainer.accumulate_grad_batches=2"))
    with pytest.raises(ConfigError, match=r"data\.batch_size=auto chooses a power of two .* a multiple of 3\."):
        check(composed("data.batch_size=auto", "trainer.devices=3"))


def test_a_set_on_disk_needs_its_folder() -> None:
    with pytest.raises(ConfigError, match=r"data\.root"):
        check(composed("data=folder"))


@pytest.mark.parametrize(
    ("overrides", "wrong", "right"),
    [
        (["model._target_=no.such.Net"], "there is no module 'no'", "maps images [B, 3, S, S] to logits"),
        (["loss._target_=vitexp.training.losses.Fokal"], "has no 'Fokal'", "logits [B, C] and soft targets [B, C]"),
        (["task._target_=vitexp.models"], "is a module, not a class", "subclass of vitexp.training.task.Task"),
        (["optim._target_=torch.nn.ReLU"], "does not take lr and weight_decay", "torch.optim.Optimizer"),
        (["+logger.x={_target_:torch.nn.ReLU}"], "does not take folder, name and run_id", "Logger"),
        (["loss._target_=torch.nn.Linear"], "'loss.label_smoothing' of torch.nn.Linear", "in_features"),
    ],
)
def test_what_a_class_must_look_like(overrides: list[str], wrong: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    assert wrong in str(caught.value)
    assert right in str(caught.value)


def test_a_resumed_run_does_not_need_the_log_dir_of_another_machine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    elsewhere = f"log_dir={tmp_path / 'file' / 'logs'}"
    with pytest.raises(ConfigError, match=r"log_dir: .* is not a writable folder"):
        check(composed(elsewhere))
    check(composed(elsewhere, f"resume={tmp_path}"))


def test_seed_zero_is_a_seed() -> None:
    check(composed("seed=0"))


def test_an_optimizer_of_an_earlier_version_may_say_partial() -> None:
    check(composed("+optim._partial_=true"))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        # of a different type than it looks
        (["model.dim=true"], "model.dim=true"),
        (["data.batch_size=32.0"], "data.batch_size=32.0"),
        (["optim.lr=nan"], "optim.lr=nan"),
        (["optim.lr=inf"], "optim.lr=inf"),
        (["trainer.detect_anomaly=1"], "true or false"),
        (["augment.scale=[1.2]"], "[low, high]"),
        (["augment.scale=[1.2,0.8]"], "[low, high]"),
        (["seed=null"], "seed=null"),
        (["data.root=7"], "data.root=7"),
        (["trainer.max_time=forever"], "DD:HH:MM:SS"),
        (["trainer.devices=0"], "trainer.devices=0"),
        # too large to allocate
        (["model.dim=1000000000", "model.num_heads=1"], "at most"),
        (["data.image_size=1000000", "model.patch_size=1000"], "at most"),
        (["data.image_size=4096", "model.patch_size=1"], "tokens"),
        (["model.dim=60000", "model.depth=900"], "parameters"),
        (["data.train_per_class=1000000000"], "at most"),
        # wrong structure
        (["~model.name"], "model.name"),
        (["~optim.lr"], "optim.lr is missing"),
        (["~trainer.devices"], "trainer.devices is missing"),
        (["~data.source"], "data=signs"),
        (["callbacks.curves=null"], "~callbacks.curves"),
        (["+model.num_classes=5"], "model.num_classes"),
        (["+augment.strength=5"], "augment.strength"),
        (["+optim.amsgard=true"], "amsgrad"),
        (["+trainer.logger=true"], "trainer.logger"),
        (["+extra=1"], "extra"),
        (["+model._partial_=true"], "_partial_"),
        (["+callbacks.twice={_target_:vitexp.training.callbacks.LearningCurves}"], "callbacks.curves"),
        # invalid names
        (["name=a/../../b"], "log_dir"),
        (["run_id=a/b"], "run_id"),
        (["run_id=.."], "run_id"),
        (["data.name=../x"], "data.name"),
        (["log_dir=/dev/null"], "log_dir"),
        (["data.cache_dir=/dev/null/x"], "data.cache_dir"),
        # valid individually, but not together
        (["checkpoint.monitor=val/loss", "checkpoint.mode=max"], "checkpoint.mode=min"),
        (["checkpoint.monitor=null", "training.patience=3"], "training.patience waits"),
        (["checkpoint.monitor=none"], "checkpoint.monitor"),
        (["optim=sgd", "optim.momentum=0"], "optim.nesterov=false"),
        (["optim=muon", "optim.momentum=0"], "optim.nesterov=false"),
        (["training.image_sizes=[32]"], "2 to 6"),
        (["training.image_sizes=[24,24]"], "different"),
        (["training.image_sizes=[24,30]"], "does not divide 30 in training.image_sizes"),
        (["training.image_sizes=[24,32]", "model.upsample=64"], "set one of them to null"),
        (["model=vit_tiny", "model.distillation_token=true"], "training.teacher"),
        (["model.distillation_token=true", "model.pool=gap", "training.teacher=x"], "use cls"),
        (["training.teacher=x", "training.teacher_weight=0"], "above 0"),
        (["training.image_sizes=[24,32]", "model=simple_cnn"], "any size"),
        (
            ["model=swin_tiny", "training.image_sizes=[24,33]"],
            "model.patch_size=2 does not divide 33 in",
        ),
        (["model=swin_tiny", "model.patch_size=3"], "model.patch_size=3 does not divide data.image_size=32; use"),
        (["model=swin_tiny", "model.depths=[2,2]"], "model.num_heads has 3 stages and model.depths has 2"),
        (
            ["model=swin_tiny", "model.num_heads=[3,5,6]"],
            "num_heads[1]=5 does not divide the channels of stage 2=192",
        ),
        (["model=swin_tiny", "model.mlp_ratio=0.001"], "stage 1 has 96 channels and MLPs of 0.001 times as many"),
        (["model=swin_tiny", "model.dim=49152", "model.depths=[9,9,9]"], "parameters or more; reduce"),
        (
            ["model=swin_tiny", "data.image_size=1024"],
            "splits an image of 1024x1024 pixels into 262,144 tokens, more than 65,536",
        ),
        (["model=pvt_tiny", "model.reductions=[8,4]"], "model.reductions has 2 stages and model.depths has 4"),
        (["model=pvt_tiny", "model.dims=[32,64,160]"], "model.dims has 3 stages and model.depths has 4"),
        (["training.image_sizes=[32,4096]"], "tokens"),
        (["training.image_sizes=[4,32]", "model.lsa=true"], "larger size"),
        (["trainer.limit_val_batches=0", "training.patience=3"], "training.patience"),
        (["trainer.min_epochs=9", "training.patience=3", "checkpoint.monitor=auto"], "trainer.max_epochs=8"),
        (["trainer.val_check_interval=10000"], "trainer.val_check_interval"),
        (["trainer.limit_test_batches=0"], "trainer.limit_test_batches"),
        (["trainer.limit_val_batches=0.01"], "less than one"),
        (["trainer=cpu", "trainer.devices=-1"], "number of processes"),
        (["training.mixup_alpha=0.2", "data.batch_size=1"], "mix with itself; use data.batch_size=2 or more"),
        (
            ["training.cutmix_alpha=1", "data.batch_size=4", "trainer.accumulate_grad_batches=4"],
            "use data.batch_size=8 or more",
        ),
        (["data.batch_size=100000"], "larger than the training part"),
        (["augment.blur_sigma=[1,20]"], "augment.blur_sigma"),
        (["model.lsa=true", "model.pool=gap", "model.patch_size=32"], "model.lsa"),
        (["trainer=cpu", "trainer.precision=16-mixed"], "bf16-mixed"),
        (["data.source.draw_size=17"], "data.draw_size"),
    ],
)
def test_nothing_of_a_wrong_kind_or_size_passes(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dead", "alive"),
    [
        (["training.mix_switch_prob=0.3", "training.mixup_alpha=0.2"], ["training.cutmix_alpha=1"]),
        (["training.mix_prob=0.5"], ["training.mixup_alpha=0.2"]),
        (["training.mix_until=0.5"], ["training.cutmix_alpha=0.2"]),
        (["training.mixup_alpha=0.2", "training.mix_prob=0"], ["training.mix_prob=1"]),
        (["training.layer_decay=0.7", "model=simple_cnn"], ["model=vit_tiny"]),
        (["training.distillation=soft"], ["training.teacher=x"]),
        (["training.teacher_weight=0.3"], ["training.teacher=x"]),
        (["training.temperature=2", "training.teacher=x"], ["training.distillation=soft"]),
        (["data.root=somewhere"], ["data=folder"]),
        (["data.download=true"], ["data=cifar10"]),
        (["data.on_broken=skip"], ["data=folder", "data.root=x"]),
        (["checkpoint.monitor=val/f1_macro", "trainer.enable_checkpointing=false"], ["training.patience=3"]),
        (["checkpoint.monitor=val/f1_macro", "trainer.enable_checkpointing=false"], ["checkpoint.monitor=null"]),
        (["checkpoint.mode=min", "checkpoint.monitor=null"], ["checkpoint.monitor=val/loss"]),
        (["trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val=0"], ["trainer.gradient_clip_val=1"]),
        (["trainer.check_val_every_n_epoch=2", "trainer.limit_val_batches=0"], ["trainer.limit_val_batches=1.0"]),
        (["augment.blur_sigma=[1,2]", "augment.blur_prob=0"], ["augment.blur_prob=1"]),
        (["augment.erase_area=[0.1,0.3]", "augment.erase_prob=0"], ["augment.erase_prob=1"]),
        (["augment=natural", "augment.magnitude=3"], ["augment.policy=randaugment"]),
        (["model.drop_path=0.3", "model.depth=1"], ["model.depth=2"]),
        (["model.mlp_conv=true", "model.pool=cls", "model.depth=1"], ["model.pool=gap"]),
        (["callbacks.attention.images=3", "model=simple_cnn"], ["model=vit_tiny"]),
        (["loss.class_weights=balanced", "task=mae"], ["task=classification"]),
        (["callbacks.reconstructions.images=3"], ["task=mae", "model=vit_tiny"]),
        (["callbacks.knn_probe.training=3"], ["task=mae", "model=vit_tiny"]),
    ],
)
def test_a_key_without_effect_is_refused_and_one_with_effect_is_not(dead: list[str], alive: list[str]) -> None:
    key = dead[0] if "=natural" not in dead[0] else dead[1]
    with pytest.raises(ConfigError, match="has no effect") as caught:
        check(composed(*dead))
    assert key.partition("=")[0] in str(caught.value)
    check(composed(*dead, *alive))


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.mixup_alpha=0", "training.mix_prob=1"],  # how an ablation row turns mixing off
        ["model=vit_small", "model.depth=1"],  # its drop_path then has no effect
        ["augment.blur_prob=0", "augment.erase_prob=0"],
        ["model=resnet18", "callbacks=default"],
        ["task=mae", "model=vit_tiny", "callbacks=default"],
        ["trainer.fast_dev_run=true", "trainer.max_epochs=100"],
    ],
)
def test_what_conf_itself_says_never_counts_as_without_effect(overrides: list[str]) -> None:
    check(composed(*overrides))

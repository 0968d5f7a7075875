"""Every key of train.py, with the values that it takes.

Upper limits are far beyond what anybody trains: they stand for what could never be allocated, or would never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitexp.checks.kinds import (
    FLAG,
    NODE,
    NULL,
    Kind,
    integer,
    is_int,
    is_number,
    list_of,
    number,
    one_of,
    optional,
    pair,
    text,
)
from vitexp.records import METRICS

Keys = Mapping[str, Kind]

_SEED = integer(0, 2**32 - 1)  # what Lightning and NumPy take
_STEPS = 10**9
_EPOCHS = 10**6
_RATE = number(0, 1, below=True)
_SHARE = number(0, 1, "a number between 0 and 1")
_INSIDE = number(0, 1, "a number between 0 and 1, both excluded", above=True, below=True)
_FOLDER_PART = r"(?!\.)[^/\\]{1,100}"
_FOLDER = text("a folder's name, without slashes and not beginning with a dot", pattern=_FOLDER_PART)
_PATH = text("a path", pattern=r".{1,2000}")
# W&B takes neither more nor other letters in what it calls a name of these.
_WANDB_NAME = text("a name of at most 128 letters, without any of / \\ # ? % :", pattern=r"[^/\\#?%:]{1,128}")
_BETA = Kind(
    words="0 (off) or more, at most 1,000 (of what is not 0, at least 0.001)",
    accepts=lambda value: is_number(value) and (value == 0 or 1e-3 <= value <= 1e3),
)


def _batches(*, least: int) -> Kind:
    none = "0.0 (none) to 1.0 (all)" if least == 0 else "above 0.0, at most 1.0 (all)"
    return Kind(
        words=f"a share of the batches, {none}, or their number, {least} or more",
        accepts=lambda value: (
            is_int(value)
            and least <= value <= _STEPS
            or isinstance(value, float)
            and (0.0 if least == 0 else 1e-9) <= value <= 1.0
        ),
    )


def _is_duration(value: Any) -> bool:
    if isinstance(value, str):
        parts = value.split(":")
        return (
            len(parts) == 4 and all(p.isascii() and p.isdigit() and len(p) < 7 for p in parts) and any(map(int, parts))
        )
    units = {"weeks", "days", "hours", "minutes", "seconds"}
    return (
        isinstance(value, Mapping)
        and set(value) <= units
        and all(is_number(amount) and 0 <= amount <= 1e6 for amount in value.values())
        and any(value.values())
    )


_DURATION = Kind(words='a duration above 0, "DD:HH:MM:SS" or {hours: 1, minutes: 30}', accepts=_is_duration)
_DEVICES = Kind(
    words='auto, -1 (all), a number of devices, or which ones as [0, 1] or "0,1"',
    accepts=lambda value: (
        value == "auto"
        or is_int(value)
        and (value == -1 or 1 <= value <= 1024)
        or isinstance(value, list)
        and bool(value)
        and all(is_int(each) and 0 <= each < 1024 for each in value)
        and len(set(value)) == len(value)
        or isinstance(value, str)
        and text(pattern=r"-1|\d{1,4}(,\d{1,4})*,?").accepts(value)
        and value != "0"
    ),
)

TOP: Keys = {
    "seed": _SEED,
    "name": text(
        "the name of a folder under log_dir, or of one in another as in paper/table1",
        pattern=rf"{_FOLDER_PART}(/{_FOLDER_PART})*",
    ),
    "log_dir": _PATH,
    "run_id": NULL
    | text(
        "1 to 100 letters, digits or any of . _ -, a name of digits alone in quotes within quotes",
        pattern=r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}",
    ),
    **optional(resume=NULL | text("auto or the path of a run's folder")),
}

DATA: Keys = {
    "name": _FOLDER,
    "root": NULL | _PATH,
    "download": FLAG,
    "image_size": integer(1, 4096),
    "batch_size": integer(1, 10**6),
    "val_fraction": number(
        0,
        1,
        "a number between 0 and 1, both excluded, for the checkpoint to test is chosen on validation images",
        above=True,
        below=True,
    ),
    "num_workers": one_of("auto") | integer(0, 1024),
    "resident": one_of("auto", "device", "memory"),
    "cache_dir": _PATH,
    "on_broken": one_of("refuse", "skip"),
    "source": NODE,
    "prepare": list_of(NODE, "a list of transforms, each a mapping with _target_"),
}

TRAINING: Keys = {
    "label_smoothing": _RATE,
    "mixup_alpha": _BETA,
    "cutmix_alpha": _BETA,
    "mix_prob": _SHARE,
    "mix_switch_prob": _SHARE,
    "mix_until": _SHARE,
    "ema_decay": _RATE,
    "patience": NULL | integer(1, _EPOCHS),
}

CHECKPOINT: Keys = {
    "monitor": one_of(*(f"val/{name}" for name in METRICS)),
    "mode": one_of("max", "min"),
    **optional(every_n_steps=NULL | integer(1, _STEPS), every_n_minutes=NULL | number(0, 1e6, above=True)),
}

TRAINER: Keys = {
    "max_epochs": integer(1, _EPOCHS),
    "precision": one_of("auto", "32-true", "bf16-mixed", "16-mixed"),
    "compile": one_of("auto", "on", "off") | FLAG,
    "accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "devices": _DEVICES,
    # Others cannot be started by a command, or keep checkpoints that are no file.
    "strategy": one_of("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp")
    | NODE,
    "num_nodes": integer(1, 10_000),
    "gradient_clip_val": NULL | number(0, 1e6),
    "gradient_clip_algorithm": one_of(None, "norm", "value"),
    "accumulate_grad_batches": integer(1, 10**6),
    "deterministic": NULL | FLAG | one_of("warn"),
    "benchmark": NULL | FLAG,
    "detect_anomaly": FLAG,
    "fast_dev_run": FLAG | integer(1, _STEPS),
    "min_epochs": NULL | integer(0, _EPOCHS),
    "max_steps": one_of(-1, words="-1 (no limit)") | integer(1, _STEPS),
    "min_steps": NULL | integer(0, _STEPS),
    "max_time": NULL | _DURATION,
    "limit_train_batches": _batches(least=1),
    "limit_val_batches": _batches(least=0),
    "limit_test_batches": _batches(least=1),
    "limit_predict_batches": _batches(least=0),
    "overfit_batches": _batches(least=0),
    "val_check_interval": _batches(least=1) | _DURATION,
    "check_val_every_n_epoch": NULL | integer(1, _EPOCHS),
    "num_sanity_val_steps": integer(-1, _STEPS, "-1 (all batches), 0 (none) or more"),
    "log_every_n_steps": integer(1, _STEPS),
    "enable_checkpointing": FLAG,
    "enable_progress_bar": FLAG,
    "enable_model_summary": FLAG,
    "inference_mode": FLAG,
    "use_distributed_sampler": Kind(
        words="false, for vitexp's own samplers neither pad nor repeat an image", accepts=lambda value: value is False
    ),
    "profiler": one_of(None, "simple", "advanced", "pytorch") | NODE,
    "barebones": Kind(words="false, for a barebones run measures nothing", accepts=lambda value: value is False),
    "plugins": NULL | NODE | list_of(NODE, "a list of such", least=1),
    "sync_batchnorm": FLAG,
    "reload_dataloaders_every_n_epochs": integer(0, _EPOCHS),
}

_SIDE = integer(1, 4096)
_ERASING = {
    "erase_prob": _SHARE,
    "erase_area": pair(number(0, 1, above=True), rising=True),
    "erase_aspect": pair(number(0, 100, above=True), rising=True),
}
_WARMUP = {"warmup_epochs": number(0, _EPOCHS)}
_OPTIMIZER = {"lr": number(0, 1e4, above=True), "weight_decay": number(0, 1e4)}
_EVERY = integer(0, _EPOCHS)
_IMAGES = integer(1, 200)
_UP_TO = integer(0, 200)

# Group, then what _target_ names, then its arguments. A class that is not listed is asked itself when it is built.
TARGETS: Mapping[str, Mapping[str, Keys]] = {
    "model": {
        "vitexp.models.ViT": optional(
            patch_size=_SIDE,
            dim=integer(1, 65_536),
            depth=integer(1, 1000),
            num_heads=integer(1, 65_536),
            mlp_ratio=number(0, 1000, above=True),
            dropout=_RATE,
            attention_dropout=_RATE,
            drop_path=_RATE,
            stem=one_of("patch", "conv", "shifted"),
            pool=one_of("cls", "gap", "seqpool"),
            position_embedding=one_of("learned", "sincos", "none"),
            registers=integer(0, 4096),
            qk_norm=FLAG,
            layer_scale=NULL | number(-1000, 1000),
            lsa=FLAG,
            head=one_of("linear", "mlp"),
            init=one_of("default", "mimetic"),
            gradient_checkpointing=FLAG,
        ),
        "vitexp.models.SimpleCNN": optional(dropout=_RATE),
        "vitexp.models.resnet18": {},
    },
    "augment": {
        "vitexp.data.augment.BatchAugment": {},
        "vitexp.data.augment.SignsAugment": optional(
            rotation=number(0, 180),
            translation=number(0, 1),
            scale=pair(number(0, 100, above=True), rising=True),
            shear=number(0, 45, below=True),
            padding=one_of("reflection", "border", "zeros"),
            brightness=_SHARE,
            contrast=_SHARE,
            saturation=_SHARE,
            blur_prob=_SHARE,
            blur_sigma=pair(number(0, 1000, above=True), rising=True),
            **_ERASING,
        ),
        "vitexp.data.augment.NaturalAugment": optional(
            crop_padding=integer(0, 4096),
            crop_border=one_of("reflect", "zeros"),
            flip_prob=_SHARE,
            policy=one_of("none", "randaugment", "autoaugment", "trivialaugment"),
            num_ops=integer(1, 100),
            magnitude=number(0, 30),
            fill=_SHARE,
            **_ERASING,
        ),
        "vitexp.data.augment.AlbumentationsAugment": {
            "transforms": list_of(NODE, "a list of transforms, each a mapping with _target_")
        },
    },
    "optim": {
        "torch.optim.AdamW": {
            **_OPTIMIZER,
            **optional(
                betas=pair(_RATE), eps=number(0, 1, above=True), amsgrad=FLAG, foreach=NULL | FLAG, fused=NULL | FLAG
            ),
        },
        "torch.optim.SGD": {
            **_OPTIMIZER,
            **optional(momentum=_RATE, dampening=number(0, 1), nesterov=FLAG, foreach=NULL | FLAG, fused=NULL | FLAG),
        },
    },
    "schedule": {
        "vitexp.training.schedule.CosineWarmup": {**_WARMUP, "min_lr": number(0, 1e4)},
        "vitexp.training.schedule.CosineRestarts": {
            **_WARMUP,
            "min_lr": number(0, 1e4),
            "period_epochs": number(0.01, _EPOCHS),
            "period_factor": number(1, 1000),
        },
        "vitexp.training.schedule.Constant": _WARMUP,
    },
    "data.source": {
        "vitexp.data.signs.Signs": optional(
            train_per_class=integer(2, 100_000, "an integer of 2 or more (one of them validates), at most 100,000"),
            test_per_class=integer(1, 100_000),
            draw_size=integer(16, 512),
            seed=_SEED,
        ),
        "vitexp.data.gtsrb.GTSRB": {
            "root": _PATH,
            **optional(download=FLAG, train_set=one_of("auto", "full", "online"), base_url=text("an address")),
        },
        "vitexp.data.cifar.CIFAR": {
            "root": _PATH,
            "kind": one_of("cifar10", "cifar100"),
            **optional(download=FLAG),
        },
        "vitexp.data.folder.Folder": {"root": _PATH, **optional(test_fraction=_INSIDE, seed=_SEED)},
    },
    "callbacks": {
        "vitexp.callbacks.ConfusionMatrix": optional(every_n_epochs=_EVERY),
        "vitexp.callbacks.AttentionMaps": optional(every_n_epochs=_EVERY, images=_IMAGES),
        "vitexp.callbacks.SamplePredictions": optional(every_n_epochs=_EVERY, right=_UP_TO, wrong=_UP_TO),
        "vitexp.callbacks.PositionEmbedding": optional(every_n_epochs=_EVERY),
        "vitexp.callbacks.LearningCurves": optional(every_n_epochs=_EVERY),
        "vitexp.callbacks.AugmentedBatch": optional(images=_IMAGES),
        "vitexp.callbacks.pruning.Pruning": {
            "journal": _PATH,
            "trial": integer(0, 10**9),
            "metric": one_of(*(f"val/{name}" for name in METRICS)),
            "startup": integer(0, 10**9),
            "warmup": integer(0, 10**9),
        },
    },
    "logger": {
        "vitexp.loggers.csv_logger": {},
        "vitexp.loggers.tensorboard_logger": {},
        "vitexp.loggers.wandb_logger": {
            "project": _WANDB_NAME,
            "entity": NULL | _WANDB_NAME,
            "group": NULL | text("a text of at most 128 letters", pattern=r".{1,128}"),
            "tags": list_of(text(pattern=r".{1,64}"), "a list of texts of at most 64 letters each"),
            "mode": one_of("auto", "online", "offline"),
        },
    },
}

# What a data set's option calls its keys: data.<first> is handed to data.source.<second>.
HANDED_ON: Mapping[str, Mapping[str, str]] = {
    "vitexp.data.signs.Signs": {
        "train_per_class": "train_per_class",
        "test_per_class": "test_per_class",
        "draw_size": "draw_size",
        "draw_seed": "seed",
    },
    "vitexp.data.gtsrb.GTSRB": {key: key for key in ("root", "download", "train_set", "base_url")},
    "vitexp.data.cifar.CIFAR": {key: key for key in ("root", "download")},
    "vitexp.data.folder.Folder": {"root": "root", "test_fraction": "test_fraction", "split_seed": "seed"},
}

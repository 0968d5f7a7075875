"""Every key of train.py, with the values that it takes.

Upper limits are far beyond what anybody trains: they stand for what could never be allocated, or would never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitexp.config.kinds import (
    FLAG,
    NODE,
    NULL,
    Kind,
    integer,
    is_number,
    list_of,
    number,
    one_of,
    optional,
    text,
)
from vitexp.metrics import METRICS

Keys = Mapping[str, Kind]

SEED = integer(0, 2**32 - 1)  # what Lightning and NumPy take
_STEPS = 10**9
EPOCHS = 10**6
RATE = number(0, 1, below=True)
SHARE = number(0, 1, "a number between 0 and 1")
INSIDE = number(0, 1, "a number between 0 and 1, both excluded", above=True, below=True)
_FOLDER_PART = r"(?!\.)[^/\\]{1,100}"
_FOLDER = text("a folder's name, without slashes and not beginning with a dot", pattern=_FOLDER_PART)
_PATH = r".{1,2000}"
PATH = text("a path", pattern=_PATH)
_BETA = Kind(
    words="0 (off) or more, at most 1,000 (of what is not 0, at least 0.001)",
    accepts=lambda value: is_number(value) and (value == 0 or 1e-3 <= value <= 1e3),
)


def _batches(*, least: int) -> Kind:
    """A float is a share of the batches, an integer their number. least: 0 where none is a choice."""
    share = number(0, 1, above=least > 0)
    return Kind(
        words=f"a share of the batches, {'above' if least else 'from'} 0.0 to 1.0, or their number, {least} or more",
        accepts=lambda value: (
            share.accepts(value) if isinstance(value, float) else integer(least, _STEPS).accepts(value)
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
    accepts=lambda value: any(
        kind.accepts(value)
        for kind in (
            one_of("auto", -1, "-1"),
            integer(1, 1024),
            list_of(integer(0, 1023), "", least=1),
            text(pattern=r"[1-9]\d{0,3}|\d{1,4}(,\d{1,4})*,?"),
        )
    ),
)

# torch.compile makes a graph of each, and of more than eight none.
_SIZES = Kind(
    words="a list of 2 to 6 different numbers of pixels, such as [24,32,40], at most 4,096 each",
    accepts=lambda value: (
        list_of(integer(1, 4096), "", least=2).accepts(value) and len(value) <= 6 and len(set(value)) == len(value)
    ),
)

TOP: Keys = {
    "seed": SEED,
    "name": text(
        "the name of a folder under log_dir, or of one in another as in paper/table1",
        pattern=rf"{_FOLDER_PART}(/{_FOLDER_PART})*",
    ),
    "log_dir": PATH,
    "run_id": NULL
    | text(
        "1 to 100 letters, digits or any of . _ -, a name of digits alone in quotes within quotes",
        pattern=r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}",
    ),
    **optional(resume=NULL | text("auto or the path of a run's folder")),
}

DATA: Keys = {
    "name": _FOLDER,
    "root": NULL | PATH,
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
    "normalize": one_of("auto", "train", "imagenet", "half"),
    "cache_dir": PATH,
    "on_broken": one_of("refuse", "skip"),
    "source": NODE,
    "prepare": list_of(NODE, "a list of transforms, each a mapping with _target_"),
}

MODEL: Keys = {"name": _FOLDER}
VIT: Keys = {
    **MODEL,
    **optional(
        weights=NULL | text("imagenet21k, imagenet1k, or the path of a file or of a run's folder", pattern=_PATH)
    ),
}

TRAINING: Keys = {
    "mixup_alpha": _BETA,
    "cutmix_alpha": _BETA,
    "mix_prob": SHARE,
    "mix_switch_prob": SHARE,
    "mix_until": SHARE,
    "layer_decay": number(0, 1, above=True),
    "ema_decay": RATE,
    "patience": NULL | integer(1, EPOCHS),
    **optional(
        image_sizes=NULL | _SIZES,
        teacher=NULL | text("the folder of a finished run", pattern=_PATH),
        distillation=one_of("hard", "soft"),
        teacher_weight=NULL | number(0, 1, above=True),
        temperature=number(0, 1000, above=True),
    ),
}

CHECKPOINT: Keys = {
    "monitor": NULL | one_of("auto", *(f"val/{name}" for name in METRICS)),
    "mode": one_of("auto", "max", "min"),
    **optional(every_n_steps=NULL | integer(1, _STEPS), every_n_minutes=NULL | number(0, 1e6, above=True)),
}

TRAINER: Keys = {
    "max_epochs": integer(1, EPOCHS),
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
    "min_epochs": NULL | integer(0, EPOCHS),
    "max_steps": one_of(-1, words="-1 (no limit)") | integer(1, _STEPS),
    "min_steps": NULL | integer(0, _STEPS),
    "max_time": NULL | _DURATION,
    "limit_train_batches": _batches(least=1),
    "limit_val_batches": _batches(least=0),
    "limit_test_batches": _batches(least=1),
    "limit_predict_batches": _batches(least=0),
    "overfit_batches": Kind(
        words="0.0, for every epoch draws its batches anew; trainer.limit_train_batches makes epochs short",
        accepts=lambda value: is_number(value) and value == 0,
    ),
    "val_check_interval": _batches(least=1) | _DURATION,
    "check_val_every_n_epoch": NULL | integer(1, EPOCHS),
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
    "reload_dataloaders_every_n_epochs": integer(0, EPOCHS),
}

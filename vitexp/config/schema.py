"""The configuration keys that do not belong to a class: their types, bounds, units, defaults and meanings.

The options of components (models, losses, ...) are declared by their constructors instead; `COMMON` holds the options
that every component of a group has. Upper limits are far beyond any sensible value: they exclude sizes that cannot be
allocated and runs that would never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator

from vitexp.config.components import Option, options_of
from vitexp.metrics import METRICS
from vitexp.options import Doc, Field, Fraction, Node, Path, Pixels, Probability, Rate, Words, fits

_FOLDER = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}"
FolderName = Annotated[
    str, Field(pattern=f"^{_FOLDER}$"), Words("a folder name without slashes that does not start with a dot")
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what Lightning and NumPy accept
Epochs = Annotated[int, Field(ge=1, le=10**6)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Flag = bool
Folds = Annotated[int, Field(ge=2, le=1000)]


def _is_alpha(value: float) -> float:
    if value != 0 and not fits(value, 1e-3, 1e3):
        raise ValueError("not a parameter of a Beta distribution")
    return value


def _is_limit(value: float | int, *, least: int) -> float | int:
    in_range = fits(value, 0, 1) if isinstance(value, float) else least <= value <= 10**9
    if not in_range or (least and value == 0):
        raise ValueError("neither a fraction nor a count")
    return value


def _is_duration(value: Any) -> Any:
    if isinstance(value, str):
        parts = value.split(":")
        right = len(parts) == 4 and all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts)
        right = right and any(map(int, parts))
    else:
        right = any(value.values()) and all(fits(amount, 0, 1e6) for amount in value.values())
    if not right:
        raise ValueError("not a duration")
    return value


def _are_different(sizes: list[int]) -> list[int]:
    if len(set(sizes)) < len(sizes):
        raise ValueError("a size is repeated")
    return sizes


Alpha = Annotated[float, AfterValidator(_is_alpha), Words("0 (off), or a number from 0.001 to 1,000")]
# A float is a fraction of the batches, an integer is a number of batches.
Batches = Annotated[
    int | float,
    AfterValidator(lambda value: _is_limit(value, least=1)),
    Words("a fraction of the batches (above 0.0, at most 1.0), or a number of batches (1 or more)"),
]
BatchesOrNone = Annotated[
    int | float,
    AfterValidator(lambda value: _is_limit(value, least=0)),
    Words("a fraction of the batches (from 0.0 to 1.0), or a number of batches (0 or more)"),
]
Duration = Annotated[
    str | dict[Literal["weeks", "days", "hours", "minutes", "seconds"], float],
    AfterValidator(_is_duration),
    Words('a duration above 0, "DD:HH:MM:SS" or {hours: 1, minutes: 30}'),
]
Devices = Annotated[
    Literal["auto", -1]
    | Annotated[int, Field(ge=1, le=1024)]
    | Annotated[list[Annotated[int, Field(ge=0, le=1023)]], Field(min_length=1)]
    | Annotated[str, Field(pattern=r"^(-1|[1-9]\d{0,3}|\d{1,4}(,\d{1,4})*,?)$")],
    Words('auto, -1 (all), a number of devices, or a list such as [0, 1] or "0,1"'),
]
# torch.compile builds one graph per size, at most eight.
Sizes = Annotated[
    list[Pixels],
    Field(min_length=2, max_length=6),
    AfterValidator(_are_different),
    Words("a list of 2 to 6 different numbers of pixels, such as [24,32,40], at most 4,096 each"),
]


class Run:
    """Top-level keys."""

    seed: Annotated[Seed, Doc("random seed; the same seed, configuration and device give the same weights")]
    name: Annotated[
        str,
        Field(pattern=f"^{_FOLDER}(/{_FOLDER})*$"),
        Words("the name of a folder under log_dir, or of nested folders, such as paper/table1"),
        Doc("folder under log_dir that contains the run folder"),
    ]
    log_dir: Annotated[Path, Doc("run folders are <log_dir>/<name>/<run_id>")]
    run_id: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")] | None,
        Words("null, or 1 to 100 letters, digits, dots, underscores or hyphens; quote a name that has only digits"),
        Doc("name of the run folder; null: date, time and a random suffix"),
    ]
    resume: Annotated[
        Path | None,
        Words("null, auto, a run folder, or <name>/<run_id>"),
        Doc(
            "auto: resume the newest stopped run with this name and configuration; or the run to resume, its folder or "
            "<name>/<run_id>"
        ),
    ] = None


class Data:
    """Keys of every data set; its source adds others."""

    name: Annotated[FolderName, Doc("name of the data set, in folders and tables")]
    root: Annotated[Path | None, Doc("folder of the data set")]
    download: Annotated[Flag, Doc("download what is missing from root")]
    image_size: Annotated[Pixels, Doc("pixels per side; images are made square")]
    batch_size: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=10**6)],
        Words("auto, or an integer of 1 or more"),
        Doc("images per optimizer step, on all devices together; auto: at most 128, fewer for small sets"),
    ]
    val_fraction: Annotated[
        Fraction,
        Words("a number between 0 and 1, both excluded, because validation images are always needed"),
        Doc(
            "fraction of the training images of each class used for validation; groups are not split; not used if the "
            "data set has validation images of its own"
        ),
    ]
    folds: Annotated[
        Folds | None,
        Words("null, or an integer from 2 to 1,000"),
        Doc(
            "divide the training images into this many folds, groups whole and classes balanced, instead of using "
            "val_fraction; sweep.py folds=N trains on all of them"
        ),
    ] = None
    fold: Annotated[
        int,
        Field(ge=0, le=999),
        Doc("the fold that is the validation part, from 0; the others are the training part"),
    ] = 0
    sampler: Annotated[
        Literal["shuffle", "balanced"], Doc("balanced: draw every class equally often, with replacement")
    ] = "shuffle"
    num_workers: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0, le=1024)],
        Doc("processes that read and prepare images; auto: one per core, at most 8"),
    ]
    resident: Annotated[
        Literal["auto", "device", "memory"],
        Doc("where images are kept: device, memory (copied batch by batch), or auto: on the device if they fit"),
    ]
    normalize: Annotated[
        Literal["auto", "train", "imagenet", "half"],
        Doc("mean and std: train (training images), imagenet, half (0.5) or auto (as model.weights expect)"),
    ]
    cache_dir: Annotated[Path, Doc("folder for prepared images and downloaded weights")]
    on_broken: Annotated[Literal["refuse", "skip"], Doc("unreadable image files: refuse the data set, or skip them")]
    source: Annotated[Node, Doc("the class that reads the data set, with its arguments")]
    prepare: Annotated[
        list[Node],
        Words("a list of transforms, each a mapping with _target_"),
        Doc("deterministic Albumentations transforms, applied once and cached"),
    ]


class Training:
    """Regularization, distillation and fine-tuning."""

    mixup_alpha: Annotated[Alpha, Doc("mixup with Beta(alpha, alpha); 0: off")]
    cutmix_alpha: Annotated[Alpha, Doc("CutMix with Beta(alpha, alpha); 0: off")]
    mix_prob: Annotated[Probability, Doc("fraction of the batches that are mixed")]
    mix_switch_prob: Annotated[Probability, Doc("fraction of the mixed batches that use CutMix, if both are on")]
    mix_until: Annotated[Probability, Doc("fraction of training after which mixing stops")]
    image_sizes: Annotated[
        Sizes | None, Doc("sizes to draw from for each batch, in pixels per side; null: data.image_size")
    ] = None
    teacher: Annotated[Path | None, Doc("finished run to distill: its folder, or <name>/<run_id>")] = None
    distillation: Annotated[
        Literal["hard", "soft"], Doc("learn from the teacher's class (hard) or its probabilities (soft)")
    ] = "hard"
    teacher_weight: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Doc("the teacher's share of the loss; null: 0.5 for hard, 0.1 for soft distillation"),
    ] = None
    temperature: Annotated[
        float, Field(gt=0, le=1000), Doc("soft distillation: divisor of the logits of both networks")
    ] = 3.0
    layer_decay: Annotated[
        float, Field(gt=0, le=1), Doc("learning rate of each block relative to the next one; 1: off")
    ]
    ema_decay: Annotated[Rate, Doc("decay per step of the averaged weights that are validated and tested; 0: off")]
    patience: Annotated[
        Epochs | None, Doc("stop after this many epochs without improvement of checkpoint.monitor; null: never")
    ]


class Checkpoint:
    """The choice of the weights to test, and the frequency of checkpoints."""

    monitor: Annotated[
        Annotated[str, Field(pattern=r"^(auto|val/[A-Za-z0-9_./-]+)$")] | None,
        Words("auto, null, or a logged validation metric such as val/accuracy"),
        Doc("metric that chooses the weights to test; auto: the task's own; null: the last weights"),
    ]
    mode: Annotated[Literal["auto", "max", "min"], Doc("whether a larger or a smaller monitor is better")]
    every_n_steps: Annotated[Steps | None, Doc("also write a checkpoint every N optimizer steps")] = None
    every_n_minutes: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None, Doc("also write a checkpoint every N minutes")
    ] = None


class Trainer:
    """max_epochs, debug, three keys about speed, and arguments of lightning.Trainer."""

    debug: Annotated[bool, Doc("a run that only tries things out: never used as the newest run")] = False
    max_epochs: Annotated[
        Literal["auto"] | Epochs,
        Words("auto, or an integer of 1 or more"),
        Doc("length of training; auto: 8, or more for small sets, until 60,000 images have been seen"),
    ]
    precision: Annotated[
        Literal["auto", "32-true", "bf16-mixed", "16-mixed"],
        Doc("auto: bf16-mixed where CUDA, AMX or AVX512-BF16 supports it, otherwise 32-true"),
    ]
    float32_matmul_precision: Annotated[
        Literal["highest", "high", "medium"],
        Doc("products of float32 matrices, on CUDA only: highest (float32) | high (TF32) | medium (bf16)"),
    ]
    compile: Annotated[
        Literal["auto", "on", "off"] | bool, Words("auto, on or off"), Doc("torch.compile; auto: on CUDA only")
    ]
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "cuda", "mps"], Doc("kind of device")]
    devices: Annotated[Devices, Doc("number of devices per node, or a list of them")]
    # Other strategies cannot be started by a command, or shard the network (FSDP, DeepSpeed). Sharded checkpoints are
    # not single files, and ViT-B, the largest network here, fits on one GPU.
    strategy: Annotated[
        Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"] | Node,
        Doc("how several devices share the work"),
    ]
    num_nodes: Annotated[int, Field(ge=1, le=10_000), Doc("number of machines")]
    gradient_clip_val: Annotated[
        Annotated[float, Field(ge=0, le=1e6)] | None, Doc("clip gradients to this norm or value")
    ]
    gradient_clip_algorithm: Annotated[
        Literal["norm", "value"] | None, Doc("clip the norm of the gradients, or each value")
    ]
    accumulate_grad_batches: Annotated[
        int, Field(ge=1, le=10**6), Doc("forward passes per optimizer step; they share its images")
    ]
    deterministic: Annotated[bool | Literal["warn"] | None, Doc("use deterministic algorithms only")]
    benchmark: Annotated[bool | None, Doc("let cuDNN choose the fastest kernels")]
    detect_anomaly: Annotated[bool, Doc("stop when a gradient becomes NaN; slow")]
    fast_dev_run: Annotated[bool | Steps, Doc("run this many batches of everything, for debugging")]
    min_epochs: Annotated[Annotated[int, Field(ge=0, le=10**6)] | None, Doc("train for at least this many epochs")]
    max_steps: Annotated[
        Literal[-1] | Steps, Words("-1 (no limit), or an integer of 1 or more"), Doc("optimizer steps; -1: no limit")
    ]
    min_steps: Annotated[Annotated[int, Field(ge=0, le=10**9)] | None, Doc("train for at least this many steps")]
    max_time: Annotated[Duration | None, Doc("stop after this time")]
    limit_train_batches: Annotated[Batches, Doc("use only part of the training batches")]
    limit_val_batches: Annotated[BatchesOrNone, Doc("use only part of the validation batches; 0: no validation")]
    limit_test_batches: Annotated[Batches, Doc("use only part of the test batches")]
    val_check_interval: Annotated[
        Batches | Duration, Doc("validate every N batches, or after this fraction of an epoch")
    ]
    check_val_every_n_epoch: Annotated[Epochs | None, Doc("validate every N epochs")]
    num_sanity_val_steps: Annotated[
        int,
        Field(ge=-1, le=10**9),
        Words("-1 (all batches), 0 (none) or more"),
        Doc("validation batches before training"),
    ]
    log_every_n_steps: Annotated[Steps, Doc("steps between logged scalars")]
    enable_checkpointing: Annotated[bool, Doc("write checkpoints; without them a run cannot be resumed")]
    enable_progress_bar: Annotated[bool, Doc("show a progress bar in a terminal")]
    enable_model_summary: Annotated[bool, Doc("let Lightning print the layers")]
    inference_mode: Annotated[bool, Doc("use torch.inference_mode instead of no_grad in the test")]
    profiler: Annotated[Literal["simple", "advanced", "pytorch"] | Node | None, Doc("measure where the time goes")]
    plugins: Annotated[Node | Annotated[list[Node], Field(min_length=1)] | None, Doc("plugins of lightning.Trainer")]
    sync_batchnorm: Annotated[bool, Doc("synchronize batch norm across devices")]
    reload_dataloaders_every_n_epochs: Annotated[
        int, Field(ge=0, le=10**6), Doc("recreate the data loaders every N epochs; 0: never")
    ]


class Sweep:
    """Keys of the sweep command, in addition to those of its trials."""

    name: Annotated[
        FolderName | None,
        Doc("folder of the sweep under log_dir; null: the ablation or search and what all trials have in common"),
    ]
    log_dir: Annotated[Path, Doc("trial folders are <log_dir>/<name>/<hash of the trial's configuration>")]
    metric: Annotated[Literal[tuple(METRICS)], Doc("metric of result.json that the table compares")]  # type: ignore[valid-type]
    baseline: Annotated[str | None, Doc("row that the others are compared to; null: the first")]
    folds: Annotated[
        Folds | None,
        Words("null, or an integer from 2 to 1,000"),
        Doc("k-fold cross-validation: run every combination once for each of this many folds of the training images"),
    ] = None
    show: Annotated[bool, Doc("only print the table of the results so far, also while the sweep runs")]
    report: Annotated[bool, Doc("also save a report and a workspace in W&B, each time; needs wandb-workspaces")]


class Bench:
    """Keys of the bench command, in addition to those of a training run."""

    what: Annotated[
        Literal["all", "step", "loader", "train", "memory", "start"],
        Doc("the training step, the data loader, a whole training run, GPU memory, or the start-up time"),
    ]
    peers: Annotated[
        bool, Doc("also measure timm and vit-pytorch (step), and a standard pipeline on image files (loader)")
    ]
    repeats: Annotated[
        Annotated[int, Field(ge=1, le=10_000)],
        Doc("step, loader, train: number of rounds; each measures every candidate once"),
    ]
    steps: Annotated[Annotated[int, Field(ge=1, le=10**6)], Doc("train, memory: training steps per measurement")]
    starts: Annotated[
        Annotated[int, Field(ge=1, le=10_000)], Doc("start: number of rounds; each starts every process once")
    ]
    output: Annotated[Path, Doc("JSON file of the measurements")]


class _Model:
    name: Annotated[FolderName, Doc("name of the model, in folders and tables")]


class _Weights:
    """Options of models that can start from given weights (`accepts_weights`)."""

    weights: Annotated[
        Path | None,
        Words("null, pretrained, imagenet21k, imagenet1k, or the path of a file or run folder"),
        Doc(
            "start from: a finished run (its folder, or <name>/<run_id>), a file (.pth, .safetensors, .npz), "
            "pretrained (the bundled GTSRB network), imagenet1k or imagenet21k (downloaded)"
        ),
    ] = None


class _Published:
    """Options of models whose published weights can be downloaded (`has_published_weights`)."""

    pretrained: Annotated[bool, Doc("start from the published weights (downloaded), with their normalization")] = False


class _Optimizer:
    lr: Annotated[float, Field(gt=0, le=1e4), Doc("peak learning rate, for the given batch size")]
    weight_decay: Annotated[
        float, Field(ge=0, le=1e4), Doc("weight decay; not applied to vectors, tokens and position embeddings")
    ]


class _UsualOfOptimizers:
    """Arguments of optimizers that do not describe their arguments, such as those in torch.optim."""

    betas: Annotated[tuple[Rate, Rate], Doc("decay rates of the running averages of the gradient and its square")]
    eps: Annotated[float, Field(gt=0, le=1), Doc("added to the denominator")]
    momentum: Annotated[Rate, Doc("momentum")]
    dampening: Annotated[Probability, Doc("dampening of the momentum")]
    nesterov: Annotated[bool, Doc("Nesterov momentum")]
    amsgrad: Annotated[bool, Doc("AMSGrad")]
    foreach: Annotated[bool | None, Doc("update all parameters together, in a few multi-tensor kernels")]
    fused: Annotated[bool | None, Doc("one kernel per step")]


def _options(section: type) -> dict[str, Option]:
    return options_of(get_type_hints(section, include_extras=True), vars(section))


SECTIONS: Mapping[str, Mapping[str, Option]] = {
    "": _options(Run),
    "data": _options(Data),
    "training": _options(Training),
    "checkpoint": _options(Checkpoint),
    "trainer": _options(Trainer),
}
SWEEP, BENCH = _options(Sweep), _options(Bench)
NODES = ("model", "augment", "loss", "optim", "schedule", "task")  # groups of one component each
MAPPINGS = ("callbacks", "logger")  # groups of several named components

# Options of every component of a group, whatever its class.
COMMON: Mapping[str, Mapping[str, Option]] = {"model": _options(_Model), "optim": _options(_Optimizer)}
# Options of models whose class has a fact; the run reads them, not the class.
OF_FACTS: Mapping[str, Mapping[str, Option]] = {
    "accepts_weights": _options(_Weights),
    "has_published_weights": _options(_Published),
}
# Descriptions of options that a class may have without describing them.
USUAL: Mapping[str, Mapping[str, Option]] = {"optim": _options(_UsualOfOptimizers)}

# What the class (or function) of a component must be, to complete "... must be".
CONTRACTS: Mapping[str, str] = {
    "data.source": "a subclass of vitexp.data.source.Source",
    "model": "a torch.nn.Module that takes num_classes and image_size and maps images [B, 3, S, S] to logits "
    "[B, num_classes]",
    "augment": "a torch.nn.Module that maps images [B, 3, H, W], float32 from 0 to 1, to images of the same kind",
    "loss": "a class whose objects map logits [B, C] and soft targets [B, C] to a scalar, the mean over the batch",
    "optim": "a torch.optim.Optimizer that takes groups of parameters, lr and weight_decay",
    "schedule": "a subclass of vitexp.training.schedules.Schedule",
    "task": "a subclass of vitexp.training.task.Task",
    "callbacks": "a lightning.pytorch.Callback",
    "engine": "a subclass of vitexp.sweeps.engines.Engine",
    "logger": "a lightning.pytorch.loggers.Logger, or a function that returns one, that takes folder, run_id and name",
}
# Arguments that every component of the group must take.
REQUIRED: Mapping[str, frozenset[str]] = {
    "model": frozenset({"num_classes", "image_size"}),
    "optim": frozenset({"lr", "weight_decay"}),
    "logger": frozenset({"folder", "run_id", "name"}),
}
# Arguments that the run itself passes, so they are not keys.
GIVEN: Mapping[str, frozenset[str]] = {
    "model": frozenset({"num_classes", "image_size", "in_channels"}),
    "optim": frozenset({"params"}),
    "logger": frozenset({"folder", "run_id", "name"}),
    "task": frozenset(
        {"net", "num_classes", "augment", "loss", "mixing", "optimizer", "schedule", "seed", "mean", "std"}
        | {"layer_decay", "image_sizes", "distillation"}
    ),
}

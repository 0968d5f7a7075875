"""The classes that options name, with the arguments that each takes."""

from __future__ import annotations

from collections.abc import Mapping

from vitexp.config.keys import EPOCHS, INSIDE, PATH, RATE, SEED, SHARE, Keys
from vitexp.config.kinds import FLAG, NODE, NULL, integer, list_of, number, one_of, optional, pair, text
from vitexp.metrics import METRICS

# W&B takes neither more nor other letters in what it calls a name of these.
_WANDB_NAME = text("a name of at most 128 letters, without any of / \\ # ? % :", pattern=r"[^/\\#?%:]{1,128}")
_SIDE = integer(1, 4096)
_ERASING = {
    "erase_prob": SHARE,
    "erase_area": pair(number(0, 1, above=True), rising=True),
    "erase_aspect": pair(number(0, 100, above=True), rising=True),
}
_WARMUP = {"warmup_epochs": number(0, EPOCHS)}
_OPTIMIZER = {"lr": number(0, 1e4, above=True), "weight_decay": number(0, 1e4)}
_LOSS = optional(
    label_smoothing=RATE,
    class_weights=NULL | one_of("balanced") | list_of(number(0, 1e6), "a list of one weight per class", least=1),
)
_EVERY = integer(0, EPOCHS)
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
            dropout=RATE,
            attention_dropout=RATE,
            drop_path=RATE,
            stem=one_of("patch", "conv", "shifted"),
            pool=one_of("cls", "gap", "seqpool"),
            position_embedding=one_of("learned", "sincos", "none"),
            registers=integer(0, 4096),
            qk_norm=FLAG,
            layer_scale=NULL | number(-1000, 1000),
            lsa=FLAG,
            mlp_conv=FLAG,
            head=one_of("linear", "mlp"),
            init=one_of("default", "mimetic"),
            gradient_checkpointing=FLAG,
            upsample=NULL | _SIDE,
            distillation_token=FLAG,
        ),
        "vitexp.models.SimpleCNN": optional(dropout=RATE),
        "vitexp.models.resnet.ResNet18": {},
    },
    "augment": {
        "vitexp.data.augment.BatchAugment": {},
        "vitexp.data.augment.SignsAugment": optional(
            rotation=number(0, 180),
            translation=number(0, 1),
            scale=pair(number(0, 100, above=True), rising=True),
            shear=number(0, 45, below=True),
            padding=one_of("reflection", "border", "zeros"),
            brightness=SHARE,
            contrast=SHARE,
            saturation=SHARE,
            blur_prob=SHARE,
            blur_sigma=pair(number(0, 1000, above=True), rising=True),
            **_ERASING,
        ),
        "vitexp.data.augment.NaturalAugment": optional(
            crop_padding=integer(0, 4096),
            crop_border=one_of("reflect", "zeros"),
            flip_prob=SHARE,
            policy=one_of("none", "randaugment", "autoaugment", "trivialaugment"),
            num_ops=integer(1, 100),
            magnitude=number(0, 30),
            fill=SHARE,
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
                betas=pair(RATE), eps=number(0, 1, above=True), amsgrad=FLAG, foreach=NULL | FLAG, fused=NULL | FLAG
            ),
        },
        "torch.optim.SGD": {
            **_OPTIMIZER,
            **optional(momentum=RATE, dampening=number(0, 1), nesterov=FLAG, foreach=NULL | FLAG, fused=NULL | FLAG),
        },
        "vitexp.training.lion.Lion": {**_OPTIMIZER, "betas": pair(RATE)},
        "vitexp.training.muon.Muon": {
            **_OPTIMIZER,
            "momentum": RATE,
            "nesterov": FLAG,
            "update_rms": number(0, 1000, above=True),
            "betas": pair(RATE),
            "eps": number(0, 1, above=True),
            "fused": NULL | FLAG,
        },
    },
    "schedule": {
        "vitexp.training.schedules.CosineWarmup": {**_WARMUP, "min_lr": number(0, 1e4)},
        "vitexp.training.schedules.CosineRestarts": {
            **_WARMUP,
            "min_lr": number(0, 1e4),
            "period_epochs": number(0.01, EPOCHS),
            "period_factor": number(1, 1000),
        },
        "vitexp.training.schedules.Constant": _WARMUP,
    },
    "loss": {
        "vitexp.training.losses.CrossEntropy": _LOSS,
        "vitexp.training.losses.Focal": {**_LOSS, **optional(gamma=number(0, 100))},
        "vitexp.training.losses.BinaryCrossEntropy": _LOSS,
    },
    "task": {
        "vitexp.training.classification.Classifier": {},
        "vitexp.training.masked_autoencoding.MaskedAutoencoding": optional(
            mask_ratio=INSIDE,
            decoder_dim=integer(4, 8192),
            decoder_depth=integer(1, 100),
            decoder_heads=integer(1, 8192),
            normalize_targets=FLAG,
        ),
    },
    "data.source": {
        "vitexp.data.signs.Signs": optional(
            train_per_class=integer(2, 100_000, "an integer of 2 or more (one of them validates), at most 100,000"),
            test_per_class=integer(1, 100_000),
            draw_size=integer(16, 512),
            draw_seed=SEED,
        ),
        "vitexp.data.gtsrb.GTSRB": {
            "root": PATH,
            **optional(download=FLAG, train_set=one_of("auto", "full", "online"), base_url=text("an address")),
        },
        "vitexp.data.cifar.CIFAR": {
            "root": PATH,
            "kind": one_of("cifar10", "cifar100"),
            **optional(download=FLAG),
        },
        "vitexp.data.folder.Folder": {"root": PATH, **optional(test_fraction=INSIDE, split_seed=SEED)},
    },
    "callbacks": {
        "vitexp.training.callbacks.ConfusionMatrix": optional(every_n_epochs=_EVERY),
        "vitexp.training.callbacks.AttentionMaps": optional(every_n_epochs=_EVERY, images=_IMAGES),
        "vitexp.training.callbacks.SamplePredictions": optional(every_n_epochs=_EVERY, right=_UP_TO, wrong=_UP_TO),
        "vitexp.training.callbacks.PositionEmbedding": optional(every_n_epochs=_EVERY),
        "vitexp.training.callbacks.LearningCurves": optional(every_n_epochs=_EVERY),
        "vitexp.training.callbacks.Reconstructions": optional(every_n_epochs=_EVERY, images=integer(1, 8)),
        "vitexp.training.callbacks.AugmentedBatch": optional(images=_IMAGES),
        "vitexp.training.callbacks.Explanations": optional(images=_IMAGES, measured=integer(1, 10**6)),
        "vitexp.training.callbacks.EmbeddingMap": optional(training=integer(3, 10**6)),
        "vitexp.sweeps.search.pruning.Pruning": {
            "journal": PATH,
            "trial": integer(0, 10**9),
            "metric": one_of(*(f"val/{name}" for name in METRICS)),
            "startup": integer(0, 10**9),
            "warmup": integer(0, 10**9),
        },
    },
    "logger": {
        "vitexp.training.loggers.csv_logger": {},
        "vitexp.training.loggers.tensorboard_logger": {},
        "vitexp.training.loggers.wandb_logger": {
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
        "draw_seed": "draw_seed",
    },
    "vitexp.data.gtsrb.GTSRB": {key: key for key in ("root", "download", "train_set", "base_url")},
    "vitexp.data.cifar.CIFAR": {key: key for key in ("root", "download")},
    "vitexp.data.folder.Folder": {"root": "root", "test_fraction": "test_fraction", "split_seed": "split_seed"},
}

"""A real training run compared with the bare step: the cost of loading, augmentation, logging and Lightning."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, open_dict

from vitexp.bench.report import Row, Subject, paired_ratio
from vitexp.bench.step import TrainStep
from vitexp.runs.run import run
from vitexp.system.timing import finished
from vitexp.text import plural
from vitexp.training.classification import Classifier

# One token and sixteen channels: almost no arithmetic, so that only host time remains.
TRIVIAL_NET = {"name": "trivial", "_target_": "vitexp.models.ViT", "dim": 16, "depth": 1, "num_heads": 1}
TRIVIAL_BATCH = 2


class AgainstBareStep(Callback):
    """A callback that runs bare steps of the same net before each epoch, as many as the epoch has.

    The first epoch only warms up. path: the file for {"fit_s": [...], "step_s": [...], "steps": n}, the seconds of each
    epoch and of the bare steps before it. An epoch lasts until the next one starts, so that all of it is counted.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)
        self.fit_s: list[float] = []
        self.step_s: list[float] = []
        self.start: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, datamodule = cast(Classifier, pl_module), cast(Any, trainer).datamodule
        self.step = TrainStep(
            net=copy.deepcopy(module.net),
            optimizer=module.optimizer,
            precision=str(trainer.precision),
            batch_size=datamodule.batch_size,
            image_size=datamodule.image_size,
            clip=trainer.gradient_clip_val,
            device=pl_module.device,
            compiled=module.net._compiled_call_impl is not None,
        )
        self.step.warm_up()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch()
        if trainer.current_epoch == 0:
            return
        start = finished(self.step.device)
        for _ in range(int(trainer.num_training_batches)):
            self.step()
        self.start = finished(self.step.device)
        self.step_s.append(self.start - start)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch()
        rounds = {"fit_s": self.fit_s, "step_s": self.step_s, "steps": int(trainer.num_training_batches)}
        self.path.write_text(json.dumps(rounds), encoding="utf-8")

    def _end_epoch(self) -> None:
        if self.start is not None:
            self.fit_s.append(finished(self.step.device) - self.start)
            self.start = None


def measure_train(config: DictConfig) -> Subject:
    """Measure a run without validation, checkpoints or figures, then a run of a trivial net."""
    measured = _run(config)
    batch, steps = config.data.batch_size, measured["steps"]
    speeds = {key: (steps * batch / np.array(measured[key])).tolist() for key in ("step_s", "fit_s")}
    ratio = paired_ratio(speeds["fit_s"], speeds["step_s"])
    trivial = _run(_trivial(config))
    host = np.subtract(trivial["fit_s"], trivial["step_s"]) / trivial["steps"]
    host_s = float(np.median(host))
    return Subject(
        title=f"Training: {config.model.name} on {config.data.name}, batch {batch}, {plural(steps, 'step')} per epoch",
        unit="images/s",
        comparison="ratio",
        comparison_title="of the bare step",
        rows=[
            Row(name="bare step", rounds=speeds["step_s"], compared=1.0),
            Row(name="trainer.fit", rounds=speeds["fit_s"], compared=ratio),
        ],
        facts={"steps_per_epoch": steps, "overhead_per_step_s": host_s},
        lines=[f"outside the net a step takes {host_s * 1e3:.2f} ms (batch of {TRIVIAL_BATCH}, trivial net)"],
    )


def _run(config: DictConfig) -> dict[str, Any]:
    """Train without validation, checkpoints or figures; return what AgainstBareStep measured."""
    config = copy.deepcopy(config)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, open_dict(config):  # W&B may still write
        path = Path(folder) / "rounds.json"
        config.log_dir = folder
        config.callbacks = {"against": {"_target_": "vitexp.bench.train.AgainstBareStep", "path": str(path)}}
        config.trainer.update(
            max_epochs=config.repeats + 1,
            limit_train_batches=config.steps,
            limit_val_batches=0,
            limit_test_batches=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        config.training.patience = None  # there is no validation
        if "wandb" in config.logger:
            config.logger.wandb.mode = "offline"
        with contextlib.redirect_stdout(io.StringIO()):
            run(config)
        return dict(json.loads(path.read_text(encoding="utf-8")))


def _trivial(config: DictConfig) -> DictConfig:
    config = copy.deepcopy(config)
    with open_dict(config):
        config.model = {**TRIVIAL_NET, "patch_size": config.data.image_size}
        config.data.batch_size = TRIVIAL_BATCH
        config.trainer.compile = "off"
    return config

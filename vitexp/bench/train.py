"""A real training run against the bare step: what loading, augmentation, logging and Lightning add."""

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
from omegaconf import DictConfig, OmegaConf, open_dict

from vitexp.bench.report import Row, Subject, paired_ratio
from vitexp.bench.step import TrainStep
from vitexp.runs.run import run
from vitexp.system.timing import finished
from vitexp.training.classification import Classifier

# One token, sixteen channels: next to no arithmetic, so that what is left is the host's own time.
TRIVIAL_NET = {"name": "trivial", "_target_": "vitexp.models.ViT", "dim": 16, "depth": 1, "num_heads": 1}
TRIVIAL_BATCH = 2


class AgainstBareStep(Callback):
    """In every epoch but the first, which warms up, as many bare steps of the same net before it as it has itself.

    path: file that gets {"fit_s": [...], "step_s": [...], "steps": n}, seconds of each epoch and of the bare steps
    before it. An epoch is counted from its start to the start of what follows, so that nothing of it is left out.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)
        self.fit_s: list[float] = []
        self.step_s: list[float] = []
        self.begun: float | None = None

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
        begun = finished(self.step.device)
        for _ in range(int(trainer.num_training_batches)):
            self.step()
        self.begun = finished(self.step.device)
        self.step_s.append(self.begun - begun)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch()
        told = {"fit_s": self.fit_s, "step_s": self.step_s, "steps": int(trainer.num_training_batches)}
        self.path.write_text(json.dumps(told))

    def _end_epoch(self) -> None:
        if self.begun is not None:
            self.fit_s.append(finished(self.step.device) - self.begun)
            self.begun = None


def measure_train(config: DictConfig) -> Subject:
    """A run as train.py does it, without validation, checkpoints and figures; then one of a trivial net."""
    told = _run(config)
    batch, steps = config.data.batch_size, told["steps"]
    speeds = {key: (steps * batch / np.array(told[key])).tolist() for key in ("step_s", "fit_s")}
    ratio = paired_ratio(speeds["fit_s"], speeds["step_s"])
    trivial = _run(_trivial(config))
    host = np.subtract(trivial["fit_s"], trivial["step_s"]) / trivial["steps"]
    host_s = float(np.median(host))
    return Subject(
        name="train",
        title=f"Training: {config.model.name} on {config.data.name}, batch {batch}, {steps} steps an epoch",
        unit="images/s",
        comparison="ratio",
        comparison_title="of the bare step",
        rows=[
            Row(name="bare step", rounds=speeds["step_s"], compared=1.0),
            Row(name="trainer.fit", rounds=speeds["fit_s"], compared=ratio),
        ],
        facts={"steps_per_epoch": steps, "overhead_per_step_s": host_s},
        lines=[f"beside the net a step takes {host_s * 1e3:.2f} ms (batch of {TRIVIAL_BATCH}, trivial net)"],
    )


def _run(config: DictConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # W&B may still be writing
        path = Path(folder) / "rounds.json"
        config = quiet(config, folder)
        config.trainer.max_epochs = config.repeats + 1
        config.trainer.limit_train_batches = config.steps
        config.callbacks.against_bare_step = {"_target_": "vitexp.bench.train.AgainstBareStep", "path": str(path)}
        with contextlib.redirect_stdout(io.StringIO()):
            run(config)
        return dict(json.loads(path.read_text()))


def quiet(config: DictConfig, folder: str) -> DictConfig:
    """A copy for a run in `folder` that only trains: no validation, checkpoints and figures, W&B offline."""
    config = copy.deepcopy(config)
    with open_dict(config):
        config.log_dir, config.callbacks = folder, {}
        OmegaConf.set_struct(config.callbacks, False)
        config.trainer.update(
            limit_val_batches=0, limit_test_batches=1, enable_checkpointing=False, enable_progress_bar=False
        )
        config.training.patience = None  # there is no validation to wait for
        if "wandb" in config.logger:
            config.logger.wandb.mode = "offline"
    return config


def _trivial(config: DictConfig) -> DictConfig:
    config = copy.deepcopy(config)
    with open_dict(config):
        config.model = {**TRIVIAL_NET, "patch_size": config.data.image_size}
        config.data.batch_size = TRIVIAL_BATCH
        config.trainer.compile = "off"
    return config

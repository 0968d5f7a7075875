"""One run: seed, data, net, training, test, record."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vitexp.config.overrides import merged
from vitexp.data.datamodule import ImageDataModule
from vitexp.runs.build import build_a, build_datamodule, build_module, build_trainer, monitored, try_out
from vitexp.runs.finished import write_weights
from vitexp.runs.outcome import record_outcome
from vitexp.runs.predictions import write_test_predictions
from vitexp.runs.record import RunRecord, metrics_of
from vitexp.runs.resume import is_finished, run_to_resume
from vitexp.runs.summary import closing_line, closing_table, opening_lines
from vitexp.runs.teacher import load_teacher
from vitexp.runs.weights import starting_weights
from vitexp.system.disk import tolerating, typed
from vitexp.system.hardware import choose_device, describe_device, flops_per_image, keep_freed_memory, resolve_compile
from vitexp.system.lock import hold
from vitexp.system.rendezvous import meet_on_loopback
from vitexp.system.signals import StopSignals, die_with_parent
from vitexp.system.terminal import logging_to
from vitexp.training.callbacks.progress import EpochProgress, StopOnNonFiniteLoss
from vitexp.training.checkpoints import (
    DamagedCheckpoint,
    LastCheckpoint,
    Position,
    begin_at,
    newest_checkpoint,
    read_checkpoint,
)
from vitexp.training.classification import Classifier
from vitexp.training.loggers import BackgroundWandbLogger
from vitexp.training.metrics_file import rows_before
from vitexp.training.out_of_memory import explained_out_of_memory
from vitexp.training.task import Task

log = logging.getLogger("vitexp")

LOCK = ".lock"  # in the run folder, held while the run lasts
RUN_FOLDER = "VITEXP_RUN_FOLDER"  # tells the other processes of a distributed run where the first one records


def run(config: DictConfig, *, overrides: Sequence[str] | None = None) -> Path:
    """Train, test and record the run that `config`, a checked configuration, describes; return its folder.

    overrides: what was typed to compose it, for the record; None: what Hydra was given.

    Raises UserError for what a user can fix; result.json then says "failed", with the same sentence. A signal raises
    Interrupted, with the exit code 130 (SIGINT), 143 (SIGTERM) or 138 (SIGUSR1); result.json says "interrupted".
    """
    started = time.time()
    with StopSignals() as stop:
        if RUN_FOLDER in os.environ:
            return _take_part(config, stop, started)
        return _record(config, stop, started, _overrides() if overrides is None else list(overrides))


def _take_part(config: DictConfig, stop: StopSignals, started: float) -> Path:
    """Be one of the other processes of a distributed run, which Lightning starts with the same command."""
    die_with_parent()
    record = RunRecord.of_first_process(Path(os.environ[RUN_FOLDER]))
    _Run(config, record, Console(quiet=True), stop, started).go()
    return record.folder


def _record(config: DictConfig, stop: StopSignals, started: float, overrides: list[str]) -> Path:
    """Begin a run or go on with one, do it, and write down how it ended."""
    console = Console()
    folder = run_to_resume(config)
    if folder is not None and is_finished(folder, config):
        console.print(f"{typed(folder)} is already complete; drop resume= to start a new run.", soft_wrap=True)
        return folder
    with ExitStack() as held:
        if folder is None:
            record = RunRecord.start(config, overrides=merged([], overrides))
        with suppress(OSError):  # some network drives have no locks
            held.enter_context(hold((folder or record.folder) / LOCK, wait=False))
        if folder is not None:
            record = RunRecord.resume(folder, config, overrides=overrides)
        before = dict(os.environ)
        os.environ[RUN_FOLDER] = str(record.folder)
        try:
            with logging_to(record.folder / "train.log", console):
                record_outcome(record, _Run(config, record, console, stop, started).go)
        finally:  # Lightning leaves seeds and ranks behind, which the next run of this process must not find
            os.environ.clear()
            os.environ.update(before)
    return record.folder


class _Run:
    """The parts of one run, from the configuration to the record."""

    def __init__(
        self, config: DictConfig, record: RunRecord, console: Console, stop: StopSignals, started: float
    ) -> None:
        self.config, self.record, self.console, self.stop, self.started = config, record, console, stop, started
        self.folder = record.folder / "checkpoints"

    def go(self) -> None:
        with self.stop.at_once():
            self._go()

    def _go(self) -> None:
        config = self.config
        going_on = newest_checkpoint(self.folder)
        steps = 0 if going_on is None else going_on[1]["steps"]
        earlier = rows_before(self.record.folder / "metrics.csv", steps)
        device = choose_device(config.trainer.accelerator)
        self.loggers: list[Logger] = [
            build_a(Logger, logger, folder=self.record.folder, run_id=self.record.run_id, name=config.name)
            for logger in config.logger.values()
        ]
        wandb = [logger for logger in self.loggers if isinstance(logger, BackgroundWandbLogger)]
        failed = True
        try:
            # All that may refuse its configuration comes before the data are read.
            trainer = self._trainer(device)
            self.store = meet_on_loopback(trainer)
            self.weights = starting_weights(config, going_on=self.record.result if going_on else None)
            self.teacher = load_teacher(config, going_on=self.record.result if going_on else None)
            try_out(config, self.weights)
            datamodule, augment = build_datamodule(config, self.weights)
            if self.teacher is not None:
                self.teacher.refuse_other_classes(datamodule.source.classes)
            for logger in wandb:
                logger.open(OmegaConf.to_container(config, resolve=True), earlier=earlier)  # type: ignore[arg-type]
            datamodule.setup()
            if going_on is not None:
                begin_at(going_on[1], datamodule)
            seed_everything(config.seed, workers=True, verbose=False)
            module = build_module(config, datamodule, augment, self.weights, self.teacher)
            self._describe(trainer, module, datamodule, device, going_on and going_on[1])
            if resolve_compile(config.trainer.compile, device):
                shares = trainer.world_size * trainer.accumulate_grad_batches
                module.compile_net(batch_size=datamodule.batch_size // shares)
            if device.type == "cpu":
                keep_freed_memory()
            with explained_out_of_memory(trainer, model=config.model.name):
                self._fit(trainer, module, datamodule, None if going_on is None else going_on[0])
                self._measure(trainer, module, datamodule)
            self._close()  # before the weights: a full disk must not cost the numbers
            if trainer.is_global_zero:
                self._save_weights(module, datamodule)
            failed = False
        finally:
            for logger in wandb:
                logger.close(failed=failed)

    def _trainer(self, device: torch.device) -> Trainer:
        config = self.config
        self.progress = EpochProgress(
            console=self.console, show_bar=config.trainer.enable_progress_bar, started=self.started
        )
        self.monitor, self.mode = monitored(config)
        self.best = ModelCheckpoint(
            dirpath=self.folder,
            filename="best",
            monitor=self.monitor,
            mode=self.mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        return build_trainer(
            config, device=device, callbacks=self._callbacks(), loggers=self.loggers, folder=self.record.folder
        )

    def _callbacks(self) -> list[Callback]:
        """Those that the run needs, those that training asks for, and those of config.callbacks."""
        config = self.config
        callbacks: list[Callback] = [StopOnNonFiniteLoss(), self.progress]
        if self.loggers:
            callbacks.append(LearningRateMonitor(logging_interval="step"))
        if config.training.ema_decay > 0:
            # Lightning's EMAWeightAveraging rounds, which moves constant buffers such as fixed positions.
            average = get_ema_multi_avg_fn(config.training.ema_decay)  # type: ignore[no-untyped-call]
            callbacks.append(WeightAveraging(multi_avg_fn=average))
        if config.training.patience is not None:
            callbacks.append(EarlyStopping(str(self.monitor), mode=self.mode, patience=config.training.patience))
        if config.trainer.enable_checkpointing:
            last = LastCheckpoint(
                folder=self.folder,
                every_n_steps=config.checkpoint.every_n_steps,
                every_n_minutes=config.checkpoint.every_n_minutes,
                length=[config.trainer.max_epochs, config.trainer.max_steps, config.trainer.max_time],
                stop=self.stop,
            )
            callbacks += [self.best, last]
        return [*callbacks, *(build_a(Callback, callback) for callback in config.callbacks.values())]

    def _describe(
        self,
        trainer: Trainer,
        module: Task,
        datamodule: ImageDataModule,
        device: torch.device,
        going_on: Position | None,
    ) -> None:
        """What the run found, into the record and in the opening lines."""
        config = self.config
        data = {
            "name": config.data.name,
            "train": len(datamodule.train.labels),
            "val": len(datamodule.val.labels),
            "test": len(datamodule.test.labels),
            "classes": len(datamodule.classes),
        }
        model = {
            "name": config.model.name,
            "parameters": sum(parameter.numel() for parameter in module.net.parameters()),
            "flops_per_image": flops_per_image(module.net, config.data.image_size),
        }
        if self.weights is not None:
            model["weights"] = self.weights.told
        if self.teacher is not None:
            model["teacher"] = self.teacher.told
        devices = trainer.num_devices * trainer.num_nodes
        environment = {"device": describe_device(device), "device_count": devices}
        self.record.update(data=data, model=model, environment={**self.record.result["environment"], **environment})

        lines = opening_lines(self.record, config, trainer, datamodule, task=module.describe(), going_on=going_on)
        log.info("\n".join(f"{name:<9} {text}" for name, text in lines.items()))
        for logger in self.loggers:
            if isinstance(logger, BackgroundWandbLogger):
                logger.say_where()
            elif not isinstance(logger, CSVLogger):
                logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]

    def _fit(self, trainer: Trainer, module: Task, datamodule: ImageDataModule, checkpoint: Path | None) -> None:
        with self.stop.patient() if trainer.checkpoint_callbacks else nullcontext():
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        speed = self.progress.images_per_s
        self.record.update(
            epochs=trainer.current_epoch,
            steps=trainer.global_step,
            images_seen=trainer.global_step * datamodule.batch_size,
            timing={
                "fit_s": round(self.progress.fit_s, 3),
                "train_images_per_s": None if speed is None else round(speed, 1),
                "time_to_first_step_s": self.progress.time_to_first_step_s,
                "first_step_s": self.progress.first_step_s,
            },
        )

    def _measure(self, trainer: Trainer, module: Task, datamodule: ImageDataModule) -> None:
        """Load what checkpoint.monitor chose, measure it on validation and test, and keep its weights."""
        val = module.val_metrics()
        if best := self.best.best_model_path:  # none where checkpoints or validation are off
            try:
                checkpoint = read_checkpoint(Path(best))
            except (FileNotFoundError, DamagedCheckpoint) as error:
                log.warning("the last weights are tested, because the best checkpoint was not kept: %s", error)
            else:
                module.load_state_dict(checkpoint["state_dict"])
                val = checkpoint["val_metrics"]
                if (chosen := checkpoint["epoch"] + 1) < self.record.result["epochs"]:
                    log.info("tested    the weights after epoch %d, which checkpoint.monitor chose", chosen)
        [test] = trainer.test(module, datamodule=datamodule, verbose=False)
        if trainer.is_global_zero and isinstance(module, Classifier):
            with tolerating("predictions.csv"):
                probabilities, labels = module.predictions
                write_test_predictions(
                    self.record.folder / "predictions.csv",
                    classes=datamodule.classes,
                    paths=datamodule.test.paths,
                    probabilities=probabilities,
                    labels=labels,
                )
        self.record.update(
            data={**self.record.result["data"], "test": module.images_measured},
            metrics={"test": metrics_of(test, module.metrics), "val": metrics_of(val, module.metrics)},
            timing={"total_s": round(self.progress.total_s, 3), **self.record.result["timing"]},
        )

    def _save_weights(self, module: Task, datamodule: ImageDataModule) -> None:
        header = {
            "model": OmegaConf.to_container(self.config.model, resolve=True),
            "image_size": datamodule.image_size,
            "classes": datamodule.classes,
            "mean": datamodule.mean.tolist(),
            "std": datamodule.std.tolist(),
        }
        write_weights(self.record.folder, module.model.state_dict(), header=header)

    def _close(self) -> None:
        """The closing table and line."""
        with tolerating("the terminal's lines"):
            self.console.print(closing_table(self.record.result))
        log.debug("metrics %s", self.record.result["metrics"])
        log.info(closing_line(self.record.result))


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []

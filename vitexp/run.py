"""One run: seed, data, net, training, test, record."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from vitexp.build import build, build_a, build_datamodule, build_module, try_out
from vitexp.callbacks.finite import StopOnNonFiniteLoss
from vitexp.callbacks.last_checkpoint import LastCheckpoint, begin_at, newest_checkpoint
from vitexp.callbacks.progress import EpochProgress
from vitexp.data.datamodule import ImageDataModule
from vitexp.disk import tolerating
from vitexp.errors import ConfigError
from vitexp.hardware import (
    choose_device,
    describe_device,
    flops_per_image,
    keep_freed_memory,
    resolve_compile,
    resolve_precision,
)
from vitexp.lock import hold
from vitexp.loggers import BackgroundWandbLogger
from vitexp.logs import logging_to
from vitexp.metrics_file import rows_before
from vitexp.outcome import record_outcome
from vitexp.overrides import merged
from vitexp.records import METRICS, RunRecord, typed
from vitexp.rendezvous import meet_on_loopback
from vitexp.resume import is_finished, run_to_resume
from vitexp.signals import Interrupted, StopSignals, die_with_parent
from vitexp.training.checkpoint_io import CheckedCheckpointIO, DamagedCheckpoint, read_checkpoint
from vitexp.training.module import Classifier
from vitexp.training.out_of_memory import explained_out_of_memory

log = logging.getLogger("vitexp")

LOCK = ".lock"  # in the run folder, held while the run lasts
RUN_FOLDER = "VITEXP_RUN_FOLDER"  # tells the other processes of a distributed run where the first one records


def run(config: DictConfig) -> None:
    """Train, test and record the run that `config`, which vitexp.checks has passed, describes.

    Raises UserError for what a person can mend; result.json then says "failed", with the same sentence. A signal that
    asks to stop ends the process with code 130 (SIGINT), 143 (SIGTERM) or 138 (SIGUSR1), and result.json says
    "interrupted".
    """
    started = time.time()
    with StopSignals() as stop:
        try:
            if RUN_FOLDER in os.environ:
                _take_part(config, stop, started)
            else:
                _record(config, stop, started)
        except Interrupted as interrupted:
            sys.exit(interrupted.exit_code)


def _take_part(config: DictConfig, stop: StopSignals, started: float) -> None:
    """Be one of the other processes of a distributed run, which Lightning starts with the same command."""
    die_with_parent()
    record = RunRecord.of_first_process(Path(os.environ[RUN_FOLDER]))
    _Run(config, record, Console(quiet=True), stop, started).go()


def _record(config: DictConfig, stop: StopSignals, started: float) -> None:
    """Begin a run or go on with one, do it, and write down how it ended."""
    console = Console()
    folder = run_to_resume(config)
    if folder is not None and is_finished(folder, config):
        console.print(f"{typed(folder)} is completed; without resume, a new run begins.", soft_wrap=True)
        return
    with ExitStack() as held:
        if folder is None:
            record = RunRecord.start(config, overrides=merged([], _overrides()))
            held.enter_context(hold(record.folder / LOCK, wait=False))
        else:
            held.enter_context(hold(folder / LOCK, wait=False))
            record = RunRecord.resume(folder, config, overrides=_overrides())
        before = dict(os.environ)
        os.environ[RUN_FOLDER] = str(record.folder)
        try:
            with logging_to(record.folder / "train.log", console):
                record_outcome(record, _Run(config, record, console, stop, started).go)
        finally:  # Lightning leaves seeds and ranks behind, which the next run of this process must not find
            os.environ.clear()
            os.environ.update(before)


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
            self._refuse_uneven_shares(trainer)
            self.store = meet_on_loopback(trainer)
            try_out(config)
            datamodule, augment = build_datamodule(config)
            for logger in wandb:
                logger.open(OmegaConf.to_container(config, resolve=True), earlier=earlier)  # type: ignore[arg-type]
            datamodule.setup()
            if going_on is not None:
                begin_at(going_on[1], datamodule)
            seed_everything(config.seed, workers=True, verbose=False)
            module = build_module(config, datamodule, augment)
            self._describe(trainer, module, datamodule, device)
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
        self.best = ModelCheckpoint(
            dirpath=self.folder,
            filename="best",
            monitor=config.checkpoint.monitor,
            mode=config.checkpoint.mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        ours = ("compile", "precision", "plugins")
        arguments = {key: value for key, value in config.trainer.items() if key not in ours}
        trainer: Trainer = build(
            OmegaConf.create({"_target_": "lightning.Trainer", "_convert_": "all", **arguments}),
            precision=resolve_precision(config.trainer.precision, device),
            plugins=[*(config.trainer.plugins or []), CheckedCheckpointIO()],
            logger=self.loggers,
            callbacks=self._callbacks(),
            enable_progress_bar=False,  # ours is among the callbacks
            default_root_dir=str(self.record.folder),
        )
        return trainer

    def _refuse_uneven_shares(self, trainer: Trainer) -> None:
        """Only now is it known how many devices trainer.devices=-1 is."""
        batch, shares = self.config.data.batch_size, trainer.world_size * trainer.accumulate_grad_batches
        if batch % shares:
            raise ConfigError(
                f"data.batch_size={batch} is what one optimizer step sees, and cannot be shared out evenly over "
                f"{trainer.world_size} devices and trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}; "
                f"take a multiple of {shares}."
            )

    def _callbacks(self) -> list[Callback]:
        """Those that the run needs, those that training asks for, and those of config.callbacks."""
        config = self.config
        callbacks: list[Callback] = [StopOnNonFiniteLoss(), self.progress]
        if self.loggers:
            callbacks.append(LearningRateMonitor(logging_interval="step"))
        if config.training.ema_decay > 0:
            callbacks.append(EMAWeightAveraging(decay=config.training.ema_decay))
        if config.training.patience is not None:
            callbacks.append(
                EarlyStopping(config.checkpoint.monitor, mode=config.checkpoint.mode, patience=config.training.patience)
            )
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
        self, trainer: Trainer, module: Classifier, datamodule: ImageDataModule, device: torch.device
    ) -> None:
        """What the run found, into the record and in the opening lines."""
        config, folder = self.config, self.record.folder
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
        devices = trainer.num_devices * trainer.num_nodes
        environment = {"device": describe_device(device), "device_count": devices}
        self.record.update(data=data, model=model, environment={**self.record.result["environment"], **environment})

        found = datamodule.source.describe()
        compiled = "compiled" if resolve_compile(config.trainer.compile, device) else "not compiled"
        accumulated = trainer.accumulate_grad_batches
        shares = devices * accumulated
        shared = [f"{devices} devices"] * (devices > 1) + [f"{accumulated} accumulated"] * (accumulated > 1)
        limit, batches = trainer.limit_train_batches, data["train"] // datamodule.batch_size * accumulated
        steps = math.ceil((min(limit, batches) if isinstance(limit, int) else int(limit * batches)) / accumulated)
        lines = {
            "run": typed(folder),
            "device": (f"{devices} x " if devices > 1 else "")
            + f"{environment['device']}, {trainer.precision}, {compiled}",
            "data": f"{data['name']}{f' ({found})' if found else ''}: {data['train']:,} train, "
            f"{data['val']:,} validation, {data['test']:,} test images, {data['classes']} classes, "
            f"{datamodule.image_size} pixels",
            "model": f"{model['name']}: {model['parameters'] / 1e6:.2f} M parameters, "
            f"{model['flops_per_image'] / 1e6:,.1f} MFLOPs an image",
            "training": f"{trainer.max_epochs} epochs of {steps:,} steps, batch {datamodule.batch_size}"
            + (f" ({' x '.join(shared)} x {datamodule.batch_size // shares})" if shares > 1 else "")
            + f", peak learning rate {config.optim.lr:g}, seed {config.seed}",
        }
        log.info("\n".join(f"{name:<9} {text}" for name, text in lines.items()))
        for logger in self.loggers:
            if isinstance(logger, BackgroundWandbLogger):
                logger.say_where()
            elif not isinstance(logger, CSVLogger):
                logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]

    def _fit(self, trainer: Trainer, module: Classifier, datamodule: ImageDataModule, checkpoint: Path | None) -> None:
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

    def _measure(self, trainer: Trainer, module: Classifier, datamodule: ImageDataModule) -> None:
        """Load the best checkpoint, measure it on validation and test, and keep its weights."""
        val = module.val_metrics()
        if best := self.best.best_model_path:  # none where checkpoints or validation are off
            try:
                checkpoint = read_checkpoint(Path(best))
            except (FileNotFoundError, DamagedCheckpoint) as error:
                log.warning("the last weights are tested, because the best checkpoint was not kept: %s", error)
            else:
                module.load_state_dict(checkpoint["state_dict"])
                val = checkpoint["val_metrics"]
        [test] = trainer.test(module, datamodule=datamodule, verbose=False)
        tested = len(module.predictions[1])
        self.record.update(
            data={**self.record.result["data"], "test": tested},
            metrics={"test": _metrics(test), "val": _metrics(val)},
            timing={"total_s": round(self.progress.total_s, 3), **self.record.result["timing"]},
        )

    def _save_weights(self, module: Classifier, datamodule: ImageDataModule) -> None:
        header = {
            "model": OmegaConf.to_container(self.config.model, resolve=True),
            "image_size": datamodule.image_size,
            "classes": datamodule.classes,
            "mean": datamodule.mean.tolist(),
            "std": datamodule.std.tolist(),
        }
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.net.state_dict().items()}
        path = self.record.folder / "model.safetensors"
        unfinished = path.with_name(f".{path.name}")
        try:
            # one entry only: safetensors writes several in random order, and equal runs would differ in their bytes
            save_file(weights, unfinished, metadata={"vitexp": json.dumps(header)})
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _close(self) -> None:
        """The closing table."""
        result = self.record.result
        table = Table(title=f"{result['name']}, seed {result['seed']}", title_justify="left")
        table.add_column("metric")
        table.add_column(f"test ({result['data']['test']:,} images)", justify="right")
        table.add_column(f"validation ({result['data']['val']:,})", justify="right")
        for name, value in result["metrics"]["test"].items():
            table.add_row(name, *(_shown(name, each) for each in (value, result["metrics"]["val"].get(name))))
        with tolerating("the terminal's lines"):
            self.console.print(table)
        log.debug("metrics %s", result["metrics"])
        timing = result["timing"]
        speed = timing["train_images_per_s"]
        log.info(
            f"trained {result['epochs']} epochs in {timing['fit_s']:,.0f} s"
            + (f" at {speed:,.0f} images/s" if speed else "")
            + f"; {timing['total_s']:,.0f} s in all"
        )


def _metrics(logged: Any) -> dict[str, float | None]:
    """{"test/accuracy": x, ...} as {"accuracy": x, ...}; None for what is not there or no number (no NaN in JSON)."""
    values = {key.partition("/")[2]: float(value) for key, value in logged.items()}
    return {name: values[name] if math.isfinite(values.get(name, math.nan)) else None for name in METRICS}


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if name in ("loss", "ece") else f"{value:.2%}"


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []

"""One run, from top to bottom: open the folder, build the parts, train, test, save the weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from vitexp.config.rules import monitored
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.length import AUTO
from vitexp.runs.build import build_a, build_datamodule, build_module, build_trainer, settle
from vitexp.runs.cleanup import refuse_lost_checkpoints
from vitexp.runs.companions import companions
from vitexp.runs.concerns import concerns, fewer_patches, measured, never_predicted, without_images
from vitexp.runs.finished import write_weights
from vitexp.runs.lifecycle import OpenRun, end_at_once, open_run
from vitexp.runs.predictions import write_test_predictions
from vitexp.runs.probabilities import write_probabilities
from vitexp.runs.record import RunRecord, metrics_of
from vitexp.runs.summary import accuracy_interval, as_text, closing_line, closing_table, opening_lines
from vitexp.runs.teacher import load_teacher
from vitexp.runs.tryout import try_out
from vitexp.runs.wandb_run import close_wandb, log_weights, open_wandb, summarize, wandb_loggers
from vitexp.runs.weights import refuse_unknown_heads, starting_weights
from vitexp.system.disk import tolerating
from vitexp.system.hardware import (
    choose_device,
    describe_device,
    float32_matmul_precision,
    flops_per_image,
    keep_freed_memory,
    resolve_compile,
)
from vitexp.system.output import dropping_unread_output
from vitexp.system.signals import StopSignals
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.best_checkpoint import BestCheckpoint
from vitexp.training.callbacks.averaging import MovingAverage
from vitexp.training.callbacks.divergence import StopOnNonFiniteLoss
from vitexp.training.callbacks.pace import Pace
from vitexp.training.callbacks.progress import EpochProgress
from vitexp.training.callbacks.wandb_test_images import WandbTestImages
from vitexp.training.checkpoints import (
    DamagedCheckpoint,
    LastCheckpoint,
    begin_at,
    drop_previous,
    newest_checkpoint,
    read_checkpoint,
    refuse_other_net,
    set_damaged_aside,
)
from vitexp.training.classification import Classifier
from vitexp.training.early_stopping import EarlyStopping
from vitexp.training.faults import harmless
from vitexp.training.out_of_memory import explained_out_of_memory
from vitexp.training.task import Task

log = logging.getLogger("vitexp")


def run(config: DictConfig, *, overrides: Sequence[str] | None = None) -> Path:
    """Train, test and record the run of `config`, a checked configuration; return its folder.

    overrides: the overrides that composed it, to be recorded; None: taken from Hydra.

    Raises UserError for problems that a user can fix; result.json then says "failed", with the same message, unless
    they are found before training starts: the folder of a new run is then removed. A signal raises Interrupted, with
    the exit code 130 (SIGINT), 143 (SIGTERM), 129 (SIGHUP) or 138 (SIGUSR1); result.json says "interrupted".
    """
    start = time.time()
    if overrides is None:
        overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    with dropping_unread_output(), StopSignals() as stop, open_run(config, overrides=overrides) as opened:
        stop.on_overdue = partial(end_at_once, opened.record, "interrupted")
        if not opened.is_complete:
            with stop.at_once():
                _train_and_test(config, opened, stop, start)
    return opened.record.folder


def _train_and_test(config: DictConfig, opened: OpenRun, stop: StopSignals, start: float) -> None:
    record, checkpoints = opened.record, opened.record.folder / "checkpoints"
    checkpoint, position = newest_checkpoint(checkpoints) or (None, None)  # None for a new run
    if checkpoint is None:
        refuse_lost_checkpoints(record, config)
    earlier, steps = (record.result, position["steps"]) if position else (None, 0)
    device = choose_device(config.trainer.accelerator)
    precision = float32_matmul_precision(config.trainer.float32_matmul_precision, device)
    loggers = _loggers(config, record)
    opened.after.push(lambda kind, error, _: close_wandb(loggers, stop, failed=kind is not None, error=error))
    with precision:
        # Parts that may reject their configuration are built before the data are read.
        progress = EpochProgress(console=opened.console, show_bar=config.trainer.enable_progress_bar, started=start)
        monitor, mode = monitored(config)
        best = BestCheckpoint(checkpoints, monitor=monitor, mode=mode)
        callbacks = _callbacks(config, progress, best, checkpoints, stop, loggers)
        callbacks.append(LambdaCallback(on_train_start=lambda *_: setattr(record, "has_trained", True)))
        trainer = build_trainer(config, device=device, callbacks=callbacks, loggers=loggers, folder=record.folder)
        weights, teacher = starting_weights(config, resumed=earlier), load_teacher(config, resumed=earlier)
        refuse_unknown_heads(weights, config, record.result["overrides"])
        try_out(config, weights)
        datamodule, augment = build_datamodule(config, weights)
        if teacher is not None:
            teacher.refuse_other_classes(datamodule.source.classes)
        log.info("reading the images ...")
        datamodule.setup()
        if position:
            begin_at(position, datamodule)
        settled = settle(config, trainer, datamodule)

        seed_everything(config.seed, workers=True, verbose=False)
        module = build_module(config, datamodule, augment, weights, teacher)
        if checkpoint:
            refuse_other_net(checkpoint, module)
        if not record.has_begun:
            record.begin()
            set_damaged_aside(checkpoints, checkpoint)
        open_wandb(loggers, config, record, steps=steps)  # not before: a refused run is not recorded there either
        sources = {"weights": weights and weights.info, "teacher": teacher and teacher.info}
        _describe(record, settled, trainer, module, datamodule, sources)
        for part in ("val", "test"):  # after their fingerprints, which cover the order, are recorded
            if measured(trainer, datamodule, part) < len(getattr(datamodule, part)):
                datamodule.shuffle(part)
        lines = opening_lines(record, config, trainer, datamodule, task=module.describe(), resumed_from=position)
        console = opened.console
        log.info(as_text(lines, width=console.width if console.is_terminal else None))
        for concern in concerns(config, trainer, datamodule):
            log.warning(concern)
        _describe_to_loggers(loggers, config)
        summarize(loggers, record)

        is_compiled = resolve_compile(config.trainer.compile, device)
        if is_compiled:
            shares = trainer.world_size * trainer.accumulate_grad_batches
            module.compile_net(batch_size=datamodule.batch_size // shares)
        if device.type == "cpu":
            keep_freed_memory()
        with (
            companions(trainer, record.folder, end=partial(end_at_once, record, "failed")),
            explained_out_of_memory(trainer, model=config.model.name),
        ):
            log.info("compiling the network in the first step ..." if is_compiled else "training ...")
            try:
                with stop.patient() if trainer.checkpoint_callbacks else nullcontext():
                    trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
            finally:
                if trainer.global_step or trainer.state.finished:  # neither if it failed before it read its checkpoint
                    _record_training(record, trainer, datamodule, progress)
            if not trainer.global_step:
                log.warning("training ended before its first optimizer step, so the weights are not trained.")
            summarize(loggers, record)
            unsaved = _test(record, config, trainer, module, datamodule, best, console)
            record.update(timing={"total_s": round(progress.total_s, 3), **record.result["timing"]})
        log.debug("metrics %s", record.result["metrics"])
        log.info("\n".join(filter(None, (accuracy_interval(record.result), closing_line(record.result)))))
        if unsaved is not None:
            raise unsaved
        if trainer.is_global_zero:
            with suppress(OSError):
                drop_previous(checkpoints)


def _loggers(config: DictConfig, record: RunRecord) -> list[Logger]:
    return [
        harmless(build_a(Logger, logger, "logger", folder=record.folder, run_id=record.run_id, name=config.name))
        for logger in config.logger.values()
    ]


def _callbacks(
    config: DictConfig,
    progress: EpochProgress,
    best: BestCheckpoint,
    checkpoints: Path,
    stop: StopSignals,
    loggers: Sequence[Logger],
) -> list[Callback]:
    """Return the callbacks that every run needs, and those of config.training and config.callbacks."""
    training = config.training
    callbacks: list[Callback] = [StopOnNonFiniteLoss(), progress]
    if loggers:
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    if training.ema_decay > 0:
        callbacks.append(MovingAverage(decay=training.ema_decay))
    if training.patience is not None:
        callbacks.append(EarlyStopping(str(best.monitor), mode=best.mode, epochs=training.patience))
    length = config.trainer
    is_chosen = length.max_epochs == AUTO and length.max_steps == -1 and length.max_time is None
    callbacks.append(Pace(warns=is_chosen and not length.fast_dev_run, advice=fewer_patches(config)))
    if config.trainer.enable_checkpointing:
        last = LastCheckpoint(
            folder=checkpoints,
            every_n_steps=config.checkpoint.every_n_steps,
            every_n_minutes=config.checkpoint.every_n_minutes,
            length=[_plain(config.trainer[key]) for key in ("max_epochs", "max_steps", "max_time")],
            stop=stop,
        )
        callbacks += [last] if best.monitor is None else [best, last]
    callbacks += [build_a(Callback, callback, "callbacks") for callback in config.callbacks.values()]
    return [*callbacks, WandbTestImages()] if wandb_loggers(loggers) else callbacks


def _plain(value: Any) -> Any:
    """Return a value of the configuration as a checkpoint may contain it."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _describe(
    record: RunRecord,
    config: DictConfig,
    trainer: Trainer,
    module: Task,
    datamodule: ImageDataModule,
    sources: dict[str, Any],
) -> None:
    """Record the sizes of data and model, the lengths, and the devices.

    config: settled. sources: the origin of weights and teacher, if any.
    """
    device = trainer.strategy.root_device
    record.update(
        data={
            "name": config.data.name,
            **({"root": where} if (where := config.data.get("path") or config.data.root) else {}),
            "train": len(datamodule.train.labels),
            "val": len(datamodule.val.labels),
            "test": len(datamodule.test.labels),
            "classes": len(datamodule.classes),
            "unread": datamodule.source.unread(),
            "fingerprints": {"train": datamodule.fingerprint, "test": datamodule.test.fingerprint(datamodule.classes)},
        },
        training={"batch_size": config.data.batch_size, "max_epochs": config.trainer.max_epochs},
        model={
            "name": config.model.name,
            "parameters": sum(parameter.numel() for parameter in module.net.parameters()),
            "flops_per_image": flops_per_image(module.net, config.data.image_size),
            **{name: source for name, source in sources.items() if source},
        },
        environment={
            **record.result["environment"],
            "device": describe_device(device),
            "device_count": trainer.num_devices * trainer.num_nodes,
        },
    )


def _describe_to_loggers(loggers: Sequence[Logger], config: DictConfig) -> None:
    for logger in loggers:
        if isinstance(logger, BackgroundWandbLogger):
            logger.say_where()
        elif not isinstance(logger, CSVLogger):
            logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def _record_training(record: RunRecord, trainer: Trainer, datamodule: ImageDataModule, progress: EpochProgress) -> None:
    speed = progress.images_per_s
    record.update(
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        images_seen=trainer.global_step * datamodule.batch_size,
        timing={
            "fit_s": round(progress.fit_s, 3),
            "train_images_per_s": None if speed is None else round(speed, 1),
            "time_to_first_step_s": progress.time_to_first_step_s,
            "first_step_s": progress.first_step_s,
        },
    )


def _test(
    record: RunRecord,
    config: DictConfig,
    trainer: Trainer,
    module: Task,
    datamodule: ImageDataModule,
    best: BestCheckpoint,
    console: Console,
) -> Exception | None:
    """Record the metrics of the weights that checkpoint.monitor chose, or else the last, on validation and test.

    Metrics and weights are written, and the metrics printed, before the figures are drawn. Returns the error if the
    weights were not written.
    """
    chosen_val = _load_best(module, best, epochs=record.result["epochs"])
    val = module.val_metrics() if chosen_val is None else chosen_val
    if not val and trainer.limit_val_batches != 0:  # the training ended between two validations
        trainer.validate(module, datamodule=datamodule, verbose=False)
        val = module.val_metrics()
    unsaved: list[Exception] = []

    def write(trainer: Trainer, module: Any) -> None:
        test = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        record.update(
            data={
                **record.result["data"],
                "val": measured(trainer, datamodule, "val"),
                "test": module.images_measured,
            },
            metrics={"test": metrics_of(test, module.metrics), "val": metrics_of(val, module.metrics)},
        )
        if trainer.is_global_zero:  # after the metrics, so that a full disk does not lose them
            if isinstance(module, Classifier):
                _save_predictions(record.folder, module, datamodule)
            try:
                write_weights(
                    record.folder,
                    module.model.state_dict(),
                    model=config.model,
                    image_size=datamodule.image_size,
                    classes=datamodule.classes,
                    mean=datamodule.mean,
                    std=datamodule.std,
                )
            except Exception as error:  # raised once the numbers have been printed
                unsaved.append(error)
            with tolerating("terminal output"):
                console.print(closing_table(record.result))
            if isinstance(module, Classifier) and not config.trainer.debug:
                _warn_about_classes(module, datamodule)

    first: Any = LambdaCallback(on_test_end=write)
    trainer.callbacks.insert(0, first)  # type: ignore[attr-defined]
    trainer.test(module, datamodule=datamodule, verbose=False)
    if not unsaved:
        log_weights(trainer.loggers, record, chosen=chosen_val is not None)
    return unsaved[0] if unsaved else None


def _load_best(module: Task, best: BestCheckpoint, *, epochs: int) -> dict[str, Any] | None:
    """Load the weights that checkpoint.monitor chose and return their validation metrics.

    None if the module keeps its last weights: no checkpoint was chosen, or it cannot be read. epochs: of the training.
    """
    if not best.best_model_path:  # "" without checkpoints or validation, and for checkpoint.monitor=null
        return None
    try:
        checkpoint = read_checkpoint(Path(best.best_model_path))
    except (FileNotFoundError, DamagedCheckpoint) as error:
        log.warning("the last weights are tested, because the best checkpoint was not kept: %s", error)
        return None
    module.load_state_dict(checkpoint["state_dict"])
    if (epoch := checkpoint["epoch"] + 1) < epochs:
        log.info("tested    the weights after epoch %d, chosen by checkpoint.monitor", epoch)
    return dict(checkpoint["val_metrics"])


def _save_predictions(folder: Path, module: Classifier, datamodule: ImageDataModule) -> None:
    """Write the predictions of the test images and, in a cross-validation, all probabilities, to average the folds."""
    probabilities, labels = module.predictions
    with tolerating("predictions.csv"):
        write_test_predictions(
            folder / "predictions.csv",
            classes=datamodule.classes,
            images=datamodule.test,
            probabilities=probabilities,
            labels=labels,
        )
    if datamodule.folds is not None:
        with tolerating("test_probabilities.npz"):
            write_probabilities(folder, probabilities.cpu().numpy(), labels.cpu().numpy())


def _warn_about_classes(module: Classifier, datamodule: ImageDataModule) -> None:
    """Warn of classes that were never predicted on the test images, or have none."""
    probabilities, labels = module.predictions
    for concern in (
        never_predicted(probabilities, labels, datamodule.classes, imbalance=datamodule.imbalance),
        without_images(labels, datamodule.classes),
    ):
        if concern:
            log.warning(concern)

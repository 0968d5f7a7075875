"""Report a trial to its search epoch by epoch, and stop the training if the other trials did better."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from lightning import Callback, LightningModule, Trainer

from vitexp.sweeps.search.study import Reporter
from vitexp.system.disk import tolerating

log = logging.getLogger(__name__)


class Pruning(Callback):
    """A callback that reports `metric` to the journal after each validated epoch; the search adds it to its trials.

    A pruned training ends like one that stops early: its best checkpoint is tested, and its record is complete.

    journal: the file of the study. trial: its number in the study. metric: a logged validation scalar. startup, warmup:
    completed trials, and epochs of this one, before it can be pruned.
    """

    can_change_result: ClassVar[bool] = False  # a trial is the same run with and without its search

    def __init__(self, *, journal: str, trial: int, metric: str, startup: int, warmup: int) -> None:
        self.journal, self.trial, self.metric = Path(journal), trial, metric
        self.startup, self.warmup = startup, warmup
        self.reporter: Reporter | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.reporter = Reporter.open(self.journal, self.trial, startup=self.startup, warmup=self.warmup)
            if self.reporter is None:  # the trial is repeated from its config.yaml
                log.warning("%s has no unfinished trial %d, so this run is not pruned", self.journal, self.trial)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Other trials are compared at the ends of epochs, so a validation within an epoch is not reported.
        if trainer.sanity_checking or not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        epoch, prune = trainer.current_epoch + 1, False
        with tolerating("the search's journal"):
            if self.reporter is not None:
                prune = self.reporter.report(float(trainer.callback_metrics[self.metric]), epoch=epoch)
        prune = trainer.strategy.reduce_boolean_decision(prune, all=False)  # the other processes have no reporter
        if prune and epoch != trainer.max_epochs and not trainer.should_stop:
            trainer.should_stop = True
            log.info("pruned after epoch %d: worse than the median of the other trials", epoch)
            with tolerating("the search's journal"):
                if self.reporter is not None:
                    self.reporter.mark_pruned()

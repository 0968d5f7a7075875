"""One evaluation: measure, write and print what was asked for."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from vitexp.errors import ConfigError, UserError
from vitexp.evaluate import calibration, export, printed, robustness
from vitexp.evaluate.latency import measure_latency
from vitexp.evaluate.options import Options
from vitexp.evaluate.per_class import (
    ClassRow,
    Confusion,
    as_csv,
    class_rows,
    classes_as_markdown,
    confusions_as_markdown,
    confusions_by_cost,
)
from vitexp.evaluate.views import predict_views, views
from vitexp.explain import figures
from vitexp.runs.find import newest_run
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.predict import measured, predict
from vitexp.runs.record import environment
from vitexp.runs.test_set import TestSet, open_test_set
from vitexp.system.disk import typed, write_atomically
from vitexp.system.hardware import choose_device, describe_device, keep_freed_memory
from vitexp.training.classification import classification_metrics

MISTAKES = 20
COMPARED = 256  # images on which an exported net is compared
_OPTIONAL = ("test_time_augmentation", "corruptions", "latency", "export")
# Between machines, or compiled and not, the last bits of a logit differ, and with luck one prediction in a thousand.
_AGREES = 2e-3


def evaluate(options: Options) -> dict[str, Any]:
    """Do what `options` ask for; evaluation.json as it was written. Raises UserError for what a person can mend."""
    started = time.time()
    try:
        device = choose_device(options.device)
    except ConfigError as error:
        raise ConfigError(
            f"device={options.device}, but torch finds none here; device=cpu works everywhere."
        ) from error
    if device.type == "cpu":
        keep_freed_memory()
    run = load_run(options.run or newest_run(options.log_dir), device=device)
    export.refuse_impossible(run, options.export)
    run, test = open_test_set(run, options.data, config_dir=options.config_dir)
    evaluation = _Evaluation(run, test, _folder(options, run, test))
    evaluation.basics()
    if options.tta:
        evaluation.test_time_augmentation()
    if options.corruptions:
        evaluation.robustness(images=options.corruption_images)
    if options.latency:
        evaluation.latency()
    for kind in options.export:
        evaluation.export(kind)
    return evaluation.finish(seconds=time.time() - started)


def _folder(options: Options, run: FinishedRun, test: TestSet) -> Path:
    """The results on other data do not take the place of those on the run's own."""
    own = run.folder / "evaluation"
    folder = Path(options.out).expanduser() if options.out else own if test.own else own / f"on-{test.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}; out=FOLDER names another.") from error
    return folder


class _Evaluation:
    """What is known so far, in `told`; evaluation.json is written anew after each part, for the next one may fail."""

    def __init__(self, run: FinishedRun, test: TestSet, folder: Path) -> None:
        self.run, self.test, self.folder, self.console = run, test, folder, Console()
        self.labels = torch.from_numpy(test.labels)
        self.told: dict[str, Any] = {
            "schema": 1,
            "run": {"folder": str(run.folder), "run_id": run.result.get("run_id"), "name": run.config.name},
            "data": {
                "name": test.name,
                "images": len(test.labels),
                "of_the_run": test.own,
                "classes": len(run.classes),
            },
            "model": run.config.model.get("name"),
            "precision": run.precision,
            "environment": {**environment(), "device": describe_device(run.device), "device_count": 1},
            "evaluated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "notes": list(_notes(run, test)),
        }
        self._keep_earlier()

    def _keep_earlier(self) -> None:
        """What an earlier evaluation of the same net on the same images and machine measured, and this one may not."""
        try:
            earlier = json.loads((self.folder / "evaluation.json").read_text())
            same = all(earlier[key] == self.told[key] for key in ("run", "data", "precision"))
            if same and earlier["environment"]["device"] == self.told["environment"]["device"]:
                self.told |= {key: earlier[key] for key in _OPTIONAL if key in earlier}
        except (OSError, ValueError, KeyError, TypeError):
            return  # there is none, or it is damaged

    def basics(self) -> None:
        """Metrics, classes, confusions, calibration and mistakes: all that one pass over the images gives."""
        with self._measuring("test"):
            logits = predict(self.run, self.test.images)
        if not bool(logits.isfinite().all()):
            raise UserError(f"the net of {self.run.folder} gives no finite numbers; its weights are of no use.")
        self.told["metrics"] = measured(logits, self.labels)
        recorded = (self.run.result.get("metrics") or {}).get("test")
        if self.test.own and recorded and self.run.result["data"]["test"] == len(self.labels):
            self.told["result_json"] = recorded
            both = [(self.told["metrics"][name], each) for name, each in recorded.items() if each is not None]
            difference = max((abs(now - then) for now, then in both), default=0.0)
            self.told["largest_difference_to_result_json"] = difference
            if difference > _AGREES:
                self._note(
                    f"these numbers differ from result.json by up to {difference:.4f}: are these the same images?"
                )
        self.console.print(printed.metrics(self.told))
        self._write()
        self._classes(logits)
        self._calibration(logits)
        self._mistakes(logits)

    def _classes(self, logits: Tensor) -> None:
        names = self.run.classes
        confidence, predicted = (each.numpy() for each in logits.softmax(dim=1).max(dim=1))
        counts = figures.confusion_counts(predicted, self.test.labels, len(names))
        rows = class_rows(counts, names, confidence=confidence, labels=self.test.labels)
        confusions = confusions_by_cost(counts, names)
        self._text("per_class.csv", as_csv(rows, ClassRow))
        self._text("confusions.csv", as_csv(confusions, Confusion))
        lines = ["# Classes\n", classes_as_markdown(rows), "# Confusions, by what they cost\n"]
        self._text("per_class.md", "\n".join([*lines, confusions_as_markdown(confusions)]))
        figures.confusion_matrix(counts=counts, class_names=names).savefig(self.folder / "confusion_matrix.png")
        self.told["worst_classes"] = [
            {"name": row.name, "recall": row.recall, "images": row.images}
            for row in sorted((row for row in rows if row.recall is not None), key=lambda row: row.recall or 0.0)[:5]
        ]
        self.told["worst_confusions"] = [dataclasses.asdict(each) for each in confusions[:10]]
        self.console.print(printed.confusions(confusions))

    def _calibration(self, logits: Tensor) -> None:
        """The temperature is fitted on the validation images of the run, whatever is tested."""
        before = calibration.reliability(logits.softmax(dim=1), self.labels)
        ece = self.told["metrics"]["ece"]
        told: dict[str, Any] = {"ece": ece, "bins": calibration.as_numbers(before), "temperature": None}
        panels = [_panel(f"As trained: ECE {ece:.4f}", before)]
        validation = self._validation()
        if validation is not None:
            val_logits, val_labels = validation
            temperature = calibration.fit_temperature(val_logits, val_labels)
            scaled = calibration.calibrated(logits, self.labels, temperature)
            told |= {
                "temperature": temperature,
                "fitted_on": {"name": self.run.config.data.name, "part": "validation", "images": len(val_labels)},
                "ece_scaled": scaled["ece"],
                "loss_scaled": scaled["loss"],
            }
            after = calibration.reliability((logits / temperature).softmax(dim=1), self.labels)
            panels.append(_panel(f"Temperature {temperature:.3f}: ECE {scaled['ece']:.4f}", after))
        self.told["calibration"] = told
        title = f"Calibration on {len(self.labels):,} test images of {self.test.name}"
        figures.reliability_diagram(panels=panels, title=title).savefig(self.folder / "calibration.png")
        self.console.print(printed.calibration(told), soft_wrap=True)
        self._write()

    def _validation(self) -> tuple[Tensor, Tensor] | None:
        """Logits and labels of the run's validation images, or None and a note where these are not to be had."""
        try:
            with self._measuring("validation"):
                part = self.run.data.val
        except UserError as error:
            self._note(f"no temperature was fitted, for the run's own validation images are not there: {error}")
            return None
        if self.run.data.classes != self.run.classes:
            self._note("no temperature was fitted, for the run's own data set has other classes now.")
            return None
        with self._measuring("validation"):
            return predict(self.run, part), torch.from_numpy(part.labels)

    def _mistakes(self, logits: Tensor) -> None:
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        wrong = (predicted != self.labels).nonzero().squeeze(1)
        if not len(wrong):
            self._note("there is no mistake to show.")
            return
        order = confidence[wrong].sort(descending=True, stable=True).indices[:MISTAKES]
        chosen, names = wrong[order], self.run.classes
        figures.confident_mistakes(
            images=self.test.images.images(chosen.numpy()),
            truth=[names[label] for label in self.labels[chosen]],
            predicted=[names[label] for label in predicted[chosen]],
            confidence=confidence[chosen].tolist(),
            errors=len(wrong),
            of=len(self.labels),
        ).savefig(self.folder / "confident_mistakes.png")

    def test_time_augmentation(self) -> None:
        with self._measuring("views"):
            probabilities = predict_views(self.run, self.test.images)
        metrics = {name: float(each) for name, each in classification_metrics(probabilities, self.labels).items()}
        # the loss of a mean of probabilities; none is 0, for each is a mean of softmaxes
        metrics["loss"] = float(torch.nn.functional.nll_loss(probabilities.log(), self.labels))
        self.told["test_time_augmentation"] = {"views": list(views(self.run)), "metrics": metrics}
        self.console.print(printed.test_time(self.told))
        self._write()

    def robustness(self, *, images: int) -> None:
        found = robustness.measure_robustness(self.run, self.test, images=images)
        self.told["corruptions"] = robustness.as_numbers(found)
        self._text("corruptions.md", robustness.as_markdown(found))
        self._text("corruptions.csv", robustness.as_csv(found))
        figures.robustness_curves(
            clean=found.clean, accuracy=found.accuracy, examples=found.examples, images=found.images
        ).savefig(self.folder / "corruptions.png")
        self.console.print(printed.corruptions(self.told["corruptions"]))
        self._write()

    def latency(self) -> None:
        rows = measure_latency(self.run)
        self.told["latency"] = [dataclasses.asdict(row) for row in rows]
        self.console.print(printed.latency(rows, self.told))
        self._write()

    def export(self, kind: str) -> None:
        rows = np.linspace(0, len(self.labels) - 1, min(COMPARED, len(self.labels))).astype(np.int64)
        images = self.test.images.images(rows)
        told = export.export(self.run, kind, self.folder, images=images)
        self.told.setdefault("export", {})[kind] = told
        self.console.print(printed.export(kind, told, self.folder), soft_wrap=True)
        self._write()

    def finish(self, *, seconds: float) -> dict[str, Any]:
        self.told["seconds"] = round(seconds, 1)
        self._write()
        for note in self.told["notes"]:
            self.console.print(f"note      {note}", soft_wrap=True, highlight=False)
        self.console.print(f"results   {typed(self.folder.resolve())}", soft_wrap=True, highlight=False)
        return self.told

    def _note(self, words: str) -> None:
        self.told["notes"].append(words)

    def _text(self, name: str, text: str) -> None:
        try:
            write_atomically(self.folder / name, text)
        except OSError as error:
            raise UserError(
                f"cannot write into {self.folder}: {error.strerror or error}; out= names another."
            ) from error

    def _write(self) -> None:
        self._text("evaluation.json", json.dumps(self.told, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    @contextmanager
    def _measuring(self, what: str) -> Iterator[None]:
        with self.console.status(f"{what} ..."):
            yield


def _panel(title: str, found: calibration.Reliability) -> figures.ReliabilityPanel:
    return figures.ReliabilityPanel(
        title=title, accuracy=found.accuracy, confidence=found.confidence, counts=found.counts
    )


def _notes(run: FinishedRun, test: TestSet) -> Iterator[str]:
    """What a reader of the numbers must know."""
    tested = (run.result.get("data") or {}).get("test")
    if test.own and tested is not None and tested != len(test.labels):
        yield f"result.json tells of {tested:,} test images, so its numbers are not compared with these."
    drawn = run.config.data.source.get("_target_") == "vitexp.data.signs.Signs"
    if drawn and test.config.data.source.get("_target_") == "vitexp.data.gtsrb.GTSRB":
        yield (
            "the drawing of the signs was developed with a look at 3,000 images of the official GTSRB test part, so "
            "this is not the accuracy on a test set that was never seen."
        )

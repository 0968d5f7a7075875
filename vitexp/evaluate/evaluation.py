"""Measure a finished run on its own test set or on another one, write the results and print them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vitexp.data.gtsrb import GTSRB
from vitexp.errors import ConfigError, UserError
from vitexp.evaluate import tables
from vitexp.evaluate.calibration import measure_calibration
from vitexp.evaluate.captions import CAPTIONS
from vitexp.evaluate.export import export_network, refuse_impossible
from vitexp.evaluate.hub_push import push_folder, refuse_unusable_push
from vitexp.evaluate.latency import measure_latency
from vitexp.evaluate.per_class import ClassRow, Confusion, class_rows, confusions_by_cost
from vitexp.evaluate.probes import measure_probes
from vitexp.evaluate.robustness import measure_robustness
from vitexp.evaluate.timm_export import NotInTimm
from vitexp.evaluate.views import predict_views, views
from vitexp.explain import figures
from vitexp.metrics import METRICS
from vitexp.runs.concerns import without_images
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.gallery import Rows, write_gallery
from vitexp.runs.predictions import write_csv, write_test_predictions
from vitexp.runs.record import data_set, environment, is_pretraining
from vitexp.runs.test_set import TestSet, open_test_set
from vitexp.system.disk import typed, write_atomically
from vitexp.system.hardware import choose_device, describe_device, keep_freed_memory
from vitexp.system.terminal import plain_console
from vitexp.text import plural
from vitexp.training.classification import classification_metrics

MISTAKES = 20
_COMPARED = 256  # images on which an exported network is compared
_LISTED = 10  # confusions in the terminal
_OPTIONAL = ("test_time_augmentation", "corruptions", "latency", "probes", "export")

# Different hardware or compilation changes the last bits of a logit and, rarely, one prediction in a thousand.
_TOLERANCE = 2e-3


def evaluate(
    folder: Path | str,
    *,
    data: Sequence[str] = (),
    config_dir: Path | str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    tta: bool = False,
    corruptions: bool = False,
    corruption_images: int = 2000,
    latency: bool = False,
    probe: Sequence[str] = (),
    export: Sequence[str] = (),
    push: str = "",
) -> dict[str, Any]:
    """Evaluate the run in `folder` and return the contents of evaluation.json; see vitexp/commands/evaluate.py.

    data: overrides of the data set (data=..., data.key=value); config_dir: a folder of further options for them.
    out: the folder of the results, RUN/evaluation by default. probe: any of "knn", "linear"; nothing else is measured
    of a pretraining run, whose classifier was never trained. export: any of "onnx", "timm", "hub"; if one of them
    cannot hold the network, a note says so, and the others are written. push: OWNER/NAME on the Hugging Face Hub, to
    upload the folder of "hub".
    Raises UserError (ConfigError if an argument is wrong).
    """
    start = time.time()
    if push:
        refuse_unusable_push(push, export)
    on = choose_device(device, key="device")
    if on.type == "cpu":
        keep_freed_memory()
    run = load_run(folder, device=on, accept_pretraining=bool(probe))
    if is_pretraining(run.result) and (tta or corruptions or latency or export):
        raise ConfigError("a pretraining run has no classifier; only probe= measures it, so remove the other keys.")
    impossible = _impossible(run, export)
    run, test = open_test_set(run, data, config_dir=config_dir)
    if probe and not test.own:
        raise ConfigError(f"probe={','.join(probe)} measures the run's own images; remove data= or probe=.")
    if out is None:  # results on other data must not replace those on the run's own test set
        out = run.folder / "evaluation" / ("" if test.own else f"on-{test.name}")
    print(f"images    {plural(len(test.images), 'image')} of {test.name}: {test.about}")
    print(f"classes   {test.matching}")
    evaluation = _Evaluation(run, test, Path(out).expanduser())
    if is_pretraining(run.result):
        evaluation.probe(probe)
        return evaluation.finish(seconds=time.time() - start)
    evaluation.test()
    if probe:
        evaluation.probe(probe)
    if tta:
        evaluation.test_time_augmentation()
    if corruptions:
        evaluation.robustness(images=corruption_images)
    if latency:
        evaluation.latency()
    for kind in export:
        if kind in impossible:
            evaluation.note(impossible[kind])
            continue
        try:
            evaluation.export(kind, repository=push)
        except NotInTimm as error:  # found only by comparing logits
            if len(set(export)) == 1:
                raise
            evaluation.note(str(error))
    results = evaluation.finish(seconds=time.time() - start)
    if push:
        url = push_folder(evaluation.folder / "hub", push)
        print(f"pushed    {url}; a new repository is private until you change that in {url}/settings")
    return results


def _impossible(run: FinishedRun, formats: Sequence[str]) -> dict[str, str]:
    """Return why the network cannot be exported in some of the formats. Raises UserError if none of them works."""
    sentences: dict[str, str] = {}
    for kind in formats:
        try:
            refuse_impossible(run, [kind])
        except UserError as error:
            if len(sentences) + 1 == len(set(formats)):
                raise
            sentences[kind] = str(error)
    return sentences


class _Evaluation:
    """The results so far; evaluation.json is written after each part, because the next one may fail."""

    def __init__(self, run: FinishedRun, test: TestSet, folder: Path) -> None:
        self.run, self.test_set, self.folder, self.console = run, test, folder, plain_console()
        self.labels = torch.from_numpy(test.labels)
        self.tables: dict[str, tables.Table] = {}  # of the page
        self.drawn: list[str] = []
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        data = {
            "name": test.name,
            "images": len(test.labels),
            "of_the_run": test.own,
            "classes": len(run.classes),
            "fingerprint": test.fingerprint,
            "evaluated": test.about,
            "matching": test.matching,
        }
        self.results: dict[str, Any] = {
            "schema": 1,
            "run": {"folder": str(run.folder), "run_id": run.result.get("run_id"), "name": run.config.name},
            "data": data,
            "model": run.config.model.get("name"),
            "precision": run.precision,
            "environment": {**environment(), "device": describe_device(run.device), "device_count": 1},
            "evaluated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "notes": list(_notes(run, test)),
        }
        self._keep_earlier()

    def _keep_earlier(self) -> None:
        """Keep optional results of an earlier evaluation of this network on the same images and device."""
        try:
            earlier = json.loads((self.folder / "evaluation.json").read_text(encoding="utf-8"))
            same = all(earlier[key] == self.results[key] for key in ("run", "data", "precision"))
            if same and earlier["environment"]["device"] == self.results["environment"]["device"]:
                self.results |= {key: earlier[key] for key in _OPTIONAL if key in earlier}
        except (OSError, ValueError, KeyError, TypeError):
            return  # there is none, or it is damaged

    def test(self) -> None:
        """Measure everything that needs one pass over the test images."""
        with self.console.status("test ..."):
            logits = self.run.all_logits(self.test_set.images)
        if not bool(logits.isfinite().all()):
            raise UserError(f"the network of {self.run.folder} outputs NaN or infinity; its weights are unusable.")
        self._metrics(logits)
        self._classes(logits)
        self._calibration(logits)
        if not self.test_set.own:
            self._note_training_images()
        self._mistakes(logits)

    def _metrics(self, logits: Tensor) -> None:
        loss = F.cross_entropy(logits, self.labels, reduction="none").mean()
        metrics = self.results["metrics"] = _metrics(logits.softmax(dim=1), loss, self.labels)
        if absent := without_images(self.labels, self.run.classes):
            self.note(absent)
        columns = {"evaluated": metrics}
        recorded = (self.run.result.get("metrics") or {}).get("test")
        if self.test_set.own and recorded and (self.run.result.get("data") or {}).get("test") == len(self.labels):
            columns["result.json"] = self.results["result_json"] = recorded
            both = [(metrics[name], value) for name, value in recorded.items() if name in metrics and value is not None]
            differences = [abs(mine - theirs) for mine, theirs in both]
            difference = self.results["largest_difference_to_result_json"] = max(differences, default=0.0)
            if difference > _TOLERANCE:
                self.note(f"these metrics differ from result.json by up to {difference:.4f}; check the test images.")
        title = f"{self.run.config.name} on {len(self.labels):,} test images of {self.test_set.name}"
        table = tables.metric_table(title, columns)
        self._record({}, table.rich())
        self.tables["metrics"] = table
        with self._writing():
            write_test_predictions(
                self.folder / "predictions.csv",
                classes=self.run.classes,
                images=self.test_set.images,
                probabilities=logits.softmax(dim=1),
                labels=self.labels,
            )

    def _classes(self, logits: Tensor) -> None:
        names = self.run.classes
        confidence, predicted = (each.numpy() for each in logits.softmax(dim=1).max(dim=1))
        counts = figures.confusion_counts(predicted, self.test_set.labels, len(names))
        rows = class_rows(counts, names, confidence=confidence, labels=self.test_set.labels)
        confusions = confusions_by_cost(counts, names)
        classes, costs = tables.class_table(rows), tables.confusion_table(confusions)
        with self._writing():
            for name, kind, lines in (("per_class", ClassRow, rows), ("confusions", Confusion, confusions)):
                header = [field.name for field in fields(kind)]
                write_csv(self.folder / f"{name}.csv", header, [astuple(line) for line in lines])
            text = f"# {classes.title}\n\n{classes.markdown()}\n# {costs.title}\n\n{costs.markdown()}"
            write_atomically(self.folder / "per_class.md", text)
        self._figure("confusion_matrix", figures.confusion_matrix(counts=counts, class_names=names, part="test"))
        self.tables["classes"] = classes
        self.tables["confusions"] = costs
        with_images = sorted((row for row in rows if row.recall is not None), key=lambda row: row.recall or 0.0)
        worst = [{"name": row.name, "recall": row.recall, "images": row.images} for row in with_images[:5]]
        results = {"worst_classes": worst, "worst_confusions": [asdict(each) for each in confusions[:10]]}
        self._record(results, costs.rich(_LISTED))

    def _calibration(self, logits: Tensor) -> None:
        name, percent = data_set(self.run.config.data), METRICS["ece"].format
        results, panels = measure_calibration(logits, self.labels, validation=self._validation())
        summary = f"calibration: ECE {percent(results['ece'])}"
        if results["temperature"] is not None:
            results["fitted_on"] |= {"name": name, "part": "validation"}
            summary += (
                f"; {percent(results['ece_scaled'])} at temperature {results['temperature']:.3f}, fitted on "
                f"{results['fitted_on']['images']:,} validation images of {name}"
                f"{', which is worse' if results['ece_scaled'] > results['ece'] else ''}"
            )
        title = f"Calibration on {len(self.labels):,} test images of {self.test_set.name}"
        self._figure("calibration", figures.reliability_diagram(panels=panels, title=title))
        self._record({"calibration": results}, summary)

    def _validation(self) -> tuple[Tensor, Tensor] | None:
        """Return logits and labels of the run's validation images; None, with a note, if they are not available."""
        try:
            with self.console.status("validation ..."):
                data = self.run.data
                if data.fingerprint == self.run.fingerprints.get("train", data.fingerprint):
                    return self.run.all_logits(data.val), torch.from_numpy(data.val.labels)
            self.note("no temperature was fitted because the run's training images, or their preparation, changed.")
        except UserError as error:
            self.note(f"no temperature was fitted because the run's validation images are missing: {error}")
        return None

    def _note_training_images(self) -> None:
        """Note how many of the test images the run was trained on."""
        try:
            learned = {each.tobytes() for each in self.run.data.train.moments}
        except UserError:
            return  # the run's own data are missing
        if seen := sum(each.tobytes() in learned for each in self.test_set.images.moments):
            self.note(f"the run was trained on {seen:,} of these {plural(len(self.labels), 'image')}.")

    def _mistakes(self, logits: Tensor) -> None:
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        wrong = (predicted != self.labels).nonzero().squeeze(1)
        if not len(wrong):
            self.note("there are no mistakes to show.")
            return
        order = confidence[wrong].sort(descending=True, stable=True).indices[:MISTAKES]
        chosen, names = wrong[order], self.run.classes
        figure = figures.confident_mistakes(
            images=self.test_set.images.images(chosen.numpy()),
            truth=[names[label] for label in self.labels[chosen]],
            predicted=[names[label] for label in predicted[chosen]],
            confidence=confidence[chosen].tolist(),
            errors=len(wrong),
            of=len(self.labels),
            medians=(float(confidence[predicted == self.labels].median()), float(confidence[wrong].median())),
        )
        self._figure("confident_mistakes", figure)

    def test_time_augmentation(self) -> None:
        with self.console.status("views ..."):
            probabilities = predict_views(self.run, self.test_set.images)
        metrics = _metrics(probabilities, F.nll_loss(probabilities.log(), self.labels), self.labels)
        names = list(views(self.run))
        columns = {"one view": self.results["metrics"], "mean of views": metrics}
        table = tables.metric_table(f"Test-time augmentation: mean of {len(names)} views", columns)
        self._record({"test_time_augmentation": {"views": names, "metrics": metrics}}, table.rich())
        self.tables["test_time_augmentation"] = table

    def robustness(self, *, images: int) -> None:
        found = measure_robustness(self.run, self.test_set, images=images)
        table = tables.robustness_table(found)
        with self._writing():
            write_atomically(self.folder / "corruptions.md", f"# {table.title}\n\n{table.markdown()}")
            write_csv(self.folder / "corruptions.csv", ("corruption", "severity", "accuracy"), found.rows())
        figure = figures.robustness_curves(
            clean=found.clean,
            accuracy=found.accuracy,
            examples=found.examples,
            images=found.images,
            of=len(self.labels),
        )
        self._figure("corruptions", figure)
        self._record({"corruptions": found.as_json()}, table.rich())
        self.tables["corruptions"] = table

    def latency(self) -> None:
        rows = measure_latency(self.run)
        device, precision = self.results["environment"]["device"], self.run.precision
        table = tables.latency_table(rows, device=device, precision=precision)
        self._record({"latency": [asdict(row) for row in rows]}, table.rich())
        self.tables["latency"] = table

    def probe(self, kinds: Sequence[str]) -> None:
        with self.console.status("features ..."):
            found = measure_probes(self.run, kinds)
        table = tables.probe_table(found)
        self._record({"probes": found}, table.rich())
        self.tables["probes"] = table

    def export(self, kind: str, *, repository: str = "") -> None:
        rows = np.linspace(0, len(self.labels) - 1, min(_COMPARED, len(self.labels))).astype(np.int64)
        with self._writing():
            images = self.test_set.images.images(rows)
            result = export_network(self.run, kind, self.folder, images=images, repository=repository)
        path = self.folder / (result.get("file") or result["folder"])
        comparison = result.get("note") or (
            f"logits of {'onnxruntime' if kind == 'onnx' else 'timm'} and torch differ by at most "
            f"{result['largest_difference']:.1e} on {result['images_compared']} images"
        )
        exports = {**self.results.get("export", {}), kind: result}
        self._record({"export": exports}, f"export    {path}: {comparison}")

    def finish(self, *, seconds: float) -> dict[str, Any]:
        """Write evaluation.html, print the notes and return the results."""
        data = self.results["data"]
        about = [
            str(self.run.folder),
            f"{plural(data['images'], 'image')} of {data['name']}: {data['evaluated']}",
            *(f"Note: {note}" for note in self.results["notes"]),
        ]
        page = self.folder / "evaluation.html"
        with self._writing():
            write_gallery(
                page,
                title=f"Evaluation of {self.run.config.name}",
                about=about,
                captions=CAPTIONS,
                figures=self.drawn,
                tables={name: Rows(table.heading, table.rows) for name, table in self.tables.items()},
            )
        lines = [*(f"note      {note}" for note in self.results["notes"]), f"results   {typed(page.resolve())}"]
        self._record({"seconds": round(seconds, 1)}, "\n".join(lines))
        return self.results

    def note(self, sentence: str) -> None:
        self.results["notes"].append(sentence)

    def _figure(self, name: str, figure: Figure) -> None:
        with self._writing():
            figure.savefig(self.folder / f"{name}.png")
        self.drawn.append(name)

    def _record(self, results: dict[str, Any], printed: Any) -> None:
        """Print a part of the results, and add it to evaluation.json."""
        self.results |= results
        self.console.print(printed, soft_wrap=isinstance(printed, str), highlight=False)
        text = json.dumps(self.results, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        with self._writing():
            write_atomically(self.folder / "evaluation.json", text)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write to {self.folder}: {reason}; choose another folder with out=.") from error


def _metrics(probabilities: Tensor, loss: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the metrics of result.json. probabilities: float32 [N, C]; labels: int64 [N]."""
    metrics = {**classification_metrics(probabilities, labels), "loss": loss}
    return {name: float(value) for name, value in metrics.items()}


def _notes(run: FinishedRun, test: TestSet) -> Iterator[str]:
    """Yield caveats about the numbers."""
    tested = (run.result.get("data") or {}).get("test")
    if test.own and tested is not None and tested != len(test.labels):
        yield f"result.json reports {tested:,} test images, so its metrics are not compared with these."
    if run.config.data.name == "signs" and isinstance(test.source, GTSRB):
        yield (
            "the synthetic signs were designed by looking at 3,000 images of the official GTSRB test set, so this is "
            "not the accuracy on an unseen test set."
        )

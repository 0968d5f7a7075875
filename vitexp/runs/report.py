"""report.html: one page with all that a run left, in one file that opens anywhere. Imports no torch."""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from vitexp.runs.record import is_pretraining

# Title and how to read it, by the beginning of the file's name (the callbacks' keys); in the order of the page.
_CAPTIONS: Final = {
    "curves": (
        "Learning curves",
        "Loss, accuracy and learning rate over training; the dashed line marks the best validation. Training values "
        "are taken on augmented and mixed images, so they may well be worse than the validation's.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Validation images, what the encoder sees of them, and what the decoder makes of the rest. Fine detail cannot "
        "be known from so little: look for shapes that go on. With pretrain.normalize_targets the mean colour and the "
        "contrast of each covered patch are not drawn, and are the true ones here.",
    ),
    "confusion_matrix": (
        "Confusion matrix",
        "Each row is a true class, each column what was predicted: blue is right, orange wrong, and the darker, the "
        "larger the share of the row. The words below name the most frequent confusions.",
    ),
    "samples": (
        "Sample predictions",
        "Images with the predicted class and its probability; ✓ is right, ✗ is wrong, followed by the true class.",
    ),
    "explanations": (
        "Explanations",
        "Where the model finds what speaks for its prediction, on images that it gets right (✓) and wrong (✗): bright "
        "colours mark the parts that matter most, each map on its own scale. The number above a column says how "
        "faithful that explanation is to this model (see below). The best stands left; believe none that is hardly "
        "above random order.",
    ),
    "faithfulness": (
        "Which explanation to believe",
        "Images are covered (left), or shown bit by bit (right), beginning with what the explanation calls most "
        "important. Where it is true, the prediction collapses early on the left and comes early on the right. The "
        "numbers are areas under the curves; insertion minus deletion is the number above the columns of the "
        "explanations. Random order is what no explanation may fall behind; bands that overlap tell nothing apart.",
    ),
    "embedding": (
        "What looks alike to the model",
        "Each point is a training image as the classifier receives it, pressed into a plane: classes that overlap "
        "are easily confused. Stars are test images, mistakes first (✗), each beside the training images that are "
        "nearest to it.",
    ),
    "attention": (
        "Attention",
        "Above the image, below it how strongly the last layer attends to each patch (bright is strong), and both "
        "together. Each map has its own scale: compare where, not how much. It shows what that layer reads, and often "
        "hardly why the model decides: its number among the explanations says how far it does.",
    ),
    "position_embedding": (
        "Position embeddings",
        "Each small map lies where its patch lies, and shows how alike the embeddings of all other positions are to "
        "it: red is alike, blue is opposite. Neighbours, rows and columns that stand out mean that the model knows "
        "the grid.",
    ),
    "augmented_batch": (
        "Augmented batch",
        "Training images as the network gets them, with their labels. What nobody can recognise here was changed too "
        "much.",
    ),
}
_METRICS: Final = {
    "accuracy": "Accuracy",
    "accuracy_top5": "Accuracy, top 5",
    "precision_macro": "Precision, macro",
    "recall_macro": "Recall, macro",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "ece": "Calibration error (ECE)",
    "loss": "Loss",
}
# Fractions that are read as percentages; what else there is stays a number.
_PERCENT: Final = frozenset(_METRICS) - {"loss"}


class Figure(NamedTuple):
    """A picture on the page."""

    title: str
    caption: str
    uri: str


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from the run's result.json, config.yaml and figures, whichever of them exist.

    The page embeds its pictures and loads nothing. It is replaced in one step, so a reader never finds half of it.

    Raises:
        FileNotFoundError: `folder` does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {folder}")
    result, problem = _read_result(folder / "result.json")
    config = folder / "config.yaml"
    import jinja2  # only once a run ends

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    page = template.render(
        name=result.get("name") or folder.parent.name,
        run_id=result.get("run_id") or folder.name,
        status=result.get("status") or "unknown",
        error=result.get("error") or problem,
        headline=_headline(result),
        metrics=_metric_rows(_part(result, "metrics")),
        facts=_facts(result),
        commands=_commands(folder, result),
        figures=_figures(folder / "figures"),
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
    )
    target = folder / "report.html"
    unfinished = folder / f".report-{os.getpid()}.html"
    try:
        unfinished.write_text(page, encoding="utf-8")
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _read_result(path: Path) -> tuple[dict[str, Any], str | None]:
    """The record, empty where there is none, and what is wrong with it."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, "This folder has no result.json."
    except ValueError as error:
        return {}, f"result.json cannot be read: {error}"
    return (result, None) if isinstance(result, dict) else ({}, "result.json holds no record.")


def _part(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A nested record, empty where a run ended before it was known."""
    return record.get(key) or {}


def _headline(result: Mapping[str, Any]) -> tuple[str, str] | None:
    """The one number of the run and what it is."""
    metrics = _part(result, "metrics")
    for split, words in (("test", "test accuracy"), ("val", "validation accuracy")):
        accuracy = _part(metrics, split).get("accuracy")
        if accuracy is not None:
            return _metric("accuracy", accuracy), words
    if is_pretraining(result):
        return _metric("loss", metrics["test"]["loss"]), "test loss of the pretraining"
    return None


def _metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, test and validation value of every metric; those of the schema first."""
    test, val = _part(metrics, "test"), _part(metrics, "val")
    present = [key for key in _METRICS if key in test or key in val]
    present += sorted((test.keys() | val.keys()) - _METRICS.keys())
    return [
        (_METRICS.get(key, _spaced(key)), _metric(key, test.get(key)), _metric(key, val.get(key))) for key in present
    ]


def _metric(key: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.2%}" if key in _PERCENT else f"{value:.4f}"


def _facts(result: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What there is to know beside the metrics, in groups of (label, value)."""
    data, model = _part(result, "data"), _part(result, "model")
    timing, machine = _part(result, "timing"), _part(result, "environment")
    groups: dict[str, list[tuple[str, Any]]] = {
        "Data": [
            ("Name", data.get("name")),
            ("Training images", _count(data.get("train"))),
            ("Validation images", _count(data.get("val"))),
            ("Test images", _count(data.get("test"))),
            ("Classes", _count(data.get("classes"))),
        ],
        "Model": [
            ("Name", model.get("name")),
            ("Starts from", _part(model, "weights").get("from")),
            ("Parameters", _large(model.get("parameters"))),
            ("FLOPs an image", _large(model.get("flops_per_image"))),
        ],
        "Training": [
            ("Epochs", _count(result.get("epochs"))),
            ("Steps", _count(result.get("steps"))),
            ("Images seen", _count(result.get("images_seen"))),
            ("Seed", result.get("seed")),
            ("Config hash", result.get("config_hash")),
        ],
        "Time": [
            ("Started", _moment(result.get("started_at"))),
            ("Finished", _moment(result.get("finished_at"))),
            ("Whole run", _duration(timing.get("total_s"))),
            ("Training", _duration(timing.get("fit_s"))),
            ("To the first step", _duration(timing.get("time_to_first_step_s"))),
            ("Training images a second", _count(timing.get("train_images_per_s"))),
        ],
        "Environment": [
            ("Git commit", str(machine.get("git_commit") or "")[:12]),
            ("Uncommitted changes", _yes_no(machine.get("git_dirty"))),
            *((_spaced(key), value) for key, value in machine.items() if not key.startswith("git_")),
        ],
    }
    known = {
        title: [(label, str(value)) for label, value in rows if value is not None and value != ""]
        for title, rows in groups.items()
    }
    return [(title, rows) for title, rows in known.items() if rows]


def _spaced(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _yes_no(value: Any) -> str | None:
    return None if value is None else "yes" if value else "no"


def _count(value: Any) -> str | None:
    return f"{value:,.0f}" if isinstance(value, int | float) else None


def _large(value: Any) -> str | None:
    """A count in three figures: 2.68 million."""
    if not isinstance(value, int | float):
        return None
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def _duration(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _moment(iso: Any) -> str | None:
    """A date and time of day; what is none is shown as it stands."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (TypeError, ValueError):
        return None if iso is None else str(iso)


def _commands(folder: Path, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to type to repeat the run or to look into it, and what that is."""
    path = folder.resolve()
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    commands = []
    if (folder / "config.yaml").is_file():
        exact = f"python train.py --config-dir {shlex.quote(str(path))} --config-name config"
        commands.append(("With exactly this configuration:", exact))
    if overrides := result.get("overrides"):
        commands.append(("As it was typed:", shlex.join(["python", "train.py", *map(str, overrides)])))
    if is_pretraining(result):
        same = f"data={_part(result, 'data').get('name')} model={_part(result, 'model').get('name')}"
        tune = f"python train.py {same} model.weights={shlex.quote(str(path))}"
        commands.append(("To train the same model, starting from this pretraining:", tune))
    elif (folder / "model.safetensors").is_file():
        explain = f"python -m vitexp explain run={shlex.quote(str(path))}"
        commands.append(("To look further into the model, every layer and head included:", explain))
    return commands


def _figures(folder: Path) -> list[Figure]:
    """Every PNG of the folder: the known ones in the order of `_CAPTIONS`, then the others by name."""
    order = list(_CAPTIONS)
    found = []
    for path in sorted(folder.glob("*.png")):
        kind = next((kind for kind in order if path.stem.startswith(kind)), None)
        title, caption = _CAPTIONS[kind] if kind else (_spaced(path.stem), "")
        if kind and path.stem != kind:
            title += f": {path.stem.removeprefix(kind).strip('_-').replace('_', ' ')}"
        uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        found.append((order.index(kind) if kind else len(order), Figure(title, caption, uri)))
    return [figure for _, figure in sorted(found, key=lambda entry: entry[0])]

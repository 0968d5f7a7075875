"""report.html: everything about a run on one page, in one file that opens anywhere. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.components import facts
from vitexp.config.conf import CONF
from vitexp.config.overrides import command_line, setting
from vitexp.config.renames import read_config
from vitexp.errors import ConfigError
from vitexp.metrics import METRICS, metric
from vitexp.runs.gallery import data_uri, render
from vitexp.runs.record import DamagedRecord, data_set, is_pretraining, read_result
from vitexp.system.disk import typed, write_atomically
from vitexp.text import duration, large_number


class Figure(NamedTuple):
    """A figure on the page."""

    title: str
    caption: str
    uri: str


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from the run's result.json, config.yaml and figures, whichever of them exist.

    The page embeds its figures and loads nothing. Raises OSError if it cannot be written.
    """
    result, problem = _read_result(folder)
    config = folder / "config.yaml"
    page = render(
        "report.html.jinja",
        name=result.get("name") or folder.parent.name,
        run_id=result.get("run_id") or folder.name,
        status=result.get("status") or "unknown",
        error=result.get("error") or problem,
        headline=_headline(result),
        metrics=_metric_rows(_part(result, "metrics")),
        facts=_facts(result),
        commands=_commands(folder, result),
        figures=_figures(folder / "figures", _captions(config)),
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
    )
    target = folder / "report.html"
    write_atomically(target, page)
    return target


def _read_result(folder: Path) -> tuple[dict[str, Any], str | None]:
    """Return the record, empty if there is none, and what is wrong with it."""
    try:
        return read_result(folder), None
    except FileNotFoundError:
        return {}, "This folder has no result.json."
    except DamagedRecord as error:
        return {}, str(error)


def _part(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a nested record, empty if the run ended before it was known."""
    return record.get(key) or {}


def _headline(result: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the most important number of the run, and what it is."""
    metrics = _part(result, "metrics")
    for split, words in (("test", "test accuracy"), ("val", "validation accuracy")):
        accuracy = _part(metrics, split).get("accuracy")
        if accuracy is not None:
            return metric("accuracy").format(accuracy), words
    if is_pretraining(result):
        return metric("loss").format(metrics["test"]["loss"]), "test loss of the pretraining run"
    return None


def _metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return label, test and validation value of each metric; vitexp's own first."""
    test, val = _part(metrics, "test"), _part(metrics, "val")
    names = [*(name for name in METRICS if name in test or name in val), *sorted((test | val).keys() - METRICS.keys())]
    measures = [(metric(name), test.get(name), val.get(name)) for name in names]
    return [
        (_sentence(each.label), each.format(tested), each.format(validated)) for each, tested, validated in measures
    ]


def _facts(result: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the facts about the run other than metrics, in groups of (label, value)."""
    data, model = _part(result, "data"), _part(result, "model")
    timing, machine = _part(result, "timing"), _part(result, "environment")
    has_trained = bool(result.get("steps"))  # otherwise it ended before it could record how far it came
    groups: dict[str, list[tuple[str, Any]]] = {
        "Data": [
            ("Name", data_set(data) or None),
            ("Training images", data.get("train")),
            ("Validation images", data.get("val")),
            ("Test images", data.get("test")),
            ("Not read", data.get("unread")),
            ("Classes", data.get("classes")),
        ],
        "Model": [
            ("Name", model.get("name")),
            ("Starts from", _part(model, "weights").get("from")),
            ("Parameters", _if_number(large_number, model.get("parameters"))),
            ("FLOPs per image", _if_number(large_number, model.get("flops_per_image"))),
        ],
        "Training": [
            ("Epochs", result.get("epochs") if has_trained else None),
            ("Steps", result.get("steps") if has_trained else None),
            ("Images seen", result.get("images_seen") if has_trained else None),
            ("Seed", str(result.get("seed", ""))),
            ("Config hash", result.get("config_hash")),
        ],
        "Time": [
            ("Started", _moment(result.get("started_at"))),
            ("Finished", _moment(result.get("finished_at"))),
            ("Whole run", _if_number(duration, timing.get("total_s"))),
            ("Training", _if_number(duration, timing.get("fit_s"))),
            ("To the first step", _if_number(duration, timing.get("time_to_first_step_s"))),
            ("Training images per second", timing.get("train_images_per_s")),
        ],
        "Environment": [
            ("Git commit", str(machine.get("git_commit") or "")[:12]),
            ("Uncommitted changes", {True: "yes", False: "no", None: None}[machine.get("git_dirty")]),
            *((_sentence(key), value) for key, value in machine.items() if not key.startswith("git_")),
        ],
    }
    known = {
        title: [
            (label, f"{value:,.0f}" if isinstance(value, int | float) else str(value))
            for label, value in rows
            if value is not None and value != ""
        ]
        for title, rows in groups.items()
    }
    return [(title, rows) for title, rows in known.items() if rows]


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:].replace("_", " ")


def _if_number(form: Callable[[float], str], value: Any) -> str | None:
    return form(value) if isinstance(value, int | float) else None


def _moment(iso: Any) -> str | None:
    """Return the date and time; return anything else unchanged."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (TypeError, ValueError):
        return None if iso is None else str(iso)


def _commands(folder: Path, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the commands that resume the run, repeat or examine it, each with its purpose."""
    path = typed(folder.resolve())
    commands = []
    if result.get("status") in ("interrupted", "failed") and any(folder.glob("checkpoints/*.ckpt")):
        commands.append(("To resume it from its last checkpoint:", command_line("train", setting("resume", path))))
    if (folder / "config.yaml").is_file():
        exact = command_line("train", "--config-dir", path, "--config-name", "config")
        commands.append(("To repeat it with exactly this configuration:", exact))
    if overrides := result.get("overrides"):
        words = [*(result.get("options") or ()), *overrides]
        commands.append(("To repeat it as it was started:", command_line("train", *map(str, words))))
    if is_pretraining(result):
        same = [setting(group, str(_part(result, group).get("name"))) for group in ("data", "model")]
        tune = command_line("train", *same, setting("model.weights", path))
        commands.append(("To train the same model, starting from these weights:", tune))
    elif (folder / "model.safetensors").is_file():
        run = f"run={path}"
        commands += [
            ("To explore it in the browser:", command_line("app", run)),
            ("To explain more of its predictions, with every layer and head:", command_line("explain", run)),
            ("To measure it per class, with its calibration and mistakes:", command_line("evaluate", run)),
            ("To predict the classes of your own images:", command_line("predict", run, "images=FOLDER")),
        ]
    return commands


def _captions(config: Path) -> dict[str, tuple[str, str]]:
    """Return title and caption of every figure, by file name, in the order of the callbacks that draw them.

    Callbacks declare them as `figures`, which are read from their source, so users' callbacks can have captions too.
    """
    nodes = OmegaConf.load(CONF / "callbacks" / "default.yaml").values()
    with suppress(OSError, ConfigError, OmegaConfBaseException):  # a run may lack its configuration
        nodes = (read_config(config).get("callbacks") or {}).values()
    return {key: caption for node in nodes for key, caption in facts(node).get("figures", {}).items()}


def _figures(folder: Path, captions: Mapping[str, tuple[str, str]]) -> list[Figure]:
    """Return every PNG of the folder: those with a caption first, in the order of the captions."""
    paths = {path.stem: path for path in sorted(folder.glob("*.png"))}
    names = [*(name for name in captions if name in paths), *(name for name in paths if name not in captions)]
    return [Figure(*captions.get(name, (_sentence(name), "")), data_uri(paths[name].read_bytes())) for name in names]

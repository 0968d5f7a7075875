"""Several runs next to each other: histories, table and figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.sweeps.trials import record
from vitexp.explain import figures
from vitexp.runs.comparison import compare, effort, history
from vitexp.training.metrics_file import MetricsFile


def a_run(folder: Path, *, loss: float, f1: float) -> Path:
    folder.mkdir()
    file = MetricsFile(folder / "metrics.csv")
    for epoch in range(3):
        step = 10 * epoch + 9
        file.log_metrics({"lr-AdamW": 0.1}, step - 5)
        file.log_metrics({"epoch": epoch, "train/loss_step": 9.0}, step - 5)
        file.log_metrics({"epoch": epoch, "val/loss": loss / (epoch + 1), "val/accuracy": epoch / 4}, step)
        file.log_metrics({"epoch": epoch, "train/loss_epoch": loss}, step)
    file.log_metrics({"epoch": 3, "test/loss": 7.0}, 30)
    file.save()
    (folder / "result.json").write_text(json.dumps(record(0.9, val=0.8, f1_macro=f1, loss=0.5)))
    return folder


def test_a_history_has_the_epochs_only(tmp_path: Path) -> None:
    assert history(a_run(tmp_path / "a", loss=6.0, f1=0.5)) == {
        "val/loss": ([1, 2, 3], [6.0, 3.0, 2.0]),
        "val/accuracy": ([1, 2, 3], [0.0, 0.25, 0.5]),
        "train/loss": ([1, 2, 3], [6.0, 6.0, 6.0]),
    }
    assert history(tmp_path) == {}


def test_the_numbers_of_all_runs(tmp_path: Path) -> None:
    runs = {"ViT": a_run(tmp_path / "a", loss=6.0, f1=0.5), "CNN": a_run(tmp_path / "b", loss=4.0, f1=0.75)}
    [first, second], everything = compare(runs)
    assert first == {
        "model": "ViT",
        "parameters": "2.69 million",
        "FLOPs per image": "352 million",
        "test accuracy": "90.00%",
        "test macro F1": "50.00%",
        "test loss": "0.5000",
        "training": "1 min 40 s",
    }
    assert second["test macro F1"] == "75.00%"
    read = json.loads(everything)
    assert [each["name"] for each in read] == ["ViT", "CNN"]
    assert read[1]["history"]["train/loss"] == [[1, 2, 3], [4.0, 4.0, 4.0]]
    assert read[1]["result"]["metrics"]["test"]["f1_macro"] == 0.75


def test_the_curves_of_many_runs_have_different_colors(tmp_path: Path) -> None:
    curves = {"train/loss": ([1, 2], [2.0, 1.0]), "val/accuracy": ([1, 2], [0.5, 0.75])}
    for count in (1, 2, 8, 20):
        figure = figures.model_comparison(histories={f"run {n}": [curves, curves] for n in range(count)}, title="t")
        loss, accuracy = figure.axes
        assert len({line.get_color() for line in loss.lines}) == count and len(loss.lines) == 2 * count
        np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [50.0, 75.0])
    with pytest.raises(ValueError, match="no run has a curve"):
        figures.model_comparison(histories={"a": [{}]}, title="t")


def test_runs_of_one_epoch_are_dots_that_stay_visible() -> None:
    once, twice = {"val/loss": ([1], [2.0])}, {"val/loss": ([1, 2], [2.0, 1.0])}
    figure = figures.model_comparison(histories={"ViT": [twice], "CNN": [once]}, title="t", subtitle="ViT: 2 epochs")
    line, dot, _ = figure.legends[0].legend_handles
    assert (line.get_linestyle(), dot.get_linestyle(), dot.get_marker()) == ("-", "None", "o")
    below, above = figure.axes[0].lines  # both at (1, 2.0)
    assert below.get_markersize() > above.get_markersize()
    assert "ViT: 2 epochs" in [text.get_text() for text in figure.texts]


def test_the_effort_of_a_run(tmp_path: Path) -> None:
    assert effort(a_run(tmp_path / "a", loss=6.0, f1=0.5)) == "8 epochs, 1 min 40 s"

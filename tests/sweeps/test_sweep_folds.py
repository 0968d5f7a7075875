"""Sweeps over folds: their table and the averaged predictions."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import CONF, TINY
from tests.sweeps.test_sweep_table import texts
from tests.sweeps.trials import outcomes, record, table
from vitexp.errors import ConfigError
from vitexp.runs.probabilities import write_probabilities
from vitexp.sweeps.ensemble import ensembles
from vitexp.sweeps.tables.cells import notes
from vitexp.sweeps.tables.formats import to_csv, to_latex, to_markdown, to_rich
from vitexp.sweeps.tables.page import write_page
from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.statistics import Summary
from vitexp.sweeps.tables.table import build_table

BASE = [record(0.90, val=0.92), record(0.91, val=0.93), record(0.92, val=0.94)]
MORE = [record(0.94, val=0.95), record(0.955, val=0.96), record(0.955, val=0.97)]
# Differences 4, 4.5 and 3.5: 4 ± 4.303 · 0.5 · sqrt(1/3 + 1/2)
DIFFERENCE = "+4.00* [+2.04, +5.96]"


def test_a_table_over_folds_says_so_and_has_wider_intervals() -> None:
    made = table({"base": BASE, "more": MORE}, folds=3, ensembles={"more": Summary(mean=0.97, sd=None, n=3)})
    row = texts(made, "more")
    assert "seeds" not in row
    assert row["folds"] == "3 of 3"
    assert row["validation accuracy (%)"] == "96.00 ± 1.00 [92.07, 99.93] ★"
    assert row["ensemble accuracy (%)"] == "97.00"
    assert row["Δ test (points) [95% interval]"] == DIFFERENCE
    assert texts(made, "base")["ensemble accuracy (%)"] == "–"
    said = " ".join(notes(made))
    assert "one of 3 folds of the training images" in said
    assert "multiply the variance of the mean of n trials by 1 + n/2 (Nadeau and Bengio 2003)" in said
    assert "paired by seed and fold" in said and "over the completed folds" in said


def test_a_table_over_seeds_does_not_mention_folds() -> None:
    made = table({"base": BASE, "more": MORE})
    assert "fold" not in to_markdown(made) + to_latex(made)
    assert texts(made, "more")["Δ test (points) [95% interval]"] == "+4.00* [+2.76, +5.24]"


def test_the_interval_of_a_percentage_stays_in_range() -> None:
    made = table({"base": [record(0.01), record(0.02), record(0.03)]}, folds=3)
    assert texts(made, "base")["test accuracy (%)"] == "2.00 ± 1.00 [0.00, 5.93]"  # not -1.93


def test_trials_are_paired_by_seed_and_fold() -> None:
    """The failed trial is fold 1 of seed 1; its partner counts for nothing."""
    lost = record(None, status="failed", fit_s=None)
    base = [record(value) for value in (0.90, 0.91, 0.92, 0.93)]
    made = table({"base": base, "more": [record(0.91), record(0.92), record(0.94), lost]}, folds=2)
    row = made.rows[1]
    assert row.difference is not None and row.difference.n == 3
    assert row.difference.mean == pytest.approx((0.01 + 0.01 + 0.02) / 3)
    assert texts(made, "more")["folds"] == "3 of 4, 1 failed"
    twice = [Outcome(row="a", seed=0, fold=fold, folder=Path(), status="missing", result=None) for fold in (0, 1, 1)]
    with pytest.raises(ConfigError, match="two trials with the same seed"):
        build_table(twice, title="twice", folds=2)


@pytest.mark.parametrize("width", [80, 120, 170])
def test_no_number_is_cut_in_a_terminal(width: int) -> None:
    made = table({"base": BASE, "more": MORE}, folds=3, ensembles={"more": Summary(mean=0.9712, sd=None, n=3)})
    console = Console(file=io.StringIO(), width=width)
    console.print(to_rich(made, width=width))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in printed for text in ("folds", "± 1.00", "[92.07, 99.93]", "97.12", "+4.00*", "[+2.04, +5.96]"))
    assert "…" not in printed


def test_csv_and_page_have_the_folds(tmp_path: Path) -> None:
    made = table({"base": BASE, "more": MORE}, folds=3, ensembles={"more": Summary(mean=0.97, sd=None, n=3)})
    base, more = csv.DictReader(io.StringIO(to_csv(made)))
    assert (more["folds"], more["ensemble"], more["ensemble_n"], base["ensemble"]) == ("3", "0.97", "3", "")
    assert float(more["val_low"]) == pytest.approx(0.96 - 4.302653 * 0.01 * (5 / 6) ** 0.5)
    [_, unfolded] = csv.DictReader(io.StringIO(to_csv(table({"base": BASE, "more": MORE}))))
    assert (unfolded["folds"], unfolded["val_low"], unfolded["ensemble"]) == ("", "", "")
    page = write_page(made, tmp_path, overrides={}, command="python sweep.py folds=3").read_text()
    assert "seed 0, fold 2: <span" in page.replace("\n", "")


# Four images of two classes. The first trial is wrong about the last image, the second about the first, both barely.
LABELS = np.array([0, 0, 1, 1])
FIRST = np.float32([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
SECOND = np.float32([[0.4, 0.6], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])


def trials(folder: Path, *changes: dict[str, Any]) -> list[Outcome]:
    """Return the completed trials of one row, with fingerprints of their test images, and `changes` of the records."""
    about = {"data": {"fingerprints": {"train": "t", "test": "e"}}}
    found = outcomes({"a": [record(0.75) | about | change for change in changes]}, folder, folds=len(changes))
    for each in found:
        each.folder.mkdir(parents=True)
    return found


def test_predictions_are_averaged(tmp_path: Path) -> None:
    first, second = both = trials(tmp_path, {}, {})
    assert ensembles(both, metric="accuracy") == {}
    write_probabilities(first.folder, FIRST, LABELS)
    assert ensembles(both, metric="accuracy") == {"a": Summary(mean=0.75, sd=None, n=1)}
    write_probabilities(second.folder, SECOND, LABELS)
    assert ensembles(both, metric="accuracy") == {"a": Summary(mean=1.0, sd=None, n=2)}
    loss = ensembles(both, metric="loss")["a"].mean
    assert loss == pytest.approx(-np.log([0.65, 0.8, 0.7, 0.65]).mean(), rel=1e-6)
    assert ensembles(both, metric="accuracy_top5") == {}  # there are two classes
    (second.folder / "test_probabilities.npz").write_bytes(b"PK damaged")
    assert ensembles(both, metric="accuracy")["a"].n == 1


@pytest.mark.parametrize(
    ("change", "labels"),
    [({"data": {"fingerprints": {"train": "t", "test": "other"}}}, LABELS), ({}, LABELS[::-1]), ({}, LABELS[:3])],
)
def test_predictions_for_different_images_are_not_averaged(
    tmp_path: Path, change: dict[str, Any], labels: np.ndarray
) -> None:
    first, second = both = trials(tmp_path, {}, change)
    write_probabilities(first.folder, FIRST, LABELS)
    write_probabilities(second.folder, SECOND[: len(labels)], labels)
    assert ensembles(both, metric="accuracy") == {}


def test_only_completed_trials_are_averaged(tmp_path: Path) -> None:
    first, second = both = trials(tmp_path, {}, {"status": "failed"})
    write_probabilities(first.folder, FIRST, LABELS)
    write_probabilities(second.folder, SECOND, LABELS)
    assert ensembles(both, metric="accuracy")["a"].n == 1


@pytest.mark.slow
def test_a_sweep_over_folds_and_its_resumption(tmp_path: Path) -> None:
    options = [*(word for word in TINY if "val_fraction" not in word), "logger=csv", "callbacks=none", "engine=local"]
    command = [sys.executable, str(CONF.parent / "sweep.py"), "folds=2", "name=s", f"log_dir={tmp_path}", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    [row] = csv.DictReader(io.StringIO((tmp_path / "s" / "table.csv").read_text()))
    assert (row["planned"], row["completed"], row["folds"], row["ensemble_n"]) == ("2", "2", "2", "2")
    [lost, kept] = [file.parent for file in sorted((tmp_path / "s").glob("*/result.json"))]
    before = (kept / "result.json").stat().st_mtime_ns
    (lost / "result.json").unlink()
    repeated = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert "1 of them already completed" in repeated.stdout, repeated.stdout + repeated.stderr
    assert (kept / "result.json").stat().st_mtime_ns == before
    [again] = csv.DictReader(io.StringIO((tmp_path / "s" / "table.csv").read_text()))
    assert {**again, "train_s": ""} == {**row, "train_s": ""}

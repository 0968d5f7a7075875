from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.trials import record
from vitexp.runs.record import TRIAL_LOCK
from vitexp.sweeps.engines.trial import Trial
from vitexp.sweeps.tables.results import read
from vitexp.system.lock import hold


def trial(folder: Path, text: str | bytes | None, seed: int = 0) -> Trial:
    run = folder / str(seed)
    run.mkdir()
    if text is not None:
        (run / "result.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return Trial(overrides=(), command=(), row="row", seed=seed, folder=run)


def test_reads_what_trials_left_in_the_order_of_the_trials(tmp_path: Path) -> None:
    statuses = ["running", "completed", "failed", "interrupted"]
    trials = [
        trial(tmp_path, json.dumps(record(0.5, status=status)), seed) for seed, status in enumerate(statuses, start=3)
    ]
    outcomes = read(trials)
    assert [(outcome.seed, outcome.status) for outcome in outcomes] == list(enumerate(statuses, start=3))
    assert outcomes[1].number("metrics", "test", "accuracy") == 0.5
    assert outcomes[1].folder == trials[1].folder


def test_a_trial_that_has_not_begun_is_missing_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun, absent = (
        trial(tmp_path, None),
        Trial(overrides=(), command=(), row="row", seed=1, folder=tmp_path / "nowhere"),
    )
    assert [outcome.status for outcome in read([begun, absent])] == ["missing", "missing"]
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(record(0.5))[:200],
        "[]",
        "null",
        b"\xff\xfe\x00",
        json.dumps({**record(0.5), "status": "splendid"}),
        json.dumps({**record(0.5), "status": ["completed"]}),
        json.dumps({**record(0.5), "schema": 2}),
        "{}",
    ],
)
def test_a_broken_file_is_missing_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | bytes
) -> None:
    with caplog.at_level(logging.WARNING):
        [outcome] = read([trial(tmp_path, text)])
    assert (outcome.status, outcome.result) == ("missing", None)
    [warning] = caplog.records
    assert str(tmp_path / "0" / "result.json") in warning.getMessage()


def test_a_folder_in_the_files_place_is_missing_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result.json").mkdir()
    assert read([Trial(overrides=(), command=(), row="row", seed=0, folder=tmp_path)])[0].status == "missing"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("value", [None, "0.9", True, float("nan"), float("inf"), [0.9], {"mean": 0.9}])
def test_what_is_no_finite_number_is_none(tmp_path: Path, value: object) -> None:
    broken = {**record(0.5), "metrics": {"test": {"accuracy": value}}, "timing": value}
    [outcome] = read([trial(tmp_path, json.dumps(broken))])
    assert outcome.number("metrics", "test", "accuracy") is None
    assert outcome.number("timing", "fit_s") is None


def test_tables_start_at_once() -> None:
    """Slow imports are deferred until they are used."""
    heavy = ("torch", "lightning", "matplotlib", "wandb", "scipy", "pandas")
    code = (
        "import sys, vitexp.sweeps.tables.formats, vitexp.sweeps.tables.page, vitexp.sweeps.tables.wandb_table;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_trial_that_nobody_runs_any_more_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(record(None, status="running")))
    trial = Trial(overrides=(), command=(), row="a", seed=0, folder=tmp_path)
    assert read([trial])[0].status == "running"  # by train.py itself, which holds no lock
    with hold(tmp_path / TRIAL_LOCK, wait=False):
        assert read([trial])[0].status == "running"
    assert read([trial])[0].status == "interrupted"

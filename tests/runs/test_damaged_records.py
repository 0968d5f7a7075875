"""A damaged result.json or config.yaml is one sentence, and does not stop commands that look through many runs."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.conftest import composed
from vitexp.config.renames import read_config
from vitexp.errors import ConfigError, UserError
from vitexp.runs.find import newest_run
from vitexp.runs.finished import load_run
from vitexp.runs.record import DamagedRecord, read_result
from vitexp.runs.report import write_report
from vitexp.runs.resume import run_to_resume, why_not_resumed
from vitexp.sweeps.engines.trial import Trial, status
from vitexp.sweeps.tables.results import read

RELEASED = Path(__file__).parents[1] / "released" / "2026-11-26" / "run"
RECORD = json.loads((RELEASED / "result.json").read_text())
DAMAGED = {
    "[]": "is not a record",
    "null": "is not a record",
    "3": "is not a record",
    "{}": "has the status None, not one of",
    "": "is not complete JSON",
    json.dumps(RECORD)[:300]: "is not complete JSON",
    "[" * 100_000: "is not complete JSON",
    json.dumps({**RECORD, "status": ["completed"]}): "has the status ['completed'], not one of",
    json.dumps({**RECORD, "metrics": []}): "has a wrong value of metrics: it must be a mapping",
    json.dumps({**RECORD, "overrides": [1]}): "has overrides that are not a list of texts",
    json.dumps({**RECORD, "overrides": "seed=1"}): "has overrides that are not a list of texts",
    json.dumps({**RECORD, "metrics": {"test": 0.5}}): "has a wrong value of metrics.test: it must be a mapping",
    json.dumps({**RECORD, "metrics": {"val": {"loss": "1"}}}): "has a wrong value of metrics.val.loss",
    json.dumps({**RECORD, "data": 3}): "has a wrong value of data: it must be a mapping",
}


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Return a copy of a finished run, to be damaged, next to an older one."""
    older = tmp_path / "released" / "older"
    shutil.copytree(RELEASED, older)
    (older / "result.json").write_text(json.dumps({**RECORD, "started_at": "2020", "finished_at": "2020"}))
    return Path(shutil.copytree(RELEASED, tmp_path / "released" / "newer"))


def same_command(run: Path) -> DictConfig:
    """Return the configuration of the command of `run`, with resume=auto."""
    words = [word for word in RECORD["overrides"] if not word.startswith(("name=", "log_dir=", "run_id=", "resume="))]
    config = composed(*words, "name=released", f"log_dir={run.parents[1]}")
    config.resume = "auto"
    return config


@pytest.mark.parametrize(("text", "sentence"), DAMAGED.items(), ids=range(len(DAMAGED)))
def test_a_damaged_record_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DamagedRecord) as caught:
        read_result(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/result.json {sentence}")
    assert status(Trial(row="a", seed=0, overrides=(), folder=tmp_path, command=())) is None  # so it runs again
    write_report(tmp_path)
    assert sentence.split("'")[0] in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("text", ["[]", "directory"])
def test_a_damaged_record_is_refused_by_name_and_skipped_among_others(
    text: str, damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (damaged / "result.json").unlink()
    (damaged / "result.json").mkdir() if text == "directory" else (damaged / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"newer/result\.json "):
        run_to_resume(composed(f"resume={damaged}"))
    with pytest.raises(UserError, match=r"newer is not a finished run: .*newer/result\.json "):
        load_run(damaged)
    with caplog.at_level(logging.WARNING):
        assert newest_run(damaged.parents[1]).name == "older"
        words = [
            word for word in RECORD["overrides"] if not word.startswith(("name=", "log_dir=", "run_id=", "resume="))
        ]
        config = composed(*words, "name=released", f"log_dir={damaged.parents[1]}")
        config.resume = "auto"
        assert run_to_resume(config) == damaged.parent / "older"
        why_not_resumed(config)
        trials = [Trial(row="a", seed=0, overrides=(), folder=damaged, command=())] * 2
        assert [outcome.status for outcome in read(trials)] == ["missing", "missing"]
    assert len(caplog.messages) == 2  # of the run, and of the trial
    assert all("newer/result.json" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "text", ["model: [1}", "- a", "model: {}", "model: {}\ndata: 3", "model: {}\ndata: {}\ntrainer: x"]
)
def test_a_damaged_configuration_is_refused_by_name_and_skipped_among_others(
    text: str, damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (damaged / "config.yaml").write_text(text)
    for load in (lambda: read_config(damaged / "config.yaml"), lambda: run_to_resume(composed(f"resume={damaged}"))):
        with pytest.raises(ConfigError, match=r"newer/config\.yaml "):
            load()
    with pytest.raises(UserError, match=r"newer is not a finished run: .*newer/config\.yaml "):
        load_run(damaged)
    config = same_command(damaged)
    with caplog.at_level(logging.WARNING):
        assert run_to_resume(config) == damaged.parent / "older"
    [message] = caplog.messages
    assert "newer/config.yaml" in message

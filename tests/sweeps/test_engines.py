"""Engines run each remaining trial once, on the available slots, and nothing outlives the sweep."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.conftest import CONF
from tests.sweeps import fake_sweep
from tests.sweeps.fake_sweep import fake_trial, local, ray, slurm
from tests.sweeps.processes import of_session, until, with_argument
from vitexp.config.check import check_component
from vitexp.config.components import component
from vitexp.errors import ConfigError
from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.engines.ray_engine import RayEngine
from vitexp.sweeps.engines.trial import Finished, Ready, Started, Trial, status
from vitexp.sweeps.tables.formats import to_csv
from vitexp.sweeps.tables.results import read
from vitexp.sweeps.tables.table import build_table

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
needs_submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")

STOPS = [(signal.SIGINT, -signal.SIGINT), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]


def sweep(folder: Path, number: int, *options: str) -> list[Trial]:
    return [fake_trial(folder / str(index), *options) for index in range(number)]


def lines(trials: list[Trial], file: str) -> list[int]:
    """Return the number of lines of `file` per trial: "starts" counts processes, "repeats" those after completion."""
    paths = [trial.folder / file for trial in trials]
    return [len(path.read_text().splitlines()) if path.exists() else 0 for path in paths]


def spans(trials: list[Trial]) -> list[tuple[float, float, str]]:
    """Return start, end and GPUs of the trials."""
    return [tuple(json.loads((trial.folder / "result.json").read_text())["span"]) for trial in trials]


def once(trials: list[Trial]) -> bool:
    """Return whether all trials are completed and none was started again afterwards."""
    return all(status(trial) == "completed" for trial in trials) and not any(lines(trials, "repeats"))


def at_once(spans: list[tuple[float, float, str]]) -> int:
    """Return the largest number of concurrent trials."""
    return max(sum(begin <= moment < end for begin, end, _ in spans) for moment, _, _ in spans)


def driver(folder: Path, kind: str, number: int, *options: str) -> subprocess.Popen[bytes]:
    """Start a sweep in a process that leads its group, as a terminal would."""
    command = [sys.executable, "-m", fake_sweep.__name__, str(folder), kind, str(number), *options]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# What all engines share


def test_what_is_completed_is_left_alone_and_the_rest_runs(tmp_path: Path) -> None:
    trials = [*sweep(tmp_path, 2), fake_trial(tmp_path / "bad", "end=crash"), fake_trial(tmp_path / "new")]
    assert run_trials(trials[:2], local(), on_event=print) == []
    events: list[Any] = []
    assert run_trials(trials, local(), on_event=events.append) == [trials[2]]
    assert [type(event) for event in events] == [Ready, Started, Finished, Started, Finished]
    assert [event.status for event in events if isinstance(event, Finished)] == ["failed", "completed"]
    assert lines(trials, "starts") == [1, 1, 1, 1]
    run_trials(trials, local(), on_event=print)
    assert lines(trials, "starts") == [1, 1, 2, 1]  # a failed trial is tried again


@pytest.mark.parametrize(("sent", "code"), STOPS)
def test_being_stopped_stops_all_and_the_next_goes_on(tmp_path: Path, sent: int, code: int) -> None:
    process, trials = driver(tmp_path, "local", 3, "seconds=1"), sweep(tmp_path, 3, "seconds=1")
    until(lambda: status(trials[0]) == "completed" and lines(trials, "starts") == [1, 1, 0])
    time.sleep(0.2)
    os.killpg(process.pid, sent)
    assert process.wait(20) == code
    assert not with_argument(str(tmp_path))
    assert [status(trial) for trial in trials] == ["completed", "interrupted", None]
    assert run_trials(trials, local(), on_event=print) == []
    assert once(trials)


def kill_at_random(folder: Path, kind: str, *, trials: int, kills: int, seconds: float, within: float) -> list[Trial]:
    """SIGKILL a sweep `kills` times, each within `within` seconds of its first trial; then let it end."""
    drawn = random.Random(0)
    cells = sweep(folder, trials, f"seconds={seconds}")
    for _ in range(kills):
        before = sum(lines(cells, "starts"))
        process = driver(folder, kind, trials, f"seconds={seconds}")
        until(lambda: sum(lines(cells, "starts")) > before or process.poll() is not None, seconds=90)  # noqa: B023
        time.sleep(drawn.uniform(0, within))
        process.kill()
        process.wait()
    process = driver(folder, kind, trials, f"seconds={seconds}")
    assert process.wait(300) == 0
    return cells


def test_sigkill_of_the_sweep_loses_and_repeats_nothing(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    trials = kill_at_random(tmp_path / "killed", "local", trials=5, kills=3, seconds=0.2, within=0.5)
    assert once(trials)
    undisturbed = sweep(tmp_path / "undisturbed", 5)
    run_trials(undisturbed, local(), on_event=print)
    assert table(trials) == table(undisturbed)


def table(trials: Sequence[Trial]) -> str:
    return to_csv(build_table(read(trials), title="sweep"))


@pytest.mark.slow
@needs_ray
def test_sigkill_of_a_sweep_on_ray(tmp_path: Path) -> None:
    trials = kill_at_random(tmp_path, "ray", trials=10, kills=2, seconds=1, within=3)
    assert once(trials)


@pytest.mark.parametrize("option", ["local", "ray", "slurm"])
def test_the_options_make_engines(option: str) -> None:
    node = OmegaConf.load(CONF / "engine" / f"{option}.yaml")
    check_component(node, group="engine")
    assert isinstance(instantiate(node, _convert_="all"), Engine)
    options = component(node._target_).options
    assert set(node) == {"_target_", *options} and all(option.doc for option in options.values())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retries", -1),
        ("retries", 1.5),
        ("timeout", 0),
        ("timeout", "1h"),
        ("gpus_per_trial", 1.5),
        ("gpus_per_trial", -1),
        ("gpus_per_trial", "all"),
        ("cpus_per_trial", 0),
        ("cpus_per_trial", 0.5),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: str, value: object) -> None:
    node = OmegaConf.load(CONF / "engine" / "local.yaml")
    node[setting] = value
    with pytest.raises(ConfigError, match=f"engine.{setting}={value} must be"):
        check_component(node, group="engine")


# engine=local


@pytest.mark.parametrize(("asked", "visible"), [("auto", "3"), (0, ""), (0.5, "3"), (2, "3,5")])
def test_local_trials_get_the_first_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: object, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    [trial] = sweep(tmp_path, 1)
    run_trials([trial], local(gpus_per_trial=asked), on_event=print)
    assert spans([trial])[0][2] == visible


def test_local_refuses_gpus_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"engine\.gpus_per_trial=1, but this machine has 0 GPUs"):
        run_trials(sweep(tmp_path, 1), local(gpus_per_trial=1), on_event=print)


@pytest.mark.parametrize(("of_the_user", "threads"), [(None, "3"), ("7", "7")])
def test_threads_are_the_cpus_of_a_trial_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_the_user: str | None, threads: str
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if of_the_user:
        monkeypatch.setenv("OMP_NUM_THREADS", of_the_user)
    [trial] = sweep(tmp_path, 1)
    run_trials([trial], local(cpus_per_trial=3), on_event=print)
    assert json.loads((trial.folder / "result.json").read_text())["threads"] == threads


# engine=ray


@pytest.mark.parametrize(
    ("nodes", "asked", "trials", "share", "slots"),
    [
        ([{"CPU": 64, "GPU": 8}], {}, 100, (8, 1), 8),
        ([{"CPU": 2, "GPU": 8}], {}, 100, (0.25, 1), 8),  # too few cores keep no GPU idle
        ([{"CPU": 4, "GPU": 3}], {"gpus_per_trial": 0.5}, 100, (0.6666, 0.5), 6),
        ([{"CPU": 16, "GPU": 4}], {"gpus_per_trial": 0.3}, 100, (1, 0.3), 12),  # 3 per GPU, none across two
        ([{"CPU": 16, "GPU": 5}], {"gpus_per_trial": 2}, 100, (6, 2), 2),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 96}], {}, 100, (8, 1), 8),  # the GPU node's own CPUs count
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 0}, 4, (2, 0), 4),
        ([{"CPU": 8}], {}, 100, (1, 0), 8),
        ([{"CPU": 8}, {"CPU": 4}], {}, 2, (6, 0), 1),
        ([{"CPU": 8}], {"cpus_per_trial": 3}, 100, (3, 0), 2),
    ],
)
def test_ray_shares_what_there_is(
    nodes: Any, asked: dict[str, Any], trials: int, share: tuple[float, float], slots: int
) -> None:
    from vitexp.sweeps.engines.ray_engine import _slots

    engine = ray(**asked)
    assert isinstance(engine, RayEngine)
    assert engine._share(nodes, trials) == share
    assert _slots(nodes, *share) == slots


def test_ray_refuses_what_no_node_has() -> None:
    engine = ray(gpus_per_trial=2)
    assert isinstance(engine, RayEngine)
    with pytest.raises(ConfigError, match=r"no node has what a trial needs \(GPUs: 2,"):
        engine._share([{"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}], 1)


def test_pretend_gpus_are_for_a_ray_of_our_own() -> None:
    with pytest.raises(ConfigError, match=r"engine\.gpus=8 applies only if the sweep starts Ray"):
        ray(gpus=8, address="auto")


@pytest.mark.parametrize(("engine", "package"), [(ray(), "ray"), (slurm(), "submitit")])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"needs one more package: pip install {package}, or use engine=local"):
        run_trials(sweep(tmp_path, 1), engine, on_event=print)


@pytest.mark.slow
@needs_ray
def test_ray_packs_shares_of_gpus_and_survives_failures(tmp_path: Path) -> None:
    """Two fake GPUs: four trials that wait for each other, one that crashes, and one that cannot be started."""
    before = set(with_argument("raylet"))
    good = sweep(tmp_path, 4, "meet=4")
    bad = [
        fake_trial(tmp_path / "bad" / "crash", "end=crash"),
        Trial(**{**vars(good[0]), "folder": tmp_path / "x", "command": (1,)}),
    ]
    events: list[Any] = []
    engine = ray(gpus=2, gpus_per_trial=0.5, timeout=60)
    assert run_trials([*bad, *good], engine, on_event=events.append) == bad
    assert next(event for event in events if isinstance(event, Ready)).slots == 4
    assert len([event for event in events if isinstance(event, Finished)]) == 6
    assert "TypeError" in json.loads((tmp_path / "x" / "result.json").read_text())["error"]
    assert sorted(gpu for _, _, gpu in spans(good)) == ["0", "0", "1", "1"]
    assert set(with_argument("raylet")) <= before


@pytest.mark.slow
@needs_ray
def test_whole_gpus_are_never_shared(tmp_path: Path) -> None:
    drawn = random.Random(0)
    trials = [fake_trial(tmp_path / str(index), f"seconds={drawn.uniform(0, 0.4):.3f}") for index in range(24)]
    assert run_trials(trials, ray(gpus=4), on_event=lambda _: None) == []
    for gpu in ("0", "1", "2", "3"):
        assert at_once([span for span in spans(trials) if span[2] == gpu]) == 1


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize(("sent", "code"), STOPS)
def test_stopping_ray_leaves_no_process(tmp_path: Path, sent: int, code: int) -> None:
    process, trials = driver(tmp_path, "ray", 6, "seconds=60"), sweep(tmp_path, 6)
    until(lambda: sum(lines(trials, "starts")) >= 2, seconds=90)
    time.sleep(0.5)
    process.send_signal(sent)
    assert process.wait(60) == code
    assert not with_argument(str(tmp_path)) and not of_session(process.pid)
    assert {status(trial) for trial in trials} <= {"interrupted", None}


@pytest.mark.slow
@needs_ray
def test_trials_of_a_node_that_vanishes_are_taken_up_by_another(tmp_path: Path) -> None:
    """Two nodes of one Ray on this machine share a sweep; one is killed while its trials run."""
    from ray.cluster_utils import Cluster

    on_sigterm = signal.getsignal(signal.SIGTERM)  # the cluster replaces it
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    doomed = cluster.add_node(num_cpus=2)
    trials, started = sweep(tmp_path, 8, "meet=4", "seconds=2"), []

    def kill_once_four_run(event: Any) -> None:
        started.extend([event] if isinstance(event, Started) else [])
        if len(started) == 4 and event is started[-1]:
            until(lambda: sum(lines(trials, "starts")) == 4)
            cluster.remove_node(doomed, allow_graceful=False)

    try:
        engine = ray(address=cluster.address, cpus_per_trial=1)
        assert run_trials(trials, engine, on_event=kill_once_four_run) == []
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)
    assert sum(lines(trials, "starts")) == 10  # those two started twice
    assert once(trials)


# engine=slurm, by submitit's local executor


@needs_submitit
def test_slurm_runs_the_trials_as_jobs(tmp_path: Path) -> None:
    trials = [fake_trial(tmp_path / "good"), fake_trial(tmp_path / "bad", "end=crash")]
    events: list[Any] = []
    assert run_trials(trials, slurm(), on_event=events.append) == [trials[1]]
    kinds = [(type(event), event.trial.row) for event in events if not isinstance(event, Ready)]
    assert sorted(kinds, key=str) == sorted([(k, r) for k in (Started, Finished) for r in ("good", "bad")], key=str)


@needs_submitit
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cluster": "slurm"}, "engine=slurm: Could not detect"),
        ({"parameters": {"nonsense": 1}}, "engine=slurm: .*nonsense"),
    ],
)
def test_slurm_refuses_what_cannot_be(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_trials(sweep(tmp_path, 1), slurm(**changes), on_event=print)


@pytest.mark.slow
@needs_submitit
def test_stopping_slurm_cancels_its_jobs(tmp_path: Path) -> None:
    process, trials = driver(tmp_path, "slurm", 2, "seconds=60"), sweep(tmp_path, 2)
    until(lambda: sum(lines(trials, "starts")) == 2)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    until(lambda: not with_argument(str(tmp_path)))

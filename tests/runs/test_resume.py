"""Stopped runs resume in the same folder and end with the same bytes, or are refused."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import CONF, TINY, composed, result, tiny_run
from tests.forked import TRAIN, Server, kill
from vitexp.config.overrides import merged
from vitexp.errors import ConfigError
from vitexp.runs.resume import differences
from vitexp.runs.run import run
from vitexp.system.signals import Interrupted
from vitexp.training.checkpoints import read_checkpoint, sealed

# Everything that draws random numbers or keeps state: mixing, drop path, dropout, averaged weights.
SMALL = (
    *TINY,
    "logger=csv",
    "callbacks=none",
    "data.batch_size=16",
    "model.drop_path=0.2",
    "model.dropout=0.1",
    "training.mixup_alpha=0.4",
    "training.cutmix_alpha=1.0",
    "training.ema_decay=0.9",
    "trainer.max_epochs=4",
)
STOPS = 50  # of the soak tests


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@dataclass(frozen=True)
class Run:
    """The outputs of a run."""

    folder: Path
    result: dict[str, Any]
    weights: bytes
    seconds: float


def whole(server: Server, folder: Path, *overrides: str, base: Sequence[str] = SMALL) -> Run:
    """Train without interruption; return the run."""
    server.train(folder / "first.log", *base, *overrides, f"log_dir={folder}", "name=first")  # prepares the images
    start = time.monotonic()
    code = server.train(folder / "whole.log", *base, *overrides, f"log_dir={folder}", "name=whole")
    assert code == 0, (folder / "whole.log").read_text()[-2000:]
    return left_by(folder / "whole", time.monotonic() - start)


def left_by(task: Path, seconds: float = 0.0) -> Run:
    """Return the only run of a task."""
    [file] = task.glob("*/result.json")
    return Run(file.parent, result(file.parent), (file.parent / "model.safetensors").read_bytes(), seconds)


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole(server, tmp_path_factory.mktemp("whole"))


def stopped_and_resumed(
    server: Server,
    folder: Path,
    name: str,
    numbers: list[int],
    dice: random.Random,
    seconds: float,
    *overrides: str,
    base: Sequence[str] = SMALL,
) -> list[int]:
    """Repeat a command, sending a signal of `numbers` at a random moment each time; return the exit codes."""
    command = (*base, *overrides, f"log_dir={folder}", f"name={name}", "resume=auto", "checkpoint.every_n_steps=1")
    codes = []
    for number in (*numbers, None):
        process = server.start(folder / f"{name}.log", *command)
        if number is not None:
            time.sleep(dice.uniform(0.2, seconds))
            kill(process, number)
        codes.append(server.end(process))
    return codes


def same(run: Run, other: Run) -> bool:
    keys = ("metrics", "epochs", "steps", "images_seen", "data", "status", "seed", "config_hash")
    return run.weights == other.weights and all(run.result[key] == other.result[key] for key in keys)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_run_stopped_at_random_moments_ends_with_the_same_bytes(
    server: Server, undisturbed: Run, tmp_path: Path, number: int
) -> None:
    dice = random.Random(number)
    stop_many(server, undisturbed, tmp_path, number, dice, runs=1)


@pytest.mark.parametrize("monitor", ["null", "val/accuracy"])
def test_run_stopped_between_training_and_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str) -> None:
    """No step is left, yet the averaged weights are tested, not those of the last step."""
    options = [*SMALL, f"checkpoint.monitor={monitor}"]
    expected = left_by(tiny_run(tmp_path, *options, "name=whole").parent)
    with monkeypatch.context() as patched:
        patched.setattr("vitexp.runs.run._test", lambda *given: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted):
            tiny_run(tmp_path, *options, "name=again")
    run(composed(*options, f"log_dir={tmp_path}", "name=again", "resume=auto"))
    assert same(expected, left_by(tmp_path / "again"))


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_fifty_runs_stopped_at_random_moments(server: Server, undisturbed: Run, tmp_path: Path, number: int) -> None:
    stop_many(server, undisturbed, tmp_path, number, random.Random(), runs=STOPS)


def stop_many(server: Server, undisturbed: Run, folder: Path, number: int, dice: random.Random, *, runs: int) -> None:
    stopped, equal = 0, 0
    for attempt in range(runs):
        name = f"stopped{attempt}"
        codes = stopped_and_resumed(server, folder, name, [number] * 2, dice, undisturbed.seconds)
        stopped += sum(code == 128 + number for code in codes)
        assert codes[-1] == 0, (folder / f"{name}.log").read_text()[-2000:]
        assert set(codes) <= {0, 128 + number}
        equal += same(undisturbed, left_by(folder / name))
    print(f"{equal} of {runs} runs ended with the same bytes and metrics; {stopped} times signal {number} ended one")
    assert equal == runs
    assert stopped >= runs // 2, "the signals came too late"


def test_sigterm_writes_a_checkpoint_and_the_record(server: Server, tmp_path: Path) -> None:
    """There are no periodic checkpoints, so that the signal causes the only one."""
    command = (*SMALL, "trainer.max_epochs=1000", f"log_dir={tmp_path}", "name=long", "trainer.log_every_n_steps=1")
    process = server.start(tmp_path / "log", *command)
    scalars = tmp_path / "long"
    while not list(scalars.glob("*/metrics.csv")):
        time.sleep(0.01)
    time.sleep(0.3)
    kill(process, signal.SIGTERM)
    assert server.end(process) == 143
    [folder] = scalars.iterdir()
    record = result(folder)
    assert (record["status"], record["error"]) == ("interrupted", "stopped by SIGTERM")
    steps = read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"]
    with (folder / "metrics.csv").open() as file:
        logged = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_step"]]
    assert steps == logged[-1] + 1 == len(logged), "no step is lost, none is done twice"
    assert record["steps"] == steps and record["epochs"] == steps // 8 and record["images_seen"] == 16 * steps
    [line] = [line for line in (tmp_path / "log").read_text().splitlines() if "resumes the run" in line]
    again = line.removeprefix("stopped by SIGTERM; ").removesuffix(" resumes the run")
    assert again.endswith(f" resume={folder}") and "train" in again
    page = (folder / "report.html").read_text()
    assert again in page and "How it ended" in page and "went wrong" not in page
    assert f"<dt>Steps</dt><dd>{steps:,}</dd>" in page


def test_usr1_and_a_second_ctrl_c(server: Server, tmp_path: Path) -> None:
    for numbers, code in (([signal.SIGUSR1], 138), ([signal.SIGINT, signal.SIGINT], 130)):
        name = f"with{code}"
        command = (*SMALL, "trainer.max_epochs=1000", f"log_dir={tmp_path}", f"name={name}")
        process = server.start(tmp_path / "log", *command)
        while not list((tmp_path / name).glob("*/checkpoints/last.ckpt")):
            time.sleep(0.01)
        for number in numbers:
            kill(process, number)
        assert server.end(process, timeout=20) == code
        [file] = (tmp_path / name).glob("*/result.json")
        assert json.loads(file.read_text())["status"] == "interrupted"


CASES = {
    "accumulated": ["trainer.accumulate_grad_batches=2"],
    "sample augmentation in workers": ["augment=albumentations", "data.num_workers=2"],
    "patience": ["training.patience=1", "optim.lr=1e-9", "schedule.min_lr=0", "trainer.max_epochs=8"],
    "max_steps": ["trainer.max_steps=20"],
    "validation within the epoch": ["trainer.val_check_interval=0.25"],
    "teacher": ["training.distillation=soft", "model.distillation_token=true", "model.pool=cls"],
    "sgd": ["optim=sgd", "schedule=cosine_restarts"],
    "last weights": ["checkpoint.monitor=null"],
    "sizes": ["training.image_sizes=[16,32]"],
    "muon": ["optim=muon"],
    "data loader": ["data.resident=memory"],
    "figures": ["callbacks=default"],
    "pretraining": [
        *("task=mae", "training.mixup_alpha=0", "training.cutmix_alpha=0", "callbacks=default"),
        "callbacks.reconstructions.every_n_epochs=1",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_resumes(server: Server, undisturbed: Run, tmp_path: Path, case: str) -> None:
    overrides = [*CASES[case], *([f"training.teacher={undisturbed.folder}"] if case == "teacher" else [])]
    expected = whole(server, tmp_path, *overrides)
    numbers: list[int] = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    codes = stopped_and_resumed(server, tmp_path, "again", numbers, random.Random(case), expected.seconds, *overrides)
    assert codes[-1] == 0, (tmp_path / "again.log").read_text()[-2000:]
    assert same(expected, left_by(tmp_path / "again"))


GROUPS = ("model", "optim", "schedule", "augment", "loss", "task", "logger", "callbacks", "trainer")
ELSEWHERE = {"trainer=gpu", "trainer=ddp", "trainer=auto"}  # options that need a GPU, or several processes
TINY_VIT = ("model.dim=16", "model.depth=2", "model.num_heads=2")
OF_STAGES = ("model.depths=[1,2]", "model.num_heads=[2,4]", "model.drop_path=0.2", "model.dropout=0.1")
NEEDS = {
    "task=mae": ("training.mixup_alpha=0", "training.cutmix_alpha=0"),
    "trainer=debug": ("trainer.max_epochs=4",),
    "model=swin_tiny": (*OF_STAGES, "model.dim=8"),
    "model=pvt_tiny": (*OF_STAGES, "model.dims=[8,16]", "model.reductions=[2,1]", "model.mlp_ratios=[2,2]"),
    "model=timm": ("model.timm_name=test_convnext", "model.timm_kwargs={drop_path_rate:0.2}"),
}


def options() -> list[str]:
    names = [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
    return [name for name in names if name not in ELSEWHERE]


@pytest.mark.soak
@pytest.mark.parametrize("option", options())
def test_every_option_resumes_to_the_same_bytes(server: Server, tmp_path: Path, option: str) -> None:
    group = option.partition("=")[0]
    base = [word for word in SMALL if not word.startswith((f"{group}=", f"{group}."))]
    tiny = TINY_VIT if option.startswith("model=vit") else ()
    overrides = (option, *tiny, *NEEDS.get(option, ()))
    expected = whole(server, tmp_path, *overrides, base=base)
    numbers: list[int] = [signal.SIGKILL, signal.SIGTERM]
    dice = random.Random(option)
    codes = stopped_and_resumed(server, tmp_path, "again", numbers, dice, expected.seconds, *overrides, base=base)
    assert codes[-1] == 0, (tmp_path / "again.log").read_text()[-2000:]
    assert same(expected, left_by(tmp_path / "again"))


@pytest.mark.slow
def test_wandb_shows_one_curve(server: Server, tmp_path: Path) -> None:
    """The offline files of the second part also contain the first, which they replace when uploaded."""
    command = (*SMALL, f"log_dir={tmp_path}", "name=curve", "logger=default", "trainer.log_every_n_steps=1")
    process = server.start(tmp_path / "log", *command, "trainer.max_epochs=100")
    while not list((tmp_path / "curve").glob("*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    kill(process, signal.SIGTERM)
    assert server.end(process) == 143
    [folder] = (tmp_path / "curve").iterdir()
    steps = read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"]
    time.sleep(1.1)  # the folders are named by the second
    assert server.train(tmp_path / "log", f"resume={folder}", f"trainer.max_epochs={steps // 8 + 2}") == 2  # shorter
    last = folder / "checkpoints" / "last.ckpt"
    before = last.stat().st_mtime_ns
    process = server.start(tmp_path / "log", f"resume={folder}")
    while not last.exists() or last.stat().st_mtime_ns == before:
        time.sleep(0.01)
    kill(process, signal.SIGTERM)
    assert server.end(process) == 143
    parts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    assert {part.name.rpartition("-")[2] for part in parts} == {folder.name.rpartition("-")[2]}
    first, second = map(logged_steps, parts)
    assert first == list(range(steps))
    assert second[: len(first)] == first
    assert second == list(range(len(second)))
    assert len(second) > len(first)


def logged_steps(wandb_run: Path) -> list[int]:
    """Return the steps whose loss an offline W&B file contains, in order."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(wandb_run)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    steps = []
    for record in map(json.loads, listed.splitlines()):
        if record["type"] == "history":
            items = record["history"]["item"]
            if "train/loss_step" in items:
                steps.append(int(items["trainer/global_step"]))
    return steps


def test_completed_run_is_not_repeated(server: Server, tmp_path: Path) -> None:
    command = (*SMALL, f"log_dir={tmp_path}", "name=done", "trainer.max_epochs=1")
    assert server.train(tmp_path / "log", *command) == 0
    before = left_by(tmp_path / "done")
    assert server.train(tmp_path / "again.log", *command, "resume=auto") == 0
    assert "is already complete" in (tmp_path / "again.log").read_text()
    assert server.train(tmp_path / "again.log", f"resume={before.folder}") == 0
    assert left_by(tmp_path / "done") == before

    # a different configuration starts a new run, unless this run is to be resumed
    assert server.train(tmp_path / "log", *command, "resume=auto", "optim.lr=0.01") == 0
    assert len(list((tmp_path / "done").iterdir())) == 2
    assert server.train(tmp_path / "refused.log", f"resume={before.folder}", "optim.lr=0.01") == 2
    assert "optim.lr=0.001, now 0.01" in (tmp_path / "refused.log").read_text()
    assert result(before.folder) == before.result

    # but it may be resumed for more epochs
    assert server.train(tmp_path / "log", f"resume={before.folder}", "trainer.max_epochs=2", "logger=none") == 0
    longer = result(before.folder)
    assert (longer["status"], longer["epochs"], longer["steps"]) == ("completed", 2, 2 * before.result["steps"])
    assert longer["run_id"] == before.result["run_id"]


def test_changed_images_are_refused(server: Server, tmp_path: Path) -> None:
    command = (*SMALL, f"log_dir={tmp_path}", "name=changed", "trainer.max_epochs=1")
    assert server.train(tmp_path / "log", *command) == 0
    [folder] = (tmp_path / "changed").iterdir()
    (folder / "result.json").write_text(json.dumps({**result(folder), "status": "interrupted"}))
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(path)
    checkpoint["position"]["data"] = "of other images"
    path.write_bytes(sealed(checkpoint))
    assert server.train(tmp_path / "refused.log", *command, "resume=auto") == 2
    assert "changed; start a new run without resume=" in (tmp_path / "refused.log").read_text()


@pytest.mark.slow
def test_running_run_is_not_resumed(server: Server, tmp_path: Path) -> None:
    from vitexp.runs.record import LOCK
    from vitexp.system.lock import hold

    folder = tiny_run(tmp_path, "name=held")
    (folder / "result.json").write_text(json.dumps({**result(folder), "status": "running"}))
    with hold(folder / LOCK, wait=False):
        command = (*TINY, "logger=csv", f"log_dir={tmp_path}", "name=held", "resume=auto")
        assert server.train(tmp_path / "log", *command) == 2
    assert "in use by process" in (tmp_path / "log").read_text()


def test_existing_run_id_is_not_overwritten(tmp_path: Path) -> None:
    from vitexp.runs.record import RunRecord, new_run_folder

    config = composed(f"log_dir={tmp_path}", "run_id=mine")
    RunRecord.start(new_run_folder(config), config, overrides=[])
    with pytest.raises(ConfigError, match="mine already exists; resume it with resume=auto"):
        RunRecord.start(new_run_folder(config), config, overrides=[])


def test_a_record_appears_only_under_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise another process with resume=auto could take a run that has just started for a stopped one."""
    from vitexp.runs.lifecycle import open_run
    from vitexp.runs.record import LOCK, RunRecord
    from vitexp.system.lock import is_held

    held: list[bool] = []
    write = RunRecord._write

    def watched(record: RunRecord) -> None:
        held.append(is_held(record.folder / LOCK))
        write(record)

    monkeypatch.setattr(RunRecord, "_write", watched)
    with open_run(composed(f"log_dir={tmp_path}", "resume=auto"), overrides=[]) as opened:
        assert (opened.record.folder / "result.json").exists()
    assert held
    assert all(held)


def test_missing_run_folder_is_one_sentence(tmp_path: Path) -> None:
    from vitexp.runs.resume import run_to_resume

    with pytest.raises(ConfigError, match="is not a run folder"):
        run_to_resume(composed(f"resume={tmp_path}"))
    assert run_to_resume(composed(f"log_dir={tmp_path}", "resume=auto")) is None


def test_run_of_an_earlier_version_can_be_resumed(tmp_path: Path) -> None:
    """Before tasks and losses were options, and before checkpoint.monitor could be auto."""
    config = composed(*TINY)
    earlier: Any = OmegaConf.to_container(config, resolve=True)
    del earlier["task"], earlier["loss"]
    earlier["training"]["label_smoothing"] = 0.1
    earlier["checkpoint"] |= {"monitor": "val/accuracy", "mode": "max"}
    OmegaConf.save(OmegaConf.create(earlier), tmp_path / "config.yaml")
    assert differences(tmp_path, config) == []
    assert differences(tmp_path, composed(*TINY, "optim.lr=1")) == ["optim.lr=0.001, now 1"]


def test_overrides_are_merged_by_key() -> None:
    stored = ["model=vit_tiny", "optim.lr=0.1", "+x.y=1", "resume=auto"]
    assert merged(stored, ["optim.lr=0.2", "resume=logs/a"]) == ["model=vit_tiny", "+x.y=1", "optim.lr=0.2"]


@pytest.mark.slow
def test_killed_trial_resumes(tmp_path: Path) -> None:
    """The second attempt of a sweep resumes where the first was killed."""
    from vitexp.sweeps.engines.trial import Finished, run_trial
    from vitexp.sweeps.grid import plan

    arguments = [*SMALL, "trainer.max_epochs=40", "checkpoint.every_n_steps=1"]
    [trial] = plan(tmp_path / "sweep", ablation=None, arguments=arguments).trials

    def kill() -> None:
        while not list(trial.folder.glob("checkpoints/previous.ckpt")):
            time.sleep(0.01)
        os.kill(int((trial.folder / ".lock").read_text().split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    [*_, finished] = run_trial(trial, retries=1, timeout=None, environment={}, cwd=CONF.parent)
    killer.join()
    assert isinstance(finished, Finished)
    assert (finished.status, finished.attempts) == ("completed", 2)
    epochs = [line for line in (trial.folder / "train.log").read_text().splitlines() if ": epoch " in line]
    assert len(epochs) in (40, 41)  # the epoch in which it was killed may be reported twice
    assert result(trial.folder)["epochs"] == 40


@pytest.mark.slow
def test_two_processes_stop_together_and_resume(tmp_path: Path) -> None:
    """Only the first gets the signal; both stop between the same two steps. One process may resume the run."""
    together = ("trainer.devices=2", "trainer.strategy=ddp")
    command = [
        *SMALL,
        f"log_dir={tmp_path}",
        "name=both",
        "data.batch_size=8",
        "trainer.max_epochs=99",
        "trainer.max_steps=200",
    ]
    train = [sys.executable, str(TRAIN)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*train, *command, *together], stdout=log, stderr=log)
        while not list((tmp_path / "both").glob("*/checkpoints/last.ckpt")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 143
    assert "Traceback" not in (tmp_path / "log").read_text()
    [folder] = (tmp_path / "both").iterdir()
    assert result(folder)["status"] == "interrupted"
    time.sleep(5)
    others = subprocess.run(["pgrep", "-f", f"log_dir={tmp_path}"], capture_output=True, text=True).stdout
    assert others == "", "the other process has outlived the first"
    assert 16 <= read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] < 200

    more = "trainer.max_steps=210"
    refused = subprocess.run([*train, f"resume={folder}", more, "data.batch_size=16"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "data.batch_size=8, now 16" in refused.stderr
    alone = subprocess.run(
        [*train, f"resume={folder}", "trainer.devices=1", "trainer.strategy=auto", more], capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    record = result(folder)
    assert (record["status"], record["steps"], record["environment"]["device_count"]) == ("completed", 210, 1)

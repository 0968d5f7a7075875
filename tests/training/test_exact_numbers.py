"""The same numbers from any number of processes, with real process groups and Lightning's own loops."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SOAK_SIZES = range(1, 102)

Told = dict[tuple[int, int], dict[str, Any]]


def together(folder: Path, *, world_sizes: tuple[int, ...], sizes: Iterable[int], patience_s: float) -> Told:
    """Return the results of every process, by world size and rank. All sizes take one launch."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in world_sizes]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    asked = {"world_sizes": world_sizes, "sizes": list(sizes), "ports": ports}
    (folder / "asked.json").write_text(json.dumps(asked))
    processes = []
    for rank in range(max(world_sizes)):
        with (folder / f"{rank}.log").open("w") as log:
            line = [sys.executable, str(Path(__file__).with_name("ranked.py")), str(rank), str(folder)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
            processes.append(subprocess.Popen(line, stdout=log, stderr=log, env=environment))
    try:
        codes = [process.wait(patience_s) for process in processes]
    finally:  # processes that deadlock would wait forever
        for process in processes:
            process.kill()
    said = "\n".join((folder / f"{rank}.log").read_text()[-3000:] for rank in range(max(world_sizes)))
    assert codes == [0] * len(processes), said
    made = [(world_size, rank) for world_size in world_sizes for rank in range(world_size)]
    return {(world_size, rank): torch.load(folder / f"{world_size}-{rank}.pt") for world_size, rank in made}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Two processes: one image in all; one each; full batches of 12; one image too few or too many."""
    return together(tmp_path_factory.mktemp("short"), world_sizes=(1, 2), sizes=(1, 2, 11, 12, 13), patience_s=300)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return together(tmp_path_factory.mktemp("long"), world_sizes=(1, 2, 3), sizes=SOAK_SIZES, patience_s=3000)


@pytest.mark.slow
def test_every_image_counts_once_in_two_processes(short: Told) -> None:
    assert_counted_once(short)


@pytest.mark.slow
def test_pretraining_measures_every_image_with_its_own_mask_in_two_processes(short: Told) -> None:
    for size, alone in short[1, 0]["completed"].items():
        assert alone["count"] == size
        assert alone["val"] == alone["test"], "of the same images, because the masks are the same"
        for told in short.values():
            assert told["completed"][size] == pytest.approx(alone, rel=1e-6)
    assert len({alone["test"] for alone in short[1, 0]["completed"].values()}) == 5


@pytest.mark.slow
def test_training_is_the_same_in_two_processes(short: Told) -> None:
    assert_trained_alike(short)


@pytest.mark.slow
def test_all_processes_test_the_net_of_the_first_process(short: Told) -> None:
    first, second = (short[2, rank]["tested_as_trained"] for rank in (0, 1))
    assert {"1.running_mean", "1.running_var"} <= first["buffers"].keys()
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.soak
def test_every_image_counts_once_for_every_set_size_and_number_of_processes(long: Told) -> None:
    assert_counted_once(long)
    assert all(sorted(told["measured"]) == list(SOAK_SIZES) for told in long.values())


@pytest.mark.soak
def test_training_is_the_same_in_every_number_of_processes(long: Told) -> None:
    assert_trained_alike(long)


def assert_counted_once(told: Told) -> None:
    for size, alone in told[1, 0]["measured"].items():
        probabilities, labels = alone["predictions"]
        assert_right(alone["test"], probabilities, labels)
        for (world_size, rank), parts in told.items():
            here, case = parts["measured"][size], f"{size} images, process {rank} of {world_size}"
            assert here["val_count"] == len(here["predictions"][1]) == size, case
            assert torch.equal(here["predictions"][1], labels), case
            torch.testing.assert_close(here["predictions"][0], probabilities, rtol=0, atol=1e-6, msg=case)
            assert here["val"].keys() == {name.replace("test", "val") for name in alone["test"]}, case
            for part in ("val", "test"):
                assert here[part] == pytest.approx(alone[part], rel=1e-6, abs=1e-6), case
            # Exactly equal, because this selects the checkpoint: processes must not select different ones.
            assert here["val"] == told[world_size, 0]["measured"][size]["val"], case


def assert_right(told: dict[str, float], probabilities: torch.Tensor, labels: torch.Tensor) -> None:
    """Compare the metrics of one process with their definitions in double precision."""
    probabilities = probabilities.double()
    own = probabilities.gather(1, labels[:, None])
    ahead = (probabilities > own).sum(dim=1)
    expected = {"accuracy": ahead < 1, "accuracy_top5": ahead < 5, "loss": -own.log()}
    for name, values in expected.items():
        assert told[f"test/{name}"] == pytest.approx(float(values.double().mean()), rel=0, abs=1e-6)


def assert_trained_alike(told: Told) -> None:
    alone = told[1, 0]["trained"][1]
    assert alone["steps"] == len(alone["lr"]) == 8
    assert max(alone["lr"]) == 0.05
    for (world_size, rank), parts in told.items():
        for accumulated, here in parts["trained"].items():
            case = f"{accumulated} accumulated, process {rank} of {world_size}"
            assert here["steps"] == alone["steps"], case
            assert here["lr"] == alone["lr"], case
            torch.testing.assert_close(here["weights"], alone["weights"], rtol=0, atol=2e-6)
            assert here["train"]["train/loss_epoch"] == pytest.approx(alone["train"]["train/loss_epoch"], abs=1e-5)
            assert here["train"]["train/accuracy"] == pytest.approx(alone["train"]["train/accuracy"], abs=1e-6)

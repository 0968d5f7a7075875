"""The wheel alone, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CONF, TINY

Command = Callable[..., str]
# What the script that pip creates does.
START = "from vitexp.__main__ import main; main()"


@pytest.fixture(scope="module")
def vitexp(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Install the wheel, without the clone, next to the packages of this interpreter; return a function to call it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=CONF.parent, check=True
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    [packages] = (folder / "venv").glob("lib/*/site-packages")
    # The paths of a .pth file are added, but their own .pth files are not read: an editable vitexp is not found.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    [entry_points] = packages.glob("vitexp-*/entry_points.txt")
    assert "vitexp = vitexp.__main__:main" in entry_points.read_text() and (packages / "vitexp" / "py.typed").exists()
    empty = tmp_path_factory.mktemp("empty")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*words: str) -> str:
        command = [str(folder / "venv" / "bin" / "python"), "-I", "-c", START, *words]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    (empty / "mine.py").write_text("from lightning import Callback\n\nclass Mine(Callback):\n    pass\n")
    (empty / "images").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(empty / "images" / "black.png")
    return call


@pytest.mark.slow
def test_commands(vitexp: Command) -> None:
    assert "train, test and record one run" in vitexp()
    assert "run folder" in vitexp("train", *TINY, "logger=csv", "callbacks=none", "+callbacks.mine._target_=mine.Mine")
    assert "1 image: predictions.csv" in vitexp("predict", "images=images")
    assert "results   logs/" in vitexp("evaluate")
    grid = ("model=vit_tiny", "optim.lr=1e-3,2e-3", "engine=local", "logger=csv", "callbacks=none")
    assert "table.md" in vitexp("sweep", *grid, *(word for word in TINY if word != "model=vit_tiny"))

"""Sweeps with components, ablations, searches and engines from outside this repository."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONF
from vitexp.config.check import check
from vitexp.config.compose import compose
from vitexp.config.overrides import command_line

FILES = {
    "mine.py": """
from __future__ import annotations

import json
from typing import Annotated

from torch import nn

from vitexp.models import ViT
from vitexp.options import Doc, Field
from vitexp.sweeps.engines import Engine
from vitexp.sweeps.engines.trial import Finished, Ready, Started


class MyViT(ViT):
    pass


class MyLoss(nn.Module):
    def __init__(self, *, power: Annotated[float, Field(gt=0), Doc("exponent")] = 1.0) -> None:
        super().__init__()
""",
    # Imported by the sweep, so without torch.
    "engine.py": """
from __future__ import annotations

import json
from typing import Annotated, Any

from vitexp.options import Doc, Field
from vitexp.sweeps.engines import Engine
from vitexp.sweeps.engines.trial import Finished, Ready, Started


class Pretend(Engine):
    def __init__(self, *, accuracy: Annotated[float, Field(ge=0, le=1), Doc("of all trials")], **common: Any) -> None:
        super().__init__(**common)
        self.accuracy = accuracy

    def run(self, trials, *, on_event) -> None:
        on_event(Ready(slots=len(trials), where="paper"))
        for trial in trials:
            on_event(Started(trial=trial, host="here", gpus=None))
            trial.folder.mkdir(parents=True)
            metrics = {split: {"accuracy": self.accuracy} for split in ("val", "test")}
            record = {"schema": 1, "status": "completed", "error": None, "seed": trial.seed, "metrics": metrics}
            (trial.folder / "result.json").write_text(json.dumps({**record, "command": trial.command}))
            on_event(Finished(trial=trial, status="completed", error=None, attempts=1, exit_code=0, seconds=1.0))


class NoEngine:
    def __init__(self, *, accuracy: float) -> None:
        pass
""",
    "conf/model/mine.yaml": """
name: mine
_target_: mine.MyViT
patch_size: 8
dim: 16
depth: 2
num_heads: 2
""",
    "conf/loss/mine.yaml": "_target_: mine.MyLoss\npower: 1.0\n",
    "conf/engine/pretend.yaml": "_target_: engine.Pretend\naccuracy: 0.5\n",
    "conf/ablation/mine.yaml": """
seeds: [0, 1]
base: [model=mine]
rows:
  - {name: plain, set: []}
  - {name: mine, set: [loss=mine, loss.power=2]}
""",
    "conf/search/mine.yaml": """
trials: 2
startup: 2
parallel: null
metric: val/accuracy
direction: maximize
sampler: random
seed: 0
prune: null
space: {loss.power: {low: 0.5, high: 2.0}}
""",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def sweep(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vitexp", "sweep", *words, "logger=csv"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def trials(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize("given", [("--config-dir", "conf"), ("hydra.searchpath=[file://conf]",)])
def test_an_ablation_of_own_components(project: Path, given: tuple[str, ...]) -> None:
    name = f"given{len(given)}"
    done = sweep(project, *given, "ablation=mine", "engine=pretend", f"name={name}")
    assert done.returncode == 0, done.stderr
    found = trials(project / "logs" / name)
    assert len(found) == 4
    for trial in found:
        python, m, package, train, *overrides = trial["command"]
        assert (python, m, package, train) == (sys.executable, "-m", "vitexp", "train")
        config = compose(overrides)  # a trial finds the components itself
        check(config)
        assert config.model._target_ == "mine.MyViT"
    assert sum("loss.power=2" in trial["command"] for trial in found) == 2
    page = html.unescape((project / "logs" / name / "sweep.html").read_text())
    assert f"<pre>vitexp sweep {shlex.join(given)} ablation=mine engine=pretend name={name}" in page


@pytest.mark.usefixtures("in_project")
def test_a_search_of_own_components(project: Path) -> None:
    done = sweep(
        project, "--config-dir", "conf", "search=mine", "engine=pretend", "name=mine", "model=mine", "loss=mine"
    )
    assert done.returncode == 0, done.stderr
    [repeat] = re.findall("^vitexp train (.*)$", (project / "logs" / "mine" / "search.md").read_text(), re.MULTILINE)
    config = compose(shlex.split(repeat))
    check(config)
    assert (config.model._target_, config.loss._target_) == ("mine.MyViT", "mine.MyLoss")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("loss=mine", "loss.power=-1,1"), "'loss.power=-1': loss.power=-1 must be a number above 0"),
        (("ablation=mine", "engine.accuracy=2"), "engine.accuracy=2 must be a number between 0 and 1"),
        (("ablation=mine", "engine.accuracy=0", "+engine.retry=2"), "no key 'engine.retry' of engine.Pretend"),
        (("ablation=mine", "engine._target_=engine.NoEngine"), "a subclass of vitexp.sweeps.engines.Engine"),
        (("ablation=mine", "engine._target_=engin.Pretend"), "engine._target_=engin.Pretend cannot be imported"),
        (("ablation=mine", "metric=speed"), "metric=speed must be"),
    ],
)
def test_mistakes_are_one_sentence(project: Path, words: tuple[str, ...], sentence: str) -> None:
    done = sweep(project, "--config-dir", "conf", "engine=pretend", "name=wrong", *words)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert sentence in line
    assert not (project / "logs" / "wrong").exists()


@pytest.mark.parametrize(
    ("package", "words", "sentence"),
    [
        ("ray", ("optim.lr=1e-3,2e-3",), "engine=ray needs one more package: pip install ray, or use engine=local."),
        ("optuna", ("search=mine",), "search=NAME needs one more package: pip install optuna, or use a grid"),
    ],
)
def test_absent_packages_are_named(project: Path, package: str, words: tuple[str, ...], sentence: str) -> None:
    (project / "sitecustomize.py").write_text("import os, sys\nsys.modules[os.environ['ABSENT']] = None\n")
    environment = {**os.environ, "PYTHONPATH": f"{project}:{CONF.parent}", "ABSENT": package}
    command = [sys.executable, "-m", "vitexp", "sweep", "--config-dir", "conf", *words, "logger=csv"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, sentence in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_commands_are_written_as_the_user_can_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONF.parent)
    assert command_line("train", "name=a b") == "python train.py 'name=a b'"
    assert command_line("explain", "run=newest") == "python -m vitexp explain run=newest"
    monkeypatch.chdir(tmp_path)
    assert command_line("train", "name=a b") == "vitexp train 'name=a b'"
    monkeypatch.setattr(sys, "argv", [str(CONF.parent / "sweep.py")])
    assert command_line("train") == f"python {CONF.parent / 'train.py'}"

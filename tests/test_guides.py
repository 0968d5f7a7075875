"""Commands, examples, links and paths of README.md and the guides in .readme/."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import TINY, composed, result
from vitexp.runs.find import BUNDLED

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / ".readme").glob("*.md"))]
LANGUAGES = {"bash", "python", "yaml", "text", "bibtex"}
# Programs that are not vitexp's; the files that they are given must exist.
OTHERS = {"pip", "pytest", "pre-commit", "ssh", "wandb", "scontrol", "[", ".ci/run", "python"}

NAMES = {"python sweep.py", "vitexp sweep", "uv run"}  # mentioned in a sentence, without arguments


def blocks(guide: Path) -> list[tuple[str, str]]:
    """Return language and content of every code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def prose(guide: Path) -> str:
    """Return the text of a guide without its code blocks."""
    return re.sub(r"^```.*?^```$", "", guide.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    """Return every command of every guide, without comments, in blocks and between backticks."""
    lines = [line for guide in GUIDES for kind, text in blocks(guide) if kind == "bash" for line in text.splitlines()]
    inline = [line for guide in GUIDES for line in re.findall(r"`((?:python|vitexp|uv|pip) [^`]+)`", prose(guide))]
    found = []
    for line in [*lines, *inline]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|{}")
        lexer.whitespace_split = True
        for is_separator, words in groupby(lexer, lambda word: not word.strip(";&|{}")):
            if not is_separator:
                found.append(shlex.join(words))
    return [line for line in dict.fromkeys(found) if "COMMAND" not in line and line not in NAMES]


def parsed(line: str) -> tuple[str, list[str]] | None:
    """Return the name of a vitexp command and its arguments; None for another program."""
    words = shlex.split(line)
    if words[0] == "vitexp":
        return words[1], words[2:]
    for name in ("train", "sweep"):
        if f"{name}.py" in words:
            return name, words[words.index(f"{name}.py") + 1 :]
    if words[:3] == ["python", "-m", "vitexp"]:
        return words[3], words[4:]
    return None


COMMANDS = command_lines()
OURS = [line for line in COMMANDS if parsed(line)]


class Reached(BaseException):
    """The command line and the files that it names are valid; torch would be imported next."""


def reach(*_: Any, **__: Any) -> NoReturn:
    raise Reached


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the files that the guides write or name."""
    folder = tmp_path_factory.mktemp("project")
    for guide in GUIDES:
        for kind, text in blocks(guide):
            first, _, rest = text.partition("\n")
            if kind in ("python", "yaml") and (found := re.fullmatch(r"# (\S+/\S+\.(?:py|yaml))", first)):
                (folder / found[1]).parent.mkdir(parents=True, exist_ok=True)
                (folder / found[1]).write_text(rest)
    rng = np.random.default_rng(0)
    images = [f"photos/{name}/{number}.png" for name in ("cat", "ship", "truck") for number in range(12)]
    images += ["new/1.png", "new/2.png", "photo.jpg", "data/gtsrb/1.png"]
    for path in images:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / path)
    for copy in ("more_photos", "data/cifar10-jpeg"):
        shutil.copytree(folder / "photos", folder / copy)
    (folder / "weights.pth").touch()
    for name in ("photographed", "drawn"):
        shutil.copytree(BUNDLED, folder / "logs" / name / "run")
    OmegaConf.save(composed(), folder / "logs" / "drawn" / "run" / "config.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder


def filled(words: list[str], run: Path) -> list[str]:
    """Replace the placeholders of the guides."""
    places = {"logs/cifar10-vit_tiny-mae/RUN": "weights.pth", "PATH": "photos", "FOLDER": "new", "FILE": "new/1.png"}
    found = []
    for word in words:
        key, equals, value = word.rpartition("=")
        if value in places:
            value = places[value]
        elif re.fullmatch(r"(logs/[\w-]+/)?(RUN|OTHER)|logs/drawn/signs", value):
            value = str(run)
        found.append(f"{key}{equals}{value}")
    return found


def test_every_block_names_its_language() -> None:
    for guide in GUIDES:
        assert {kind for kind, _ in blocks(guide)} <= LANGUAGES, guide


def test_bash_reads_every_block() -> None:
    for guide in GUIDES:
        for kind, text in blocks(guide):
            if kind == "bash":
                read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
                assert read.returncode == 0, f"{guide.name}: {read.stderr}"


def test_python_compiles_every_block() -> None:
    for guide in GUIDES:
        for kind, text in blocks(guide):
            if kind == "python":
                compile(text, guide.name, "exec")


@pytest.mark.parametrize("line", OURS)
def test_a_command_is_valid(line: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parsed(line)
    assert found is not None
    name, words = found
    words = filled(words, project / "logs" / ("drawn" if name == "train" else "photographed") / "run")
    words = [word for word in words if not word.startswith("hydra/launcher=")]  # other processes would train
    published = re.search(r"(data|experiment)=(gtsrb|cifar)|signs_to_gtsrb", line) and name in ("train", "sweep")
    of_run = name in ("explain", "app", "evaluate") and "image=" not in line and "data=stripes" not in line
    if (published or of_run) and "data.download=true" not in words:
        words.append("data.download=true")  # the data set need not be on this machine
    for module, function in {
        "vitexp.runs.run": "run",
        "vitexp.runs.finished": "load_run",
        "vitexp.runs.predictions": "predict_folder",
        "vitexp.evaluate.evaluation": "evaluate",
        "vitexp.runs.explained": "explain_run",
        "vitexp.runs.rehearsal": "range_test" if name == "find-lr" else "fitting_batches",
        "vitexp.app.server": "serve",
    }.items():
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: reach}))
    monkeypatch.setattr("vitexp.errors.find_spec", lambda name: name)  # optional packages need not be installed
    monkeypatch.setattr("vitexp.sweeps.sweep._run_rows", reach)
    monkeypatch.setattr("vitexp.sweeps.search.search.open_study", reach)
    monkeypatch.setattr("vitexp.commands.bench.bench", reach)
    monkeypatch.setattr(sys, "argv", [name, *words])
    command = importlib.import_module(f"vitexp.commands.{name.replace('-', '_')}")
    try:
        command.main() if name in ("train", "sweep", "bench") else command.main(words)
    except Reached:
        return
    assert name in ("runs", "clean", "signs") or "--help" in words, "it did not get to its work"


@pytest.mark.parametrize("line", [line for line in COMMANDS if not parsed(line)])
def test_another_program_is_known_and_its_files_exist(line: str) -> None:
    words = shlex.split(line)
    while re.match(r"\w+=", words[0]):
        del words[0]
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    assert words[0] in OTHERS or words[:2] in (["uv", "venv"], ["uv", "pip"]), f"{line}: unknown program"
    for word in words:
        if re.fullmatch(r"[\w./-]+\.(py|yaml|txt)|\.ci/\w+", word):
            assert (ROOT / word).exists(), f"{line}: there is no {word}"
        if extra := re.fullmatch(r"\.\[(\w+)\]", word):
            assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text(), f"{line}: there is no extra {word}"


def anchors(guide: Path) -> set[str]:
    """Return the anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", prose(guide), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_links_and_paths_exist(guide: Path) -> None:
    text = prose(guide)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = guide.parent / path if path else guide
        assert file.exists(), f"{guide.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{guide.name} links to {target}"
    for path in re.findall(r"`((?:vitexp|conf|tests|\.readme|\.ci)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{guide.name} names {path}"
    assert not re.search(r"!\[\]\(", text), "a picture without a description"


def test_pictures_are_small() -> None:
    for picture in (ROOT / ".readme").glob("*.png"):
        assert picture.stat().st_size < 300_000, picture.name
        used = re.compile(rf"[(/]{picture.name}\)")
        assert any(used.search(guide.read_text(encoding="utf-8")) for guide in GUIDES), f"{picture.name} is not used"


def test_readme_is_short_and_complete() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    assert not [line for line in lines if re.fullmatch(r"[A-Z]{4,}", line)], "a placeholder"


# Short forms of the README's commands for a user's first hour, in this order.
FIRST_HOUR = {
    "uv run train.py": (*TINY, "callbacks=none"),
    "python train.py experiment=own_images data.root=photos": (
        *("data.batch_size=8", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1"),
        *("callbacks=none", "trainer.enable_progress_bar=false"),
    ),
    "python -m vitexp predict images=new": ("device=cpu",),
    "python -m vitexp evaluate": ("device=cpu",),
    "python -m vitexp explain": ("images=2", "shown=1", "embedded=9"),
    "python -m vitexp app": (),
    "python sweep.py optim.lr=3e-4,1e-3 seed=0,1,2": (*TINY, "engine=local", "logger=csv", "callbacks=none", "seed=0"),
    "python -m vitexp runs": (),
    "python -m vitexp clean": (),
}


@pytest.mark.slow
def test_the_first_hour(project: Path, tmp_path: Path) -> None:
    assert FIRST_HOUR.keys() <= set(COMMANDS)
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("photos", "new"):
        shutil.copytree(project / name, folder / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    for line, short in FIRST_HOUR.items():
        found = parsed(line)
        assert found is not None
        name, words = found
        words = [word for word in words if not (word.startswith("seed=") and "seed=0" in short)]
        command = [sys.executable, "-m", "vitexp", name, *words, *short]
        if name == "app":
            with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert any("http://127.0.0.1:" in each for each in process.stdout)
                process.send_signal(signal.SIGINT)
            continue
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout[-500:]}{done.stderr[-2000:]}"
    [run] = (folder / "logs" / "folder-vit_tiny_conv").iterdir()
    assert result(run)["status"] == "completed"
    assert (run / "evaluation" / "evaluation.json").exists()
    assert (run / "figures" / "explain" / "faithfulness.csv").exists()
    assert len((folder / "predictions.csv").read_text().splitlines()) == 3
    assert list((folder / "logs").glob("*/sweep.html"))


@pytest.mark.slow
def test_the_python_example(project: Path) -> None:
    [example] = [text for kind, text in blocks(GUIDES[0]) if kind == "python"]
    short = ["data.batch_size=8", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none"]
    (project / "example.py").write_text(example.replace("vitexp.train(", f"vitexp.train(*{short}, "))
    values = runpy.run_path("example.py")
    assert 0 <= values["run"].metrics["test"]["accuracy"] <= 1
    assert values["prediction"].name in ("cat", "ship", "truck")
    assert values["module"].net is not None

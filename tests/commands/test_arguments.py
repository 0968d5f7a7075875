"""The arguments of the commands that Hydra does not configure."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONF
from vitexp import __main__, errors
from vitexp.commands import app, clean, evaluate, explain, predict, runs
from vitexp.commands.words import options_first, run_command
from vitexp.errors import ConfigError


def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors, "find_spec", lambda name: name)  # also without the packages of export=
    Path("a/b=c").mkdir(parents=True)
    words = "run=a/b=c data=gtsrb data.root=/x out=o device=cpu tta=true corruptions=true corruption_images=7"
    assert evaluate.parse(
        [*words.split(), "latency=false", "probe=knn", "export=[onnx, timm]", "--config-dir", "more"]
    ) == {
        "folder": Path("a/b=c"),
        "data": ("data=gtsrb", "data.root=/x"),
        "config_dir": "more",
        "out": "o",
        "device": "cpu",
        "tta": True,
        "corruptions": True,
        "corruption_images": 7,
        "latency": False,
        "probe": ("knn",),
        "export": ("onnx", "timm"),
        "push": "",
    }


def test_explain() -> None:
    arguments = explain.parse(["run=.", "images=500", "class=Speed limit 30", "layer=2", "data.root=there"])
    assert (arguments["folder"], arguments["images"], arguments["label"]) == (Path("."), 500, "Speed limit 30")
    assert (arguments["layer"], arguments["head"], arguments["data"]) == (2, 0, ("data.root=there",))


def test_app() -> None:
    assert app.parse(["run=.", "port=8000"]) == (Path("."), 8000, ())
    assert app.parse(["run=.", "data.download=true"]) == (Path("."), None, ("data.download=true",))


@pytest.mark.parametrize(
    ("parse", "word", "sentence"),
    [
        (evaluate.parse, "corruption=true", "there is no key 'corruption'; did you mean corruptions=true"),
        (evaluate.parse, "tta", "write key=value, such as tta=VALUE"),
        (evaluate.parse, "logs/x/y", "write key=value, such as run=logs/x/y"),
        (evaluate.parse, "--run=X", "cannot read '--run=X': write key=value, such as run=X"),
        (evaluate.parse, "dataset=gtsrb", r"did you mean data=gtsrb\?"),
        (evaluate.parse, "root=my photos", r"'root'; for images in class folders, write data=folder 'data\.root=my ph"),
        (evaluate.parse, "split_seed=1", r"there is no key 'split_seed'; did you mean data\.split_seed=1\?"),
        (explain.parse, "root=other", r"there is no key 'root'; did you mean data\.root=other\?"),
        (app.parse, "path=other", r"there is no key 'path'; did you mean data\.path=other\?"),
        (predict.main, "photos", "write key=value, such as images=photos"),
        (app.parse, "runs=X", r"did you mean run=X\?"),
        (evaluate.parse, "=1", "write key=value"),
        (evaluate.parse, "tta=yes", "tta=yes must be false or true"),
        (evaluate.parse, "run=", "run= is empty"),
        (evaluate.parse, "run=nowhere", "run=nowhere is not a folder"),
        (evaluate.parse, "corruption_images=0", "must be an integer of 1 or more"),
        (evaluate.parse, "corruption_images=9", "corruption_images=9 has no effect without corruptions=true"),
        (evaluate.parse, "export=tensorflow", "must be onnx, timm, hub or several of them"),
        (evaluate.parse, "device=tpu", "must be auto, cpu, gpu, cuda or mps"),
        (evaluate.parse, "trainer.devices=2", "there is no key 'trainer.devices'"),
        (evaluate.parse, "log_dir=/nowhere", "there is no finished run under /nowhere"),
        (explain.parse, "imgae=3", r"did you mean image=3\?"),
        (explain.parse, "images=1", "2 or more"),
        (explain.parse, "images=²", "2 or more"),
        (explain.parse, "layer=-1", "1 or more"),
        (explain.parse, "image=/nowhere.png", "is not a file"),
        (explain.parse, "data.seed=3", r"there is no key 'data\.seed'"),
        (app.parse, "port=80", "from 1024 to 65535"),
        (app.parse, "port=eighty", "from 1024 to 65535"),
        (predict.main, "run=.", "images=FOLDER is missing"),
        (predict.main, "images=nowhere", "is not a folder"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(parse: Callable[[list[str]], Any], word: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        parse([word])
    assert str(refused.value).endswith((".", "?"))


def test_combinations_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="images is given twice"):
        explain.parse(["images=5", "images=6"])
    with pytest.raises(ConfigError, match="remove image"):
        explain.parse(["run2=.", f"image={__file__}"])


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (app, ["run", "port"]),
        (evaluate, evaluate._KEYS),
        (explain, explain._KEYS),
        (predict, ["run", "images", "out", "device"]),
        (runs, [*runs.FILTERS, "sort", "trials=true", "log_dir"]),
        (clean, [*runs.FILTERS, "yes=true", "log_dir"]),
    ],
)
def test_help_lists_every_key(
    command: Any, keys: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["vitexp", "--help"])
    run_command(command.main, command.__doc__)
    text = capsys.readouterr().out
    assert [key for key in keys if not re.search(rf"(?m)(^|, ){re.escape(key)}(?!\w)", text)] == []


@pytest.mark.parametrize("word", ["--config-name", "-cn", "--config-name=config"])
def test_a_configuration_file_is_only_for_training(word: str) -> None:
    words = [word, *["config"] * ("=" not in word), "optim.lr=1,2"]
    assert options_first("train", words) == words
    for command in ("sweep", "bench"):
        with pytest.raises(ConfigError, match=f"^{word} only works for the train command; drop it.$"):
            options_first(command, words)


def test_unknown_commands_are_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["vitexp", "evalute"])
    with pytest.raises(SystemExit, match=r"^2$"):
        __main__.main()
    assert "unknown command 'evalute'; the nearest is evaluate" in capsys.readouterr().err


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^the app needs one more package: pip install gradio\.$"):
        app.main(["run=."])


def test_no_command_imports_torch_before_it_has_read_its_arguments() -> None:
    modules = ", ".join(f"vitexp.commands.{name.replace('-', '_')}" for name in __main__.COMMANDS)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parent)

"""--help, the key reference and the JSON Schema."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.conftest import CONF
from vitexp.config.reference import train_help


def test_help_explains_every_key_in_100_columns() -> None:
    text = train_help("usage")
    assert max(map(len, text.splitlines())) <= 100
    assert "training.mixup_alpha=0.0            mixup with Beta(alpha, alpha)" in text
    assert "model.depth=6                       blocks (an integer of 1 or more, at most 1,000)" in text
    assert "+optim.amsgrad=false" in text


def test_help_describes_the_chosen_options() -> None:
    text = train_help("usage", ["model=simple_cnn", "schedule=cosine_restarts"])
    assert "schedule.period_factor=2.0" in text
    assert "model.depth" not in text


@pytest.mark.parametrize(
    ("command", "explained"),
    [("train", "trainer.max_epochs=auto"), ("sweep", "baseline=null"), ("bench", "repeats=15")],
)
def test_help_of_commands_needs_no_torch(command: str, explained: str, tmp_path: Path) -> None:
    probe = (
        f"import sys; sys.argv = ['vitexp', {command!r}, '--help']\n"
        "from vitexp.__main__ import main; main()\n"
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert explained in ended.stdout


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", CONF.parent / ".readme" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_key_reference_and_json_schema_are_up_to_date(script: ModuleType) -> None:
    for path, text in script.files():
        assert path.read_text() == text, "run python .readme/reference.py"


def test_json_schema_accepts_every_experiment_and_no_misspelled_key(script: ModuleType) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft7Validator(script.json_schema())
    for file in (CONF / "experiment").glob("*.yaml"):
        assert list(validator.iter_errors(yaml.safe_load(file.read_text()))) == [], file.name
    for wrong in (
        {"trainer": {"max_epoch": 3}},
        {"model": {"depth": "deep"}},
        {"defaults": [{"override /optim": "adam"}]},
    ):
        assert not validator.is_valid(wrong)
    assert validator.is_valid({"model": {"depth": "${trainer.max_epochs}"}})

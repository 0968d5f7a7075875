"""vitexp runs where fork, POSIX signals, flock, /proc and UTF-8 by default are missing, as on Windows."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import CONF, TINY, result

ROOT, HERE = CONF.parent, Path(__file__).parent


def test_every_text_file_is_read_and_written_in_utf_8() -> None:
    """The default encoding is cp1252 on Windows. A mode with "b" needs none."""
    missing = []
    for path in (*ROOT.glob("*.py"), *(ROOT / "vitexp").rglob("*.py"), *(ROOT / ".readme").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
                continue
            called = ast.unparse(node.func)
            is_open = called in ("open", "os.fdopen") and not any(
                "b" in str(value.value)
                for given in node.args[1:2]
                for value in ast.walk(given)
                if isinstance(value, ast.Constant)
            )
            if called.endswith((".read_text", ".write_text")) or is_open:
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not missing


def test_text_that_the_output_cannot_encode_is_escaped() -> None:
    script = "from vitexp.config.plain_errors import plain_errors\nwith plain_errors(): print('★ 5')"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"\\u2605 5\n"), ended.stderr


@pytest.mark.slow
def test_everything_works_on_a_system_like_windows(tmp_path: Path) -> None:
    logs, images = tmp_path / "logs", tmp_path / "images"
    logs.mkdir()
    images.mkdir()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(images / "red.png")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, ROOT))),  # with sitecustomize.py
        "PYTHONWARNDEFAULTENCODING": "1",
        "WANDB_MODE": "offline",
    }
    command = [sys.executable, str(HERE / "main_path.py"), str(logs), str(images), *TINY]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "predictions  1 image: predictions.csv" in ended.stdout
    [run] = logs.glob("signs-vit_tiny/*")
    [trial] = logs.glob("swept/*/result.json")
    assert result(run)["status"] == result(trial.parent)["status"] == "completed"
    assert (run / "evaluation" / "evaluation.json").exists() and (run / "checkpoints" / "removed.txt").exists()

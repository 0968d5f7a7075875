"""Option files written by hand that cannot be read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from vitexp.config.compose import compose
from vitexp.config.files import load_file
from vitexp.errors import ConfigError

WRONG = {
    "rows: [1}\n": "is not valid YAML (line 1): expected ',' or ']'",
    "a: 1\na: 2\n": "is not valid YAML (line 2): found duplicate key a",
    "a:\n\t- 1\n": "indent with spaces, not tabs",
    "a: &b\n  - *b\n": "contains itself through an alias",
    "- a\n": "must be a mapping of keys",
    "42\n": "must be a mapping of keys",
    "a: 1\n---\nb: 1\n": "expected a single document in the stream, but found another document",
    "a: !!python/object/apply:os.getcwd []\n": "could not determine a constructor for the tag",
    "a: \udce9\n": "is not encoded in UTF-8",
}


@pytest.mark.parametrize(("text", "problem"), WRONG.items(), ids=map(repr, WRONG))
def test_what_is_wrong_with_a_file(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=f"mine.yaml .*{re.escape(problem)}"):
        load_file(file)
    if "mapping" not in problem:  # Hydra merges a list, too
        with pytest.raises(ConfigError, match=r"/model/mine\.yaml "):
            compose(["model=mine"], config_dir=tmp_path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeffa: 1\n", "a: {b: [1]}\n"])
def test_nothing_is_wrong(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    load_file(tmp_path / "mine.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch(mode=0o000)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_file(tmp_path / "mine.yaml")


def test_a_file_in_the_wrong_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ConfigError, match=r"model has no option 'mine'.*mine\.yaml must be in the folder model\."):
        compose(["model=mine"], config_dir=tmp_path)


@pytest.mark.parametrize("group", ["ablation", "search", "engine"])
def test_groups_of_sweeps_are_not_those_of_a_run(group: str) -> None:
    with pytest.raises(ConfigError, match=f"^{group} can only be chosen for the sweep command"):
        compose([f"{group}=x"])

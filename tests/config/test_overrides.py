"""Overrides and commands that vitexp prints can be pasted."""

from __future__ import annotations

import shlex

import pytest

from tests.conftest import composed
from vitexp.config.overrides import setting

PATHS = ["logs/a/2026-b", "runs (1)/a", "a=b", "x[1]", "a,b", "it's", 'say "x"', "12", "null", "~/a", "{a}", "a#b"]


@pytest.mark.parametrize("path", PATHS)
def test_a_printed_setting_is_read_back(path: str) -> None:
    [word] = shlex.split(shlex.quote(setting("resume", path)))
    assert composed(word).resume == path


def test_a_simple_path_is_not_quoted() -> None:
    assert setting("resume", "/data/logs/signs-vit/2026-a") == "resume=/data/logs/signs-vit/2026-a"

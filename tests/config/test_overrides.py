"""Overrides and commands that vitexp prints can be pasted."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.conftest import composed
from vitexp.commands.words import read_words
from vitexp.config.compose import compose
from vitexp.config.overrides import PATHS as PATH_KEYS
from vitexp.config.overrides import flatten, setting, with_quoted_paths
from vitexp.errors import ConfigError
from vitexp.runs.data_config import _with_keys
from vitexp.sweeps.grid import values_of
from vitexp.sweeps.sweep import own_arguments

PATHS = ["logs/a/2026-b", "runs (1)/a", "a=b", "x[1]", "a,b", "it's", 'say "x"', "12", "null", "~/a", "{a}", "a#b"]


@pytest.mark.parametrize("path", PATHS)
def test_a_printed_setting_is_read_back(path: str) -> None:
    [word] = shlex.split(shlex.quote(setting("resume", path)))
    assert composed(word).resume == path


def test_a_simple_path_is_not_quoted() -> None:
    assert setting("resume", "/data/logs/signs-vit/2026-a") == "resume=/data/logs/signs-vit/2026-a"


TYPED = [
    *("~/x", "Bilder_ä", "Fotos (neu)", "a=b", "it's", "图片", "a b", "a,b", "x[1]", "[a]", "{a}", "a#b", "12", "1e3"),
    *('say "x"', "'open", "true", "C:\\Users\\x", "choice(a,b)", "é/ü, (x)[1]", "a&b;c", " a ", "a\\", "50%!"),
]


@pytest.mark.parametrize("path", TYPED)
@pytest.mark.parametrize("key", ["data.root", "+data.root", "resume", "model.weights"])
def test_a_typed_path_is_taken_literally(key: str, path: str) -> None:
    [word] = with_quoted_paths([f"{key}={path}"])
    [override] = OverridesParser.create().parse_overrides([word])
    assert (override.key_or_group, override.value()) == (key.lstrip("+"), path)
    assert with_quoted_paths([word]) == [word]


def test_quoted_paths_and_other_values_remain() -> None:
    words = ["data.root='a b'", 'log_dir="x (1)"', "resume=null", "data.root=${oc.env:HOME}/x", "name=Fotos (neu)"]
    words += ["seed=1,2", "data.root=", "--config-dir", "-m", r"data.root=a\,b", "data.root=/plain/a-b_c.d"]
    assert with_quoted_paths(words) == words


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("a,b", ["a", "b"]),
        ("Fotos (neu),b=c, 图片", ["Fotos (neu)", "b=c", "图片"]),
        ("choice(a,b)", ["a", "b"]),
        ("'a,b'", ["a,b"]),
        ("1,2", ["1", "2"]),
        ("Fotos (neu)", ["Fotos (neu)"]),
    ],
)
def test_a_comma_separates_paths_in_a_sweep(path: str, values: list[str]) -> None:
    [word] = with_quoted_paths([f"data.root={path}"], is_sweep=True)
    _, overrides = values_of(word)
    assert [override.value() for override in OverridesParser.create().parse_overrides(overrides)] == values


def test_the_log_dir_of_a_sweep_is_one_path() -> None:
    assert own_arguments(["log_dir=a,b", "data.root=a,b", "seed=1,2"]) == [
        'log_dir="a,b"',
        'trials=["data.root=a,b","seed=1,2"]',
    ]


def test_every_command_takes_paths_literally() -> None:
    assert compose(["data=folder", "data.root=Fotos (neu)", "log_dir=~/a,b"]).data.source.root == "Fotos (neu)"
    words = read_words(["data.root=it's [1]: x", "run=a=b (neu)"], keys=("run",), data=("data.root",))
    assert words.get("run") == "a=b (neu)"
    data = OmegaConf.create({"root": "old", "source": {"_target_": "vitexp.data.folder.Folder", "root": "old"}})
    moved = _with_keys(data, words.data)
    assert moved.root == moved.source.root == "it's [1]: x"


def test_the_keys_of_paths_exist() -> None:
    keys = {key for key, _ in flatten(OmegaConf.to_container(composed("data=folder")))}
    keys |= {key for key, _ in flatten(OmegaConf.to_container(composed("data=huggingface")))}
    assert keys >= set(PATH_KEYS)


def test_the_refusal_of_another_value_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match="quotes around unusual values, such as ") as refused:
        compose(["name=Fotos (neu)"])
    [typed] = shlex.split(str(refused.value).partition("such as ")[2].removesuffix("."))
    assert compose([typed]).name == "Fotos (neu)"

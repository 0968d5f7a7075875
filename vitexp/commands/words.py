"""Parse command lines: help, --config-dir, and key=value for the commands that Hydra does not configure."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from omegaconf import DictConfig

from vitexp.config.check import check
from vitexp.config.compose import compose, known_keys, plain_of, refuse_missing_searchpath
from vitexp.config.overrides import command_line, config_dir_of, key_of, with_quoted_paths
from vitexp.config.plain_errors import plain_errors
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.config.suggest import corrected, likely_keys
from vitexp.errors import ConfigError, nearest
from vitexp.runs.find import FinishedFiles, read_finished
from vitexp.runs.inputs import check_files
from vitexp.system.terminal import say_loading

DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")  # what device= accepts


@dataclass(frozen=True)
class Words:
    """The parsed words of a command line: values by key, and the words about the data set.

    data: the words data=OPTION and data.KEY=VALUE. config_dir: the folder that --config-dir names; only evaluate
    composes options, but every command accepts it, so that a script can pass it to all of them.
    The methods raise ConfigError for a value of the wrong kind.
    """

    values: dict[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    config_dir: str | None = None

    def get(self, key: str, default: str = "") -> str:
        """Return the value of `key` as it was typed."""
        return self.values.get(key, default)

    def integer(self, key: str, default: int, *, least: int, most: int | None = None) -> int:
        """Return the value of `key` as an integer from `least` to `most`."""
        if key not in self.values:
            return default
        value = self.values[key]
        number = int(value) if value.isascii() and value.isdigit() else -1
        if number < least or (most is not None and number > most):
            bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
            raise ConfigError(f"{key}={value} must be an integer {bounds}.")
        return number

    def choice(self, key: str, known: Sequence[str]) -> str:
        """Return the value of `key`, which must be one of `known`; the first of them if it is not given."""
        value = self.values.get(key, known[0])
        if value not in known:
            raise ConfigError(f"{key}={value} must be {', '.join(known[:-1])} or {known[-1]}.")
        return value

    def flag(self, key: str) -> bool:
        """Return the value of `key` as a boolean; False if it is not given."""
        return self.choice(key, ("false", "true")) == "true"


def read_words(words: Sequence[str], *, keys: Sequence[str], data: Collection[str] = ()) -> Words:
    """Read key=value words. Raises ConfigError for the first word that is unknown, repeated or without a value.

    keys: the first is the one that a path without a key probably means.
    data: the accepted keys about the data set; "data" accepts data=OPTION and every data.KEY=VALUE.
    """
    refuse_typed_secrets(words)
    refuse_split_path(words)
    _refuse_spaces(words)
    words = list(words)
    values: dict[str, str] = {}
    about_data = []
    config_dir, words = config_dir_of(words)
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals or not key or word.startswith("-"):
            rest = [word, *words[place + 1 :]]
            if not equals and not word.startswith("-"):
                rest[0] = f"{word}=VALUE" if word in keys else f"{keys[0]}={word}"
            meant = corrected(rest, (*keys, *data)) if key else None
            meant = meant or ["run=logs/signs-vit_tiny/RUN"]
            raise ConfigError(f"cannot read {word!r}: write key=value, such as {shlex.join(meant)}.")
        if key in data or ("data" in data and key.startswith("data.")):
            about_data += with_quoted_paths([word])
            continue
        if key not in keys:
            raise ConfigError(f"there is no key {key!r}; {_remedy(key, value, keys, data)}")
        if not value:
            raise ConfigError(f"{key}= is empty; write {key}=VALUE or remove it.")
        if key in values:
            raise ConfigError(f"{key} is given twice; remove one.")
        values[key] = value
    return Words(values, tuple(about_data), config_dir)


def _remedy(key: str, value: str, keys: Sequence[str], data: Collection[str]) -> str:
    """Return the end of a sentence about an unknown `key`: what to type in its place."""
    likely = likely_keys(key, (*keys, *data))[:1]
    if not likely and "data" in data:
        likely = likely_keys(key, [known for known in known_keys(["data=folder"]) if known.startswith("data.")])[:1]
        if likely == ["data.root"] and value:
            return f"for images in class folders, write data=folder {shlex.quote(f'data.root={value}')}."
    return f"did you mean {likely[0]}={value}?" if likely and value else nearest(key, [*keys, *data])


def refuse_split_path(words: Sequence[str]) -> None:
    """Raise ConfigError if the shell split the path of an existing file or folder at its spaces."""
    for place, word in enumerate(words):
        rest = list(takewhile(lambda each: "=" not in each and not each.startswith("-"), words[place + 1 :]))
        key, equals, value = word.partition("=") if "=" in word else ("", "", word)
        for end in range(len(rest), 0, -1):
            path = " ".join([value, *rest[:end]])
            if value and os.path.exists(os.path.expanduser(path)):
                raise ConfigError(f"the path {path!r} contains spaces; quote it: {shlex.quote(f'{key}{equals}{path}')}")


def _refuse_spaces(words: Sequence[str]) -> None:
    """Raise ConfigError, which names the right words, if there are spaces around an equals sign: `seed = 1`."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        follows = before.endswith("=") and before != "=" and "=" not in word and not word.startswith("-")
        if follows or (word.startswith("=") and before and "=" not in before and not before.startswith("-")):
            joined[-1] += word
        else:
            joined.append(word)
    if meant := [word for word in joined if word not in words]:
        if any(key_of(word) == "data.root" for word in meant) and not any(key_of(word) == "data" for word in joined):
            meant = ["data=folder", *meant]
        raise ConfigError(f"there are spaces around an equals sign; write {shlex.join(meant)}")


# Hydra's options: those that are followed by a value, and the others.
_TAKE_A_VALUE = (
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--cfg", "-c"),
    "--experimental-rerun",
)
_OTHERS = (
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
    *("--shell-completion", "-sc", "--info", "-i"),
)


def options_first(command: str, words: Sequence[str], keys: Collection[str] = ()) -> list[str]:
    """Return the words of a Hydra command with options in front: argparse takes overrides on one side of them only.

    keys: those of the command, in addition to the keys of a training run. Raises ConfigError, which names the right
    command line, if a word looks like an option of another program (`--lr 0.1`) or a path was not quoted.
    """
    refuse_split_path(words)
    _refuse_spaces(words)
    for place, word in enumerate(words):
        if command != "train" and word.partition("=")[0] in ("--config-name", "-cn"):
            raise ConfigError(f"{word} only works for the train command; drop it.")
        if word.startswith("-") and word.partition("=")[0] not in (*_TAKE_A_VALUE, *_OTHERS):
            if near := get_close_matches(word.partition("=")[0], (*_TAKE_A_VALUE, *_OTHERS), n=1, cutoff=0.75):
                raise ConfigError(f"there is no option {word}; did you mean {near[0]}?")
            good, wrong = list(words[:place]), list(words[place:])
            while wrong[-1] in _OTHERS:
                good.append(wrong.pop())
            meant = corrected(wrong, (*keys, *known_keys([each for each in good if "=" in each])))
            if meant is None:
                raise ConfigError(f"there is no option {word}; keys are written key=value, and --help lists all.")
            line = command_line(command, *good, *meant)
            raise ConfigError(f"there is no option {word}; keys are written key=value: {line}")
    options, overrides, rest = [], [], iter(words)
    for word in rest:
        if word.startswith("-"):
            options.append(word)
            options += [value for value in [next(rest, None)] if value is not None] if word in _TAKE_A_VALUE else []
        else:
            overrides.append(word)
    refuse_missing_searchpath(overrides)
    return [*options, *overrides]


def composed(command: str, words: Sequence[str], *, keys: Sequence[str] = ()) -> tuple[Words, DictConfig]:
    """Return the words of a command's own `keys`, and the checked configuration of a run that the others compose.

    Raises ConfigError for an invalid word or configuration, UserError if a file that it needs is missing.
    """
    refuse_typed_secrets(words)
    config_dir, words = config_dir_of(options_first(command, words, keys))
    own = [word for word in words if word.partition("=")[0] in keys]
    config = compose([word for word in words if word not in own], config_dir=config_dir)
    check(config)
    if config.resume is not None:
        raise ConfigError(f"{command} resumes no run; remove resume={config.resume}.")
    check_files(plain_of(config))
    say_loading()
    return read_words(own, keys=keys), config


def opened(folder: Path, *, width: int, accept_pretraining: bool = False) -> FinishedFiles:
    """Print which run a command uses, before torch is imported, and return its files.

    width: of the column of names. Raises UserError if it is not a finished run of a classifier; a pretraining run may
    be accepted.
    """
    files = read_finished(folder, accept_pretraining=accept_pretraining)
    print(f"{'run':<{width}}{folder}\n{'':<{width}}{files.describe()}", flush=True)
    say_loading()
    return files


def help_requested(words: Sequence[str], text: str | Callable[[], str] | None) -> bool:
    """Print `text` (or what it returns) if a word asks for help; return whether one does."""
    if any(word in ("-h", "--help", "help") for word in words):
        print(text() if callable(text) else text)
        return True
    return False


def run_command(main: Callable[[Sequence[str]], None], help_text: str | None) -> None:
    """Run a command with the words of the command line, or print its help."""
    with plain_errors():
        if not help_requested(sys.argv[1:], help_text):
            main(sys.argv[1:])

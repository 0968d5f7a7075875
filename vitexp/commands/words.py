"""Parse command lines: help, --config-dir, and key=value for the commands that Hydra does not configure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from vitexp.config.overrides import config_dir_of, with_quoted_paths
from vitexp.config.plain_errors import plain_errors
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.errors import ConfigError, nearest

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


def read_words(words: Sequence[str], *, keys: Collection[str], data: Collection[str] = ()) -> Words:
    """Read key=value words. Raises ConfigError for the first word that is unknown, repeated or without a value.

    data: the accepted keys about the data set; "data" accepts data=OPTION and every data.KEY=VALUE.
    """
    refuse_typed_secrets(words)
    values: dict[str, str] = {}
    about_data = []
    config_dir, words = config_dir_of(words)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {word!r}: write key=value, such as run=logs/signs-vit_tiny/RUN.")
        if key in data or ("data" in data and key.startswith("data.")):
            about_data += with_quoted_paths([word])
            continue
        if key not in keys:
            raise ConfigError(f"there is no key {key!r}; {nearest(key, [*keys, *data])}")
        if not value:
            raise ConfigError(f"{key}= is empty; write {key}=VALUE or remove it.")
        if key in values:
            raise ConfigError(f"{key} is given twice; remove one.")
        values[key] = value
    return Words(values, tuple(about_data), config_dir)


# Hydra's options that are followed by a value.
_TAKE_A_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p")


def options_first(words: Sequence[str]) -> list[str]:
    """Return the words of a Hydra command with options in front: argparse takes overrides on one side of them only."""
    options, overrides, rest = [], [], iter(words)
    for word in rest:
        if word.startswith("-"):
            options.append(word)
            options += [value for value in [next(rest, None)] if value is not None] if word in _TAKE_A_VALUE else []
        else:
            overrides.append(word)
    return [*options, *overrides]


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

"""The key=value words of the commands that are not configured by Hydra."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from vitexp.errors import ConfigError, nearest


def help_requested(words: Sequence[str], text: str | Callable[[], str] | None) -> bool:
    """Print `text`, or what it returns, if a word asks for help, and return whether one does."""
    if any(word in ("-h", "--help", "help") for word in words):
        print(text() if callable(text) else text)
        return True
    return False


def read_words(words: Sequence[str], *, keys: Collection[str], data: bool = False) -> tuple[dict[str, str], list[str]]:
    """Return the values of `keys`, and the words about the data set.

    data: whether `data=OPTION` and `data.KEY=VALUE` are accepted. Raises ConfigError for the first word that is
    unknown, repeated or without a value.
    """
    given: dict[str, str] = {}
    about_data = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {word!r}: write key=value, such as run=logs/signs-vit_tiny/RUN.")
        if data and (key == "data" or key.startswith("data.")):
            about_data.append(word)
            continue
        if key not in keys:
            raise ConfigError(f"there is no key {key!r}; {nearest(key, [*keys, *(['data'] if data else [])])}")
        if not value:
            raise ConfigError(f"{key}= is empty; write {key}=VALUE or remove it.")
        if key in given:
            raise ConfigError(f"{key} is given twice; remove one.")
        given[key] = value
    return given, about_data


def whole_number(key: str, value: str, *, least: int, most: int | None = None) -> int:
    """Return `value` as an integer. Raises ConfigError if it is none or out of bounds."""
    number = int(value) if value.isascii() and value.isdigit() else -1
    if number < least or (most is not None and number > most):
        bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{key}={value} must be an integer {bounds}.")
    return number


def flag(key: str, value: str) -> bool:
    """Return `value` as a boolean. Raises ConfigError."""
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"{key}={value} must be true or false.")
    return value.lower() == "true"


def device(value: str) -> str:
    """Return the name of a kind of device. Raises ConfigError for another."""
    if value not in (known := ("auto", "cpu", "gpu", "cuda", "mps")):
        raise ConfigError(f"device={value} must be one of {', '.join(known)}.")
    return value


def config_dir_of(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the folder that `--config-dir DIR` names, and the other words."""
    others = list(words)
    for place, word in enumerate(others):
        if word == "--config-dir" and place + 1 < len(others):
            folder = others[place + 1]
            return folder, [*others[:place], *others[place + 2 :]]
        if word.startswith("--config-dir="):
            return word.partition("=")[2], [*others[:place], *others[place + 1 :]]
    return None, others


def split_data_location(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the words that say where the data set of a run is, and the others."""
    location = tuple(word for word in words if word.partition("=")[0] in ("data.root", "data.download"))
    return location, [word for word in words if word not in location]

"""What is typed after `python -m vitexp explain`: key=value, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitexp.errors import ConfigError, nearest
from vitexp.runs.shipped import run_folder


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """See `vitexp.commands.explain`. layer, head: from 1. label: a class by its number or name. data: as typed."""

    run: Path | None = None
    run2: Path | None = None
    image: str = ""
    images: int = 100
    shown: int = 5
    embedded: int = 2000
    layer: int = 0
    head: int = 0
    label: str = ""
    data: tuple[str, ...] = ()


_KEYS = {"class": "label"}  # the word is Python's
_OF_THE_DATA = ("data.root", "data.download")  # where they are does not change which they are
_LEAST = {"images": 2, "shown": 1, "embedded": 3, "layer": 1, "head": 1}


def read_arguments(words: Sequence[str]) -> Arguments:
    """Raises ConfigError for the first word that cannot be meant."""
    given: dict[str, str | int | Path] = {}
    fields = [field for field in Arguments.__annotations__ if field != "data"]
    known = [next((key for key, name in _KEYS.items() if name == field), field) for field in fields]
    known += _OF_THE_DATA
    data, own = of_the_data(words)
    for word in own:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"cannot read {word!r}: write key=value, such as run=logs/signs-vit_tiny/<run id>.")
        if key not in known:
            raise ConfigError(f"there is no key {key!r}; {nearest(key, known)}")
        field = _KEYS.get(key, key)
        if field in given:
            raise ConfigError(f"{key} is given twice; leave one away.")
        given[field] = _whole(key, value) if key in _LEAST else value
    if "image" in given and not Path(str(given["image"])).expanduser().is_file():
        raise ConfigError(f"image={given['image']} is no file.")
    if "run2" in given and "image" in given:
        raise ConfigError("run2 compares two runs on test images; leave image away.")
    for key in ("run", "run2"):
        if key in given:
            given[key] = run_folder(str(given[key]))
    return Arguments(**given, data=data)  # type: ignore[arg-type]


def of_the_data(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The words that say where the data set of a run is, and the others."""
    data = tuple(word for word in words if word.partition("=")[0] in _OF_THE_DATA)
    return data, [word for word in words if word not in data]


def _whole(key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < _LEAST[key]:
        raise ConfigError(f"{key}={value} must be an integer of {_LEAST[key]} or more.")
    return int(value)


def find_class(word: str, classes: Sequence[str]) -> int:
    """The number of a class that is given by its number or name, in any letter case. Raises ConfigError."""
    names = [name.casefold() for name in classes]
    if word.casefold() in names:
        return names.index(word.casefold())
    if word.isascii() and word.isdigit() and int(word) < len(classes):
        return int(word)
    raise ConfigError(
        f"class={word} is neither a number from 0 to {len(classes) - 1} nor a class; {_near(word, classes)}"
    )


def _near(word: str, classes: Sequence[str]) -> str:
    return nearest(word, list(classes)).replace("python train.py --help lists all.", f"one is {classes[0]}.")


def within(key: str, number: int, count: int) -> int | None:
    """The index of layer or head `number`, None where it is not given. Raises ConfigError."""
    if number and not count:
        raise ConfigError(f"{key}={number} asks for attention, which this net does not have; leave {key} away.")
    if number > count:
        raise ConfigError(f"{key}={number} is more than the {count} that this net has; give 1 to {count}.")
    return number - 1 if number else None

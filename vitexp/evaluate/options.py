"""What is typed behind python -m vitexp evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitexp.errors import ConfigError, nearest
from vitexp.runs.shipped import run_folder

EXPORTS = ("onnx", "timm")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The values of the command's keys. data: what was typed of the data set, as train.py takes it."""

    run: Path | None = None
    log_dir: str = "logs"
    out: str | None = None
    device: str = "auto"
    tta: bool = False
    corruptions: bool = False
    corruption_images: int = 2000
    latency: bool = False
    export: tuple[str, ...] = ()
    data: tuple[str, ...] = field(default=())


def parse(arguments: Sequence[str]) -> Options:
    """Options from key=value words. Raises ConfigError, in one sentence, for the first that cannot be taken."""
    given: dict[str, Any] = {}
    data = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {argument!r}: write key=value.")
        if key == "data" or key.startswith("data."):
            data.append(argument)
        elif key in _KINDS:
            given[key] = _KINDS[key](key, text)
        else:
            raise ConfigError(f"there is no key {key!r}; {nearest(key, [*_KINDS, 'data'])}")
    return Options(**given, data=tuple(data))


def _text(key: str, text: str) -> str:
    if not text:
        raise ConfigError(f"{key}= is empty; write {key}=PATH, or leave it away.")
    return text


def _flag(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"{key}={text} must be true or false.")
    return text.lower() == "true"


def _count(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{key}={text} must be an integer of 1 or more.")
    return int(text)


def _device(key: str, text: str) -> str:
    if text not in (known := ("auto", "cpu", "gpu", "cuda", "mps")):
        raise ConfigError(f"{key}={text} must be one of {', '.join(known)}.")
    return text


def _exports(key: str, text: str) -> tuple[str, ...]:
    """onnx, or onnx,timm, or [onnx,timm]."""
    kinds = [each.strip() for each in text.removeprefix("[").removesuffix("]").split(",")]
    if any(kind not in EXPORTS for kind in kinds):
        raise ConfigError(f"{key}={text} must be one or both of {', '.join(EXPORTS)}, as in {key}=onnx,timm.")
    return tuple(dict.fromkeys(kinds))


_KINDS: dict[str, Callable[[str, str], Any]] = {
    "run": lambda key, text: run_folder(_text(key, text)),
    "log_dir": _text,
    "out": _text,
    "device": _device,
    "tta": _flag,
    "corruptions": _flag,
    "corruption_images": _count,
    "latency": _flag,
    "export": _exports,
}

"""Types for the annotations of constructors, which say what the options of components accept.

    def __init__(self, *, depth: Annotated[int, Field(ge=1, le=1000), Doc("number of blocks")] = 6) -> None:

The annotation is the only place that describes an option. Configuration checks, `--help`, the key reference and the
JSON Schema are derived from it (vitexp/config/components.py), without importing the module of the class. `Words`
replaces the description that an error message derives from a type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from typing_extensions import Doc

__all__ = ["Doc", "Field"]  # re-exported


@dataclass(frozen=True)
class Words:
    """The words that complete the sentence "... must be"."""

    text: str


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the range is descending")
    return pair


def _is_node(value: dict[str, Any]) -> dict[str, Any]:
    if not is_dotted(value.get("_target_")):
        raise ValueError("no _target_")
    return value


def is_dotted(value: Any) -> bool:
    """Return whether `value` is a dotted name such as "package.module.Class"."""
    return isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split("."))


def fits(value: float, low: float, high: float) -> bool:
    """Return whether `value` is a finite number from `low` to `high`."""
    return math.isfinite(value) and low <= value <= high


Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]  # for dropout and similar; a rate of 1 would leave nothing
Factor = Annotated[float, Field(gt=0, le=100)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Path = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,2000}$"), Words("a path")]
Node = Annotated[dict[str, Any], AfterValidator(_is_node), Words("a mapping with _target_, the dotted name of a class")]
# Of several networks.
DropPathRate = Annotated[Rate, Doc("stochastic depth: linear from 0 in the first block to this in the last")]
Checkpointing = Annotated[bool, Doc("recompute blocks in the backward pass: less memory, about a third slower")]
# One number per stage of a network.
_Several = Field(min_length=1, max_length=8)
Counts = Annotated[
    Sequence[Annotated[int, Field(ge=1, le=1000)]],
    _Several,
    Words("a list of 1 to 8 integers from 1 to 1,000, one per stage"),
]
Sizes = Annotated[
    Sequence[Annotated[int, Field(ge=1, le=65_536)]],
    _Several,
    Words("a list of 1 to 8 integers from 1 to 65,536, one per stage"),
]
Ratios = Annotated[
    Sequence[Annotated[float, Field(gt=0, le=1000)]],
    _Several,
    Words("a list of 1 to 8 numbers above 0, at most 1,000, one per stage"),
]
# Ranges of values above 0.
Range = Annotated[
    tuple[Factor, Factor],
    AfterValidator(_rising),
    Words("a range of two numbers, [low, high], each above 0 and at most 100"),
]
_Share = Annotated[float, Field(gt=0, le=1)]
FractionRange = Annotated[
    tuple[_Share, _Share],
    AfterValidator(_rising),
    Words("a range of two numbers, [low, high], each above 0 and at most 1"),
]

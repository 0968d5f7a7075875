"""What the options of components accept: types for the annotations of constructors.

    def __init__(self, *, depth: Annotated[int, Field(ge=1, le=1000), Doc("number of blocks")] = 6) -> None:

The annotation is the only place that knows an option: configuration checks, `--help`, the key reference and the JSON
Schema read it (vitexp/config/components.py), without importing the module.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import Doc

__all__ = ["Doc", "Field", "Fraction", "Pixels", "Probability", "Rate"]

Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]  # of dropout and the like: at 1 nothing would be left
Pixels = Annotated[int, Field(ge=1, le=4096)]

"""Checks of what a model is given, each a ValueError of one sentence."""

from __future__ import annotations

from typing import Any, get_args


def check_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}={value} is not a positive number; use a larger one.")


def check_rates(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name}={value} is no rate; use a number from 0 up to, but not including, 1.")


def check_option(name: str, value: str, options: Any) -> None:
    if value not in get_args(options):
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(get_args(options))}.")


def check_divides(name: str, value: int, of: str, whole: int) -> None:
    if whole % value:
        fitting = ", ".join(str(divisor) for divisor in range(1, whole + 1) if whole % divisor == 0)
        raise ValueError(f"{name}={value} does not divide {of}={whole}; use one of {fitting}.")


def check_grid(*, image_size: int, upsample: int | None, patch_size: int) -> None:
    if upsample is not None and upsample < image_size:
        raise ValueError(f"upsample={upsample} is below image_size={image_size}; use a larger one, or none.")
    check_divides("patch_size", patch_size, "image_size" if upsample is None else "upsample", upsample or image_size)

"""Albumentations transforms from a config; a wrong argument is an error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import hydra.utils
from hydra.errors import InstantiationException
from pydantic import ValidationError

# Without this, importing albumentations (here or by Hydra) checks for updates on the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

if TYPE_CHECKING:
    from albumentations import BaseCompose, BasicTransform

    Transform: TypeAlias = BasicTransform | BaseCompose


@contextmanager
def strict_arguments() -> Iterator[None]:
    """Raise ValueError for wrong arguments of Albumentations transforms that are built inside.

    By default, the library only warns about an unknown argument and ignores it.
    """
    import albumentations  # noqa: F401  first, because the import itself may warn

    with warnings.catch_warnings():
        # Albumentations has no warning class of its own.
        warnings.simplefilter("error", UserWarning)
        try:
            yield
        except UserWarning as warning:
            raise ValueError(str(warning)) from warning
        except InstantiationException as error:
            raise ValueError(_reason(error)) from error


def _reason(error: InstantiationException) -> str:
    """Return one sentence: the target from Hydra's first line, and the reason from the cause."""
    target, cause = str(error).splitlines()[0], error.__cause__
    if isinstance(cause, ImportError):
        return f"{target.partition(',')[0]}: there is no such class"
    if cause is not None and isinstance(cause.__cause__, ValidationError):
        wrong = (f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in cause.__cause__.errors())
        return f"{target} {'; '.join(wrong)}"
    return f"{target} {cause}"


def build_transforms(configs: Sequence[Mapping[str, Any] | Transform]) -> list[Transform]:
    """Build transforms from configs such as {_target_: albumentations.CLAHE, p: 1}; keep those already built.

    Nested transforms (albumentations.OneOf) work too. Raises ValueError for an unknown class or argument, and for a
    class that is not a transform.
    """
    import albumentations

    with strict_arguments():
        transforms = [
            hydra.utils.instantiate(config, _convert_="all") if isinstance(config, Mapping) else config
            for config in configs
        ]
    for transform in transforms:
        if not isinstance(transform, albumentations.BasicTransform | albumentations.BaseCompose):
            raise ValueError(f"{transform} is not a transform; set _target_ to one of albumentations")
    return transforms

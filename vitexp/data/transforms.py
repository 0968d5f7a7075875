"""Albumentations transforms from a config, where a wrong argument is an error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import hydra.utils
from hydra.errors import InstantiationException
from pydantic import ValidationError

# Read when albumentations is imported, here or by Hydra: without it, that import asks the network for updates.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

if TYPE_CHECKING:
    from albumentations import BaseCompose, BasicTransform

    Transform: TypeAlias = BasicTransform | BaseCompose


@contextmanager
def strict_arguments() -> Iterator[None]:
    """Inside, an Albumentations transform that is built with a wrong argument raises ValueError.

    By itself the library only warns of an unknown name, and goes on without it.
    """
    import albumentations  # noqa: F401  its own import may warn of other things, so it comes first

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
    """One sentence: Hydra's first line names the target, and what it stumbled on says what is wrong with it."""
    target, cause = str(error).splitlines()[0], error.__cause__
    if isinstance(cause, ImportError):
        return f"{target.partition(',')[0]}: there is no such class"
    if cause is not None and isinstance(cause.__cause__, ValidationError):
        wrong = (f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in cause.__cause__.errors())
        return f"{target} {'; '.join(wrong)}"
    return f"{target} {cause}"


def build_transforms(configs: Sequence[Mapping[str, Any] | Transform]) -> list[Transform]:
    """Transforms from configs such as {_target_: albumentations.CLAHE, p: 1}; built ones are taken as they are.

    Transforms that hold others (albumentations.OneOf) work as well. Raises ValueError for an unknown class or argument,
    and for what is no transform.
    """
    import albumentations

    with strict_arguments():
        transforms = [
            hydra.utils.instantiate(config, _convert_="all") if isinstance(config, Mapping) else config
            for config in configs
        ]
    for transform in transforms:
        if not isinstance(transform, albumentations.BasicTransform | albumentations.BaseCompose):
            raise ValueError(f"A transform needs a _target_ that is one of albumentations' classes, unlike {transform}")
    return transforms

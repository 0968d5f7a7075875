"""Experiment framework for Vision Transformers trained from scratch on small images.

    run = vitexp.train("data=gtsrb", "model=vit_tiny")    train, test and record a run
    folder = vitexp.pretrain("data=cifar10")              pretrain without labels; use the folder as model.weights
    run = vitexp.load("newest")                           load a finished run
    cfg = vitexp.compose("data=cifar10")                  a checked configuration
    datamodule, module = vitexp.build(cfg)                its data module and Lightning module, for your own Trainer

Importing vitexp is fast: torch is imported when one of these names is first used (vitexp/api.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitexp.api import Run, build, compose, load, pretrain, train

__all__ = ["Run", "__version__", "build", "compose", "load", "pretrain", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("vitexp")
        except PackageNotFoundError as error:  # a source tree
            raise AttributeError("vitexp is not installed, so its version is unknown.") from error
    if name in __all__:
        from vitexp import api

        return getattr(api, name)
    raise AttributeError(f"module 'vitexp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]

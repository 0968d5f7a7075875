"""The run that comes with vitexp: a small net for GTSRB, trained by experiment=gtsrb_best. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from vitexp.errors import ConfigError, UserError

NAME = "pretrained"
_SHIPPED = Path(__file__).parent / "gtsrb"


def run_folder(typed: str) -> Path:
    """The folder that run=`typed` means; for "pretrained" logs/pretrained/<run id>, where the net is put if need be.

    Raises ConfigError where there is no such folder, UserError where logs cannot be written.
    """
    if typed == NAME:
        return _unpacked(Path("logs") / NAME)
    folder = Path(os.path.expanduser(typed))
    if not folder.is_dir():
        raise ConfigError(
            f"run={typed} is no folder; give that of a finished run, logs/<name>/<run id>, or run={NAME}, the net "
            "for GTSRB that comes with vitexp."
        )
    return folder


def _unpacked(beside: Path) -> Path:
    """A copy, because explanations and evaluations are written into the folder of their run."""
    folder = beside / str(json.loads((_SHIPPED / "result.json").read_text())["run_id"])
    if not folder.exists():
        unfinished = beside / f".{folder.name}.{os.getpid()}"
        try:
            shutil.copytree(_SHIPPED, unfinished)
            unfinished.rename(folder)
        except OSError as error:
            if not folder.exists():  # another process may have been faster
                raise UserError(f"cannot put the pretrained net into {folder}: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder

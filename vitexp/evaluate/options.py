"""What an evaluation measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXPORTS = ("onnx", "timm")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The values of the command's keys, see vitexp/commands/evaluate.py.

    run: None is the newest finished run under log_dir. data: words about the data set, as for the train command.
    """

    run: Path | None = None
    log_dir: str = "logs"
    out: str | None = None
    device: str = "auto"
    tta: bool = False
    corruptions: bool = False
    corruption_images: int = 2000
    latency: bool = False
    export: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    config_dir: str | None = None

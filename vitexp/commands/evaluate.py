"""Measure a finished run in depth, on its own test set or on another one with the same classes.

    vitexp evaluate [run=RUN] [data=OPTION] [data.KEY=VALUE ...] [key=value ...]

run                folder of a finished run, or pretrained, the bundled GTSRB network (default: the newest finished run)
log_dir            where to look for the newest run (default: logs)
data, data.*       the images to test on, as for the train command (default: those of the run)
corruptions=true   also dark, blurred, noisy, occluded and JPEG images, made from corruption_images test images (2000)
tta=true           also test-time augmentation: the mean over shifted views
latency=true       also milliseconds and images per second by batch size
export=onnx,timm   also the network in other formats, checked against torch
out                folder of the results (default: RUN/evaluation)
device             auto | cpu | gpu | mps
--config-dir DIR   a folder of further options, laid out like conf/

Writes evaluation.json, predictions.csv, tables as CSV and Markdown, and figures. The run itself is not changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vitexp.commands.words import config_dir_of, device, flag, help_requested, read_words, whole_number
from vitexp.config.plain_errors import plain_errors
from vitexp.config.secrets import refuse_typed_secrets
from vitexp.errors import ConfigError
from vitexp.evaluate.options import EXPORTS, Options
from vitexp.runs.find import run_folder

_FLAGS = ("tta", "corruptions", "latency")
_KEYS = ("run", "log_dir", "out", "device", "corruption_images", "export", *_FLAGS)


def main(words: Sequence[str]) -> None:
    if help_requested(words, __doc__):
        return
    refuse_typed_secrets(words)
    options = parse(words)
    from vitexp.evaluate.evaluation import evaluate  # imports torch: only once the words are valid

    evaluate(options)


def parse(words: Sequence[str]) -> Options:
    """Return the options that the words of a command line give. Raises ConfigError for the first that is wrong."""
    config_dir, words = config_dir_of(words)
    given, data = read_words(words, keys=_KEYS, data=True)
    return Options(
        run=run_folder(given["run"]) if "run" in given else None,
        log_dir=given.get("log_dir", "logs"),
        out=given.get("out"),
        device=device(given.get("device", "auto")),
        corruption_images=whole_number("corruption_images", given.get("corruption_images", "2000"), least=1),
        export=_formats(given["export"]) if "export" in given else (),
        data=tuple(data),
        config_dir=config_dir,
        **{key: flag(key, given[key]) for key in _FLAGS if key in given},
    )


def _formats(value: str) -> tuple[str, ...]:
    """Read onnx, or onnx,timm, or [onnx,timm]."""
    formats = [each.strip() for each in value.removeprefix("[").removesuffix("]").split(",")]
    if any(each not in EXPORTS for each in formats):
        raise ConfigError(f"export={value} must be one or both of {', '.join(EXPORTS)}, as in export=onnx,timm.")
    return tuple(dict.fromkeys(formats))


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])

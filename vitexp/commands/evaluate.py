"""Measure a finished run in depth, on its own test set or on another one with the same classes.

    vitexp evaluate [run=RUN] [data=OPTION] [data.KEY=VALUE ...] [key=value ...]

run                a finished run: its folder, or NAME/RUN_ID as `vitexp runs` lists it; or "pretrained": the bundled
                   GTSRB network (default: the newest run)
log_dir            where to look for the newest run (default: logs)
data, data.KEY     the images to test on, as for vitexp train (default: the run's own test set); with data=folder
                   data.root=PATH all of PATH/test/<class>/*, or of PATH/<class>/* without a test folder
corruptions=true   also measure on dark, blurred, noisy, occluded and JPEG-compressed images
corruption_images  how many test images are corrupted (default: 2000)
tta=true           also measure with test-time augmentation: the mean over shifted views
latency=true       also measure milliseconds and images per second by batch size
probe=knn,linear   also measure the frozen features: votes of the 20 nearest training images, logistic regression;
                   the only measurement of a pretraining run
export=onnx,timm   also export the network, checked against torch
export=hub         also write a folder for the Hugging Face Hub: weights for vitexp and timm, and a model card
push=OWNER/NAME    with export=hub: also upload that folder; a repository that does not exist is created, private
out                folder of the results (default: RUN/evaluation, or RUN/evaluation/on-NAME for other images)
device             auto | cpu | gpu | mps
--config-dir=DIR   a folder of additional options, laid out like conf/

Writes evaluation.json, predictions.csv, tables as CSV and Markdown, and figures. The run itself is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitexp.commands.words import DEVICES, opened, read_words, run_command
from vitexp.config.compose import plain_of
from vitexp.errors import ConfigError, require
from vitexp.evaluate.hub_push import refuse_unusable_push
from vitexp.runs.data_config import data_config
from vitexp.runs.find import requested_run
from vitexp.runs.inputs import refuse_unusable_data
from vitexp.system.disk import refuse_unwritable_folder

_KEYS = (
    "run",
    "log_dir",
    "corruptions",
    "corruption_images",
    "tta",
    "latency",
    "probe",
    "export",
    "push",
    "out",
    "device",
)
_PACKAGES = {"onnx": ("onnx", "onnxruntime"), "timm": ("timm",), "hub": ()}  # by format of export=


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    if arguments["out"]:
        refuse_unwritable_folder(Path(arguments["out"]).expanduser().absolute(), key="out")
    run = opened(arguments["folder"], width=10, accept_pretraining=bool(arguments["probe"]))
    data = data_config(run.config, arguments["data"], image_size=run.image_size, config_dir=arguments["config_dir"])
    refuse_unusable_data(plain_of(data)["data"]["source"], for_training=False)
    from vitexp.evaluate.evaluation import evaluate  # imports torch, so only once the command line is valid

    evaluate(**arguments)


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of vitexp.evaluate.evaluation.evaluate. Raises ConfigError for the first invalid word."""
    given = read_words(words, keys=_KEYS, data=("data",))
    corruption_images = given.integer("corruption_images", 2000, least=1)
    if given.get("corruption_images") and not given.flag("corruptions"):
        raise ConfigError(f"corruption_images={corruption_images} has no effect without corruptions=true.")
    export = _formats(given.get("export"))
    if push := given.get("push"):
        refuse_unusable_push(push, export)
    return {
        "device": given.choice("device", DEVICES),
        "tta": given.flag("tta"),
        "corruptions": given.flag("corruptions"),
        "corruption_images": corruption_images,
        "latency": given.flag("latency"),
        "probe": _listed("probe", given.get("probe"), ("knn", "linear")),
        "export": export,
        "push": push,
        "out": given.get("out") or None,
        "data": given.data,
        "config_dir": given.config_dir,
        "folder": requested_run(given.get("run"), log_dir=given.get("log_dir", "logs")),
    }


def _formats(value: str) -> tuple[str, ...]:
    """Parse export=. Raises ConfigError for an unknown format, or if a package that one needs is not installed."""
    formats = _listed("export", value, tuple(_PACKAGES))
    for name in formats:
        for package in _PACKAGES[name]:
            require(package, needed_by=f"export={value}")
    return formats


def _listed(key: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Parse some of `known`: "a", "a,b" or "[a,b]". Raises ConfigError for another name."""
    names = [name.strip() for name in value.strip("[]").split(",")] if value else []
    if not set(known) >= set(names):
        several = "both" if len(known) == 2 else "several of them"
        raise ConfigError(f"{key}={value} must be {', '.join(known)} or {several}, as in {key}={','.join(known[:2])}.")
    return tuple(dict.fromkeys(names))


if __name__ == "__main__":
    run_command(main, __doc__)

"""A folder for the Hugging Face Hub: a run that vitexp loads, and timm where it has the network, with a model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitexp.errors import UserError
from vitexp.evaluate.hub_push import FILES
from vitexp.evaluate.model_card import model_card
from vitexp.evaluate.published_record import published_record
from vitexp.evaluate.timm_export import NotInTimm, compare_with_timm, files_for_timm, write_config
from vitexp.runs.finished import FinishedRun, load_run, write_weights
from vitexp.runs.record import repeatable_yaml
from vitexp.system.disk import write_atomically

# Of the largest logit. The same network computes the same numbers, except for the order of sums on some GPUs.
_TOLERANCE = 1e-3


def export_hub(run: FinishedRun, folder: Path, *, images: NDArray[np.uint8], repository: str = "") -> dict[str, Any]:
    """Write a folder for the Hub that vitexp.load reads; compare logits on `images`, uint8 [N, S, S, 3].

    The weights are stored once, under timm's names if timm has the network; config.json exists only then.
    repository: OWNER/NAME, for the model card; may be empty. Raises UserError if the folder is the run itself,
    contains a secret or cannot be loaded again.
    """
    if folder.resolve() == run.folder.resolve():
        raise UserError(f"export=hub would overwrite the run {run.folder}; choose another folder with out=.")
    config, result = published_record(run)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)  # of an earlier export
    write_atomically(folder / "config.yaml", repeatable_yaml(config))
    write_atomically(folder / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")

    def save(weights: Mapping[str, Tensor], *, are_timms: bool = False) -> None:
        about: Any = {"model": config.model, "image_size": run.image_size, "classes": run.classes}
        write_weights(folder, weights, **about, mean=run.mean, std=run.std, are_timms=are_timms)

    not_in_timm = _write_for_timm(run, folder, images, save)
    if not_in_timm:
        save(run.net.state_dict())
    difference = _compare(run, folder, images)
    card = model_card(run, config, result, repository=repository, not_in_timm=not_in_timm)
    write_atomically(folder / "README.md", card)
    return {
        "folder": folder.name,
        "images_compared": len(images),
        "largest_difference": difference,
        "in_timm": not not_in_timm,
        "note": f"vitexp.load reads it{f'; timm does not: {not_in_timm}' if not_in_timm else ', and timm'}",
    }


def _write_for_timm(run: FinishedRun, folder: Path, images: NDArray[np.uint8], save: Callable[..., None]) -> str:
    """Write config.json, and the weights under timm's names. Return why timm cannot read them; "" if it can."""
    if find_spec("timm") is None:
        return "timm was not installed when this folder was written."
    try:
        files = files_for_timm(run)
        write_config(folder, files)
        save(files.weights, are_timms=True)
        compare_with_timm(run, folder, images)
    except NotInTimm as error:
        (folder / "config.json").unlink(missing_ok=True)
        return error.reason
    return ""


def _compare(run: FinishedRun, folder: Path, images: NDArray[np.uint8]) -> float:
    """Return the largest difference of a logit after loading `folder` again. Raises UserError if it is too large."""
    try:
        loaded = load_run(folder, device=run.device)
    except UserError as error:
        raise UserError(f"export=hub: this network cannot be loaded without the paths of its run: {error}") from error
    ours = run.logits(images)
    difference, largest = float((ours - loaded.logits(images)).abs().max()), float(ours.abs().max())
    same_preparation = np.array_equal(run.prepare_image(images[0]), loaded.prepare_image(images[0]))
    if not (same_preparation and difference <= _TOLERANCE * max(1.0, largest)):  # also for NaN
        raise UserError(
            f"export=hub: the exported network differs by {difference:.2g} in a logit; do not use {folder}."
        )
    return difference

"""Check the files that a command reads and writes, before torch is imported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open

from vitexp.config.components import argument, component, facts
from vitexp.config.renames import read_config
from vitexp.config.schema import MAPPINGS, NODES
from vitexp.data.source import Source
from vitexp.data.split import refuse_unusable_folds
from vitexp.errors import ConfigError, UserError, require
from vitexp.models.architecture import architecture, difference, other_family
from vitexp.models.checkpoint_names import publisher_of, renamed
from vitexp.runs.find import BUNDLED, NAME, read_finished, run_path
from vitexp.runs.leaks import location, refuse_other_split
from vitexp.runs.published import PUBLISHED, published_for
from vitexp.runs.record import runs_folder
from vitexp.runs.resume import is_finished, run_to_resume
from vitexp.system.disk import refuse_unwritable_folder


def check_inputs(config: DictConfig) -> None:
    """Raise UserError if a file that the run of `config`, a checked configuration, needs is obviously unusable."""
    resumed = run_to_resume(config)
    if resumed is None:
        refuse_unwritable_folder(runs_folder(config), key="log_dir")
    if resumed is None or not is_finished(resumed, config):
        check_files(OmegaConf.to_container(config, resolve=True), is_resumed=resumed is not None)  # type: ignore[arg-type]


def check_files(config: Mapping[str, Any], *, is_resumed: bool = False, check_data: bool = True) -> None:
    """Raise UserError if a package is not installed, or a file missing or obviously unusable.

    config: checked and resolved, in plain containers. is_resumed: whether the weights are already in a checkpoint.
    check_data: False: the data set is known to be usable.
    """
    for node in _nodes(config):
        found = component(str(node.get("_target_")))
        for needed in () if found is None else found.requires:
            require(**needed)
    if check_data:
        refuse_unusable_data(config["data"]["source"])
        _refuse_unusable_folds(config["data"])
    name = config["model"].get("weights")
    if name is not None and not is_resumed and facts(config["model"]).get("accepts_weights"):
        _check_weights(str(name), config)
    if (teacher := config["training"].get("teacher")) is not None:
        check_teacher(teacher, config)


def _nodes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config["data"]["source"]
    yield from (config[group] for group in NODES)
    for group in MAPPINGS:
        yield from config[group].values()


def refuse_unusable_data(source: Mapping[str, Any], *, for_training: bool = True) -> None:
    """Raise UserError if the data set is obviously missing or unusable. source: config.data.source in plain containers.

    for_training: otherwise only test images are needed.
    """
    if all(source.get(key) is None for key in location(source)):  # nothing that could be missing
        return
    try:
        made = instantiate(dict(source), _convert_="all")
        made.refuse_unusable(for_training=for_training)
    except Exception as error:  # user code may raise anything; other errors are reported when the run builds its parts
        for cause in (error, error.__cause__):
            if isinstance(cause, UserError):
                raise cause from None


def _refuse_unusable_folds(data: Mapping[str, Any]) -> None:
    """Raise DataError if data.folds does not fit the data set, unless it may have to be downloaded. Reads no images."""
    if data["folds"] is None or data.get("download"):
        return
    try:
        source: Source = instantiate(dict(data["source"]), _convert_="all")
        has_validation, train, classes = source.validation() is not None, source.split("train"), source.classes
    except Exception:  # reported when the run builds its parts
        return
    refuse_unusable_folds(
        data["folds"], has_validation=has_validation, labels=train.labels, groups=train.groups, classes=classes
    )


def weights_file(name: str, log_dir: Path | str) -> Path:
    """Return the file of weights that model.weights=`name`, a file, a run or "pretrained", means.

    log_dir: runs may be named by their path below it. Raises ConfigError if there is none.
    """
    path = _place_of_weights(name, log_dir)
    path = path / "model.safetensors" if os.path.isdir(path) else path
    if not os.path.isfile(path):  # unlike Path.is_file, accepts impossible names
        if near := get_close_matches(name, (NAME, *PUBLISHED), n=1, cutoff=0.75):
            raise ConfigError(f"model.weights={name}: there is no {path}; did you mean {near[0]}?")
        raise ConfigError(
            f"model.weights={name}: there is no {path}; give {NAME} (the bundled network), {', '.join(PUBLISHED)}, a "
            "weights file (.pth, .safetensors, .npz) or the folder of a finished run."
        )
    return path


def _place_of_weights(name: str, log_dir: Path | str) -> Path:
    return BUNDLED if name == NAME else run_path(name, log_dir)


def refuse_foreign(tensors: Iterable[str], *, name: str) -> NoReturn:
    """Raise ConfigError for a file without a known network. tensors: their names. name: as it was typed."""
    names = ", ".join(sorted(tensors)[:3]) or "nothing"
    raise ConfigError(
        f"model.weights={name} is not a network of vitexp, or a ViT, Swin Transformer or PVT v2 of timm, or a ViT of "
        f"torchvision or Google; it contains {names}."
    )


def _check_weights(name: str, config: Mapping[str, Any]) -> None:
    if name in PUBLISHED:
        published_for(name, config["model"])
        return
    file = weights_file(name, config["log_dir"])
    if file.suffix == ".safetensors":
        _check_header(file, name=name, model=config["model"])
    refuse_split_of_weights(name, config)


def refuse_split_of_weights(name: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if model.weights=`name` is a run that was trained on validation images of `config`."""
    with suppress(OSError, OmegaConfBaseException, KeyError):  # a weights file is not a run
        run = read_config(_place_of_weights(name, config["log_dir"]) / "config.yaml")
        if facts(run.task).get("uses_labels", True):
            refuse_other_split(config, run, key=f"model.weights={name}")


def _check_header(file: Path, *, name: str, model: Mapping[str, Any]) -> None:
    """Raise ConfigError if the header of a safetensors file describes a different network than `model`."""
    try:
        with safe_open(file, framework="np") as opened:
            header = json.loads((opened.metadata() or {}).get("vitexp", "{}"))
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"model.weights={name} cannot be read as weights: {error}.") from error
    publisher = publisher_of(shapes)
    if publisher is None:
        refuse_foreign(shapes, name=name)
    if wrong := other_family(shapes, facts(model).get("family")):
        raise ConfigError(f"model.weights={name} does not fit: {wrong}.")
    of_vitexp = header.get("model", {}) if isinstance(header, dict) else {}
    try:
        theirs = architecture(renamed(shapes, publisher))
    except (KeyError, ValueError, IndexError):  # an unknown layout, which loading reports
        return
    theirs |= {key: of_vitexp[key] for key in ("num_heads", "position_embedding") if key in of_vitexp}
    if wrong := difference(theirs, _architecture_of(model)):
        hint = "; model.weights=null starts from random weights instead" if name == NAME else ""  # a recipe's choice
        raise ConfigError(f"model.weights={name} does not fit: {wrong}{hint}.")


def _architecture_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model that `architecture` finds in weights, as far as the model has them."""
    found = component(str(model.get("_target_")))
    options = {} if found is None else found.options
    names = ("dim", "depth", "num_heads", "registers", "qk_norm", "lsa", "position_embedding", "stem", "patch_size")
    of_stages = ("depths", "dims", "reductions", "mlp_ratios")
    mine = {name: argument(model, name) for name in (*names, *of_stages) if name in options}
    mine |= {name: list(value) for name, value in mine.items() if isinstance(value, tuple)}
    if "layer_scale" in options:
        mine["layer_scale"] = None if argument(model, "layer_scale") is None else 1e-5
    if {"dim", "mlp_ratio"} <= set(options):
        mine["mlp_ratio"] = int(mine["dim"] * argument(model, "mlp_ratio")) / mine["dim"]
    return mine


def check_teacher(name: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if the run `name` is not finished or was trained on validation images of `config`."""
    try:
        run = read_finished(run_path(name, config["log_dir"]))
    except UserError as error:
        raise ConfigError(f"training.teacher={name}: {error}") from error
    refuse_other_split(config, run.config, key=f"training.teacher={name}")

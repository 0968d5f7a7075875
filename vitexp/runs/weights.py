"""Read the weights that training starts from: finished runs, files from other libraries, published weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vitexp.config.components import facts
from vitexp.data.download import fetch, one_at_a_time
from vitexp.errors import ConfigError, one_line, reason, require
from vitexp.models.architecture import architecture
from vitexp.models.checkpoint_names import publisher_of
from vitexp.models.layouts import heads_of, in_our_names
from vitexp.models.pretrained import Misfit, load_pretrained, shapes_of
from vitexp.models.timm_model import TimmModel, published_config
from vitexp.runs.inputs import refuse_foreign, refuse_split_of_weights, weights_file
from vitexp.runs.published import NORMALIZATIONS, PUBLISHED, Normalization, Published, published_for
from vitexp.system.disk import checksum

_OF_PUBLISHER = {"torchvision": "imagenet", "google": "half"}  # timm's models differ


@dataclass(kw_only=True)
class StartingWeights:
    """Weights that a network starts from, under the names of vitexp's networks.

    name: as it was typed. tensors: empty for a resumed run, whose checkpoint contains them. normalization: mean and std
    of the images that they were trained on, None if unknown. classes: the classes of their head, None if unknown.
    known: options of the model that the tensors do not reveal. info: for result.json, once they are loaded.
    """

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]
    normalization: Normalization | None
    classes: list[str] | None = None
    known: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def load_into(self, net: nn.Module, *, classes: list[str]) -> None:
        """Load the weights; the head only if it has exactly these classes. Raises ConfigError if they do not fit."""
        if not self.tensors:
            return
        try:
            loaded = load_pretrained(net, self.tensors, keep_head=self.classes == classes, known=self.known)
        except Misfit as misfit:
            raise ConfigError(f"model.weights={self.name} does not fit: {misfit}.") from misfit
        self.info = {"from": self.name, "sha256": self.sha256, **vars(loaded), "normalization": self.normalization}


def starting_weights(config: DictConfig, *, resumed: Mapping[str, Any] | None = None) -> StartingWeights | None:
    """Read the weights that config.model.weights names; None for random initialization.

    resumed: result.json of a resumed run, whose checkpoint contains the weights: nothing is read or downloaded. Raises
    ConfigError if the file does not contain weights or they were trained on validation images of this run, and
    DataError if published weights cannot be downloaded.
    """
    if config.model.get("pretrained") and facts(config.model).get("has_published_weights"):
        return _published_by_timm(config.model.timm_name, resumed)
    name = config.model.get("weights")
    if name is None or not accepts_weights(config):
        return None
    if resumed is not None:
        return _recorded(name, resumed)
    if name in PUBLISHED:
        published = published_for(name, config.model)
        path = _fetched(published, Path(config.data.cache_dir).expanduser() / "weights")
        weights = read_weights(path, name=name)
        weights.normalization = NORMALIZATIONS[published.normalize]
        weights.known["num_heads"] = published.num_heads
        return weights
    weights = read_weights(weights_file(name, config.log_dir), name=name)
    refuse_split_of_weights(name, config)
    return weights


def _recorded(name: str, resumed: Mapping[str, Any]) -> StartingWeights:
    info = resumed["model"]["weights"]
    return StartingWeights(name=name, sha256=info["sha256"], tensors={}, normalization=info["normalization"], info=info)


class _PublishedByTimm(StartingWeights):
    """Weights that timm downloads and loads itself."""

    def load_into(self, net: nn.Module, *, classes: list[str]) -> None:
        assert isinstance(net, TimmModel)
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        try:
            net.load_published()
        except Exception as error:  # of the network, the disk, the file or the hub
            raise ConfigError(
                f"model.pretrained=true: timm cannot load the weights of {self.name} ({reason(error)}); check the "
                "network, or use model.pretrained=false."
            ) from error
        taken = {name: tensor for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
        self.sha256 = hashlib.sha256(save({name: tensor.contiguous() for name, tensor in taken.items()})).hexdigest()
        self.info = {
            "from": f"timm {self.name}",
            "sha256": self.sha256,
            "taken": len(taken),
            "of": len(before),
            "new": ["classifier"],
            "unused": ["classifier"],
            "grids": None,
            "normalization": self.normalization,
        }


def _published_by_timm(name: str, resumed: Mapping[str, Any] | None) -> StartingWeights:
    """Return the published weights of timm's network `name`. Raises ConfigError if there are none."""
    if resumed is not None:
        return _recorded(name, resumed)
    require("timm", needed_by="model=timm")
    try:
        cfg = published_config(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if cfg is None or not cfg.has_weights:
        raise ConfigError(f"model.pretrained=true: timm has no weights of {name}; use model.pretrained=false.")
    return _PublishedByTimm(name=name, sha256="", tensors={}, normalization=(cfg.mean, cfg.std))


def refuse_unknown_heads(weights: StartingWeights | None, config: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError if the weights do not show their number of heads and no override gives it.

    They would fit any number, and a wrong one computes another function without an error.
    """
    if weights is None or not weights.tensors:
        return
    if "num_heads" in {**architecture(shapes_of(weights.tensors)), **weights.known}:
        return
    if not any(word.lstrip("+").startswith("model.num_heads=") for word in overrides):
        dim = int(config.model.get("dim", 1))
        usual = f", such as model.num_heads={dim // 64}, the usual number for {dim} channels" if dim % 64 == 0 else ""
        raise ConfigError(
            f"model.weights={weights.name} does not say how many attention heads its network has; give "
            f"model.num_heads{usual}."
        )


def accepts_weights(config: DictConfig) -> bool:
    """Return whether the class of config.model can start from weights."""
    return bool(facts(config.model).get("accepts_weights"))


def normalization(choice: str, weights: StartingWeights | None) -> Normalization | None:
    """Return mean and std of data.normalize=`choice`; None for the statistics of the training images.

    Raises ConfigError for "auto" if the network starts from weights with unknown normalization.
    """
    if choice in NORMALIZATIONS:
        return NORMALIZATIONS[choice]
    if choice == "train" or weights is None:
        return None
    if weights.normalization is None:
        raise ConfigError(
            f"model.weights={weights.name} does not state its normalization; set data.normalize=half (timm's "
            "augreg models), imagenet (DeiT and most others) or train."
        )
    return weights.normalization


def read_weights(path: Path, *, name: str) -> StartingWeights:
    """Read a weights file, or the one in a run folder, as numbers only: code in the file is never executed.

    name: used in error messages. Raises ConfigError if the file is missing or does not contain weights.
    """
    try:
        tensors, header = _read(path)
        digest = checksum(path)
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(f"model.weights={name} cannot be read as weights: {one_line(str(error))}") from error
    publisher = publisher_of(tensors)
    if publisher is None:
        refuse_foreign(tensors, name=name)
    weights = StartingWeights(
        name=name,
        sha256=digest,
        tensors=in_our_names(tensors, publisher),
        normalization=NORMALIZATIONS.get(_OF_PUBLISHER.get(publisher, "")),
    )
    if (heads := heads_of(tensors)) is not None:
        weights.known["num_heads"] = heads
    stated = _config_of_timm(path)
    with suppress(KeyError, TypeError, ValueError):
        weights.known["num_heads"] = int(stated["model_args"]["num_heads"])
    with suppress(KeyError, TypeError, ValueError):
        cfg = stated["pretrained_cfg"]
        weights.normalization = tuple(map(float, cfg["mean"])), tuple(map(float, cfg["std"]))
    if header:
        weights.normalization, weights.classes = (header["mean"], header["std"]), header["classes"]
        weights.known.update(
            {key: header["model"][key] for key in ("num_heads", "position_embedding") if key in header["model"]}
        )
    return weights


def _fetched(published: Published, folder: Path) -> Path:
    path = folder / published.url.rpartition("/")[2]
    with one_at_a_time(folder):
        fetch(published.url, path, sha256=published.sha256)
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, and its header if vitexp wrote it."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}, {}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("vitexp", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118 - not a dict
    found = torch.load(path, map_location="cpu", weights_only=True)
    for wrapped in ("state_dict", "model"):  # as training scripts save them
        if isinstance(found.get(wrapped), Mapping):
            found = found[wrapped]
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}, {}


def _config_of_timm(path: Path) -> dict[str, Any]:
    """Return the content of config.json in a timm model folder; {} if there is none."""
    try:
        stated = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}

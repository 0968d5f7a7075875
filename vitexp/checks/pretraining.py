"""What a pretraining asks of the rest of the configuration, and what belongs to one alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vitexp.checks.kinds import shown

_RECONSTRUCTIONS = "vitexp.callbacks.Reconstructions"
_PRUNING = "vitexp.callbacks.pruning.Pruning"
_OF_BOTH = ("vitexp.callbacks.LearningCurves", "vitexp.callbacks.PositionEmbedding", _PRUNING)


def complaints(config: dict[str, Any]) -> Iterator[str]:
    """What does not go together with pretraining, or without it."""
    figures = {name: callback["_target_"] for name, callback in config["callbacks"].items()}
    if "pretrain" not in config:
        for name, target in figures.items():
            if target == _RECONSTRUCTIONS:
                yield f"callbacks.{name} shows what a pretraining draws, and this is none; take callbacks=default."
        return
    model, pretrain = config["model"], config["pretrain"]
    if model["_target_"] != "vitexp.models.ViT":
        yield f"pretrain=mae leaves patches out, and {model['name']} has none; take a Vision Transformer."
    if model.get("mlp_conv"):
        yield "model.mlp_conv=true goes over whole grids of patches, of which pretrain=mae shows the blocks a part."
    if config["training"].get("image_sizes"):
        yield "training.image_sizes has no effect, for pretraining takes images of data.image_size; leave it null."
    dim, heads = pretrain["decoder_dim"], pretrain["decoder_heads"]
    if dim % 4:
        yield f"pretrain.decoder_dim={dim} must be a multiple of 4, for the sines and cosines of its positions."
    if dim % heads:
        fitting = ", ".join(str(number) for number in range(1, min(dim, 16) + 1) if dim % number == 0)
        yield f"pretrain.decoder_heads={heads} does not divide pretrain.decoder_dim={dim}; take one of {fitting}."
    side = model.get("upsample") or config["data"]["image_size"]
    patches, ratio = (side // model.get("patch_size", 4)) ** 2, pretrain["mask_ratio"]
    if not 0 < (seen := round(patches * (1 - ratio))) < patches:
        yield (
            f"pretrain.mask_ratio={ratio} of {patches} patches covers {'all' if seen == 0 else 'none'}; take another "
            "share, or a smaller model.patch_size."
        )
    if model.get("lsa") and seen + model.get("registers", 0) + (model.get("pool", "cls") == "cls") < 2:
        yield f"pretrain.mask_ratio={ratio} leaves model.lsa=true one token, which cannot see itself; take less."
    if (monitor := config["checkpoint"]["monitor"]) != "val/loss":
        said = shown(monitor)
        yield f"checkpoint.monitor={said} is of classifiers; a pretraining has checkpoint.monitor=val/loss alone."
    for name, target in figures.items():
        if target == _PRUNING and (metric := config["callbacks"][name]["metric"]) != "val/loss":
            yield f"callbacks.{name}.metric={metric} is of classifiers; a search over pretrainings takes val/loss."
        if target.startswith("vitexp.callbacks.") and target not in (_RECONSTRUCTIONS, *_OF_BOTH):
            yield f"callbacks.{name} shows what a classifier does, and this is none; take callbacks=pretraining."

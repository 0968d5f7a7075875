"""Rules for the sizes of a network: image, patches, channels, heads and stages must fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vitexp.config.components import argument, facts
from vitexp.errors import indivisible

Config = Mapping[str, Any]

_TOKENS = 65_536  # per image; attention compares every pair
_PARAMETERS = 10**11


def complaints(config: Config) -> Iterator[str]:
    """Yield one sentence for each broken rule."""
    yield from _patches(config)
    yield from _stages(config)
    yield from _image_sizes(config)


def tokens(model: Mapping[str, Any], side: int) -> int:
    """Return the number of tokens that attend to each other in a network with patches."""
    is_cls = argument(model, "pool") == "cls"
    return int((side // argument(model, "patch_size")) ** 2 + (argument(model, "registers") or 0) + is_cls)


def _has_options_of_vit(model: Mapping[str, Any]) -> bool:
    """Return whether the sizes of a ViT are options of the model; a subclass may set them in its constructor."""
    return None not in (argument(model, key) for key in ("patch_size", "dim", "depth", "num_heads", "mlp_ratio"))


def _too_many(patch_size: int, side: int) -> str:
    """Return a sentence if an image of `side` pixels has too many tokens; "" if not."""
    if (patches := (side // patch_size) ** 2) <= _TOKENS:
        return ""
    return (
        f"model.patch_size={patch_size} splits an image of {side}x{side} pixels into {patches:,} tokens, more than "
        f"{_TOKENS:,}; use larger patches."
    )


def _patches(config: Config) -> Iterator[str]:
    """Check networks with patches and attention heads."""
    model, training, image_size = config["model"], config["training"], config["data"]["image_size"]
    if not facts(model).get("has_patches"):
        return
    if not _has_options_of_vit(model):
        return
    upsample, patch_size, dim = (argument(model, key) for key in ("upsample", "patch_size", "dim"))
    if upsample is not None and upsample < image_size:
        yield f"model.upsample={upsample} must be at least data.image_size={image_size}, or null."
    side, key = (image_size, "data.image_size") if upsample is None else (upsample, "model.upsample")
    if problem := indivisible("model.patch_size", patch_size, key, side):
        yield problem
    if problem := indivisible("model.num_heads", argument(model, "num_heads"), "model.dim", dim):
        yield problem
    if problem := _too_many(patch_size, side):
        yield problem
    depth, mlp_ratio = argument(model, "depth"), argument(model, "mlp_ratio")
    if dim * mlp_ratio < 1:
        yield f"model.mlp_ratio={mlp_ratio} times model.dim={dim} leaves no hidden channel in the MLP; increase it."
    if (parameters := depth * dim**2 * (4 + 2 * mlp_ratio)) > _PARAMETERS:
        yield f"the model would have {parameters:.0e} parameters; reduce model.dim, depth or mlp_ratio."
    if argument(model, "lsa") and tokens(model, side) < 2:
        yield "model.lsa=true keeps a token from attending to itself, but there is only one; reduce model.patch_size."
    if argument(model, "distillation_token"):
        if (pool := argument(model, "pool")) != "cls":
            yield f"model.distillation_token=true needs a class token, which model.pool={pool} does not have; use cls."
        if training.get("teacher") is None and model.get("weights") is None:
            yield "model.distillation_token=true needs a teacher; set training.teacher to a finished run."


def _stages(config: Config) -> Iterator[str]:
    """Check networks with stages, each with its own depth, channels and number of attention heads."""
    model = config["model"]
    depths, heads, dims = (argument(model, key) for key in ("depths", "num_heads", "dims"))
    if depths is None or heads is None or (dims is None and argument(model, "dim") is None):
        return
    dims = dims or [argument(model, "dim") * 2**stage for stage in range(len(depths))]
    ratios = argument(model, "mlp_ratios") or [argument(model, "mlp_ratio")] * len(depths)
    reductions = argument(model, "reductions") or depths
    for key, numbers in (("dims", dims), ("num_heads", heads), ("reductions", reductions), ("mlp_ratios", ratios)):
        if len(numbers) != len(depths):
            yield (
                f"model.{key} has {len(numbers)} stages and model.depths has {len(depths)}; give both one number per "
                "stage."
            )
    for stage, (dim, number, ratio) in enumerate(zip(dims, heads, ratios, strict=True), start=1):
        if problem := indivisible(f"model.num_heads[{stage - 1}]", number, f"the channels of stage {stage}", dim):
            yield problem
        if dim * ratio < 1:
            yield f"stage {stage} has {dim} channels and MLPs of {ratio} times as many, which is none; increase either."
    if (parameters := sum(depth * dim**2 for depth, dim in zip(depths, dims, strict=True)) * 4) > _PARAMETERS:
        yield f"the model would have {parameters:.0e} parameters or more; reduce its channels or model.depths."
    patch_size, image_size = argument(model, "patch_size"), config["data"]["image_size"]
    if argument(model, "window_size") and (
        problem := indivisible("model.patch_size", patch_size, "data.image_size", image_size)
    ):
        yield problem
    if problem := _too_many(patch_size, image_size):
        yield problem


def _image_sizes(config: Config) -> Iterator[str]:
    sizes, model = config["training"].get("image_sizes") or [], config["model"]
    if not sizes:
        return
    if facts(model).get("any_image_size") is False:
        yield "training.image_sizes needs a model that takes images of any size; set it to null."
    elif not facts(config["task"]).get("uses_labels", True):
        yield "training.image_sizes has no effect on this task, which uses data.image_size; set it to null."
    if argument(model, "upsample"):
        yield "model.upsample resizes images to one size, training.image_sizes to several; set one of them to null."
    has_patches, patch_size = facts(model).get("has_patches"), argument(model, "patch_size")
    for size in () if patch_size is None else sizes:
        if size % patch_size and (has_patches or argument(model, "window_size")):
            yield f"model.patch_size={patch_size} does not divide {size} in training.image_sizes; use multiples of it."
        if (size // patch_size) ** 2 > _TOKENS:
            yield f"{size} in training.image_sizes gives more than {_TOKENS:,} tokens; use a smaller size."
        if has_patches and argument(model, "lsa") and tokens(model, size) < 2:
            yield f"{size} in training.image_sizes gives one token, but model.lsa=true needs two; use a larger size."

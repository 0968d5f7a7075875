"""The figures of explanations: which apply to a net, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.data.prepare import Prepared
from vitexp.errors import ConfigError
from vitexp.explain import figures
from vitexp.explain.embedding import Method, in_plane, nearest
from vitexp.explain.patches import image_patches
from vitexp.explain.position import position_norm, position_similarity
from vitexp.explanations.explainer import NAMES, Explainer, Images
from vitexp.trained_net import TrainedNet

Drawn = Iterator[tuple[str, Figure]]  # the name of the file, without its ending

METHOD_NAMES: dict[Method, str] = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_WITH_PATCHES = 3  # images; more make the figure a wall
_NEIGHBOURS = 5
_CHOICES = 5  # classes
_FOR_HEADS = 16  # images over which the heads are compared


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images uint8 [N, S, S, 3] and what is said of each; truth is None where unknown, explained what maps are of."""

    images: Images
    truth: list[int | None]
    predicted: list[int]
    confidence: list[float]
    explained: list[int]

    def captions(self, classes: Sequence[str]) -> list[str]:
        """A mark, the prediction with its probability, and the truth where it is another."""
        texts = []
        for truth, predicted, confidence in zip(self.truth, self.predicted, self.confidence, strict=True):
            mark = "" if truth is None else "✓ " if truth == predicted else "✗ "
            true = "" if truth in (None, predicted) else f" (true: {classes[truth]})"
            texts.append(f"{mark}{confidence:.1%} {classes[predicted]}{true}")
        return texts


def shown(
    explainer: Explainer[TrainedNet], images: Images, truth: Sequence[int | None], *, explained: int | None = None
) -> Shown:
    """The images with what the net says of them. explained: the class that maps speak of; the predicted one if None."""
    probabilities = explainer.probabilities(images)
    predicted = [int(label) for label in probabilities.argmax(axis=1)]
    return Shown(
        images=images,
        truth=list(truth),
        predicted=predicted,
        confidence=probabilities.max(axis=1).tolist(),
        explained=predicted if explained is None else [explained] * len(images),
    )


def draw_images(explainer: Explainer, about: Shown, *, layer: int = -1, head: int | None = None) -> Drawn:
    """Every figure that needs nothing but the net and the images."""
    if explainer.vit:
        yield "patches", draw_patches(explainer, about)
    if (filters := draw_filters(explainer)) is not None:
        yield "filters", filters
    for ending, overlay in (("", True), ("_raw", False)):
        yield f"explanations{ending}", draw_explanations(explainer, about, layer=layer, overlay=overlay)
    yield "classes", draw_classes(explainer, about)
    if explainer.vit:
        for ending, overlay in (("", True), ("_raw", False)):
            yield f"attention_layers{ending}", draw_layers(explainer, about, head=head, overlay=overlay)
            yield f"attention_heads{ending}", draw_every_head(explainer, about, overlay=overlay)
    if (position := draw_position(explainer)) is not None:
        yield "position_embedding", position


def draw_patches(explainer: Explainer, about: Shown) -> Figure:
    """The first images, cut as a ViT cuts them."""
    assert explainer.vit is not None
    cut, names = about.images[:_WITH_PATCHES], about.captions(explainer.run.classes)[:_WITH_PATCHES]
    patches = image_patches(cut, patch_size=explainer.vit.patch_size)
    return figures.exploded_patches(images=cut, patches=patches, names=names)


def draw_filters(explainer: Explainer) -> Figure | None:
    """The first layer's, None where it has none."""
    if (filters := explainer.filters()) is None:
        return None
    components, shares = filters
    side = f"{components.shape[1]} × {components.shape[2]} pixels"
    return figures.patch_filters(components=components, shares=shares, layer=f"first layer, {side}")


def draw_explanations(explainer: Explainer, about: Shown, *, layer: int = -1, overlay: bool = True) -> Figure:
    """Every method that applies, side by side. layer: of the attention alone."""
    images = about.images
    maps = {NAMES[method]: explainer.maps(method, images, about.explained, layer=layer) for method in explainer.methods}
    return figures.map_grid(
        title=_title(explainer, about),
        images=images,
        maps=[[np.maximum(each[index], 0) for each in maps.values()] for index in range(len(images))],
        columns=list(maps),
        rows=about.captions(explainer.run.classes),
        overlay=overlay,
    )


def _title(explainer: Explainer, about: Shown) -> str:
    if about.explained == about.predicted:
        return "Explanations of the predicted class"
    return f"Explanations of “{explainer.run.classes[about.explained[0]]}”"


def draw_classes(explainer: Explainer, about: Shown, *, overlay: bool = True) -> Figure:
    """The class-specific explanation for the most probable classes of each image."""
    method = next(each for each in ("relevance", "grad_cam", "occlusion") if each in explainer.methods)
    probabilities = explainer.probabilities(about.images)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :_CHOICES]
    maps = [explainer.maps(method, about.images, order[:, place].tolist()) for place in range(order.shape[1])]
    names = explainer.run.classes
    return figures.map_grid(
        title=f"The most probable classes: {NAMES[method]}",
        images=about.images,
        maps=[[each[index] for each in maps] for index in range(len(about.images))],
        columns=[f"choice {place + 1}" for place in range(order.shape[1])],
        rows=["" if truth is None else f"true: {names[truth]}" for truth in about.truth],
        captions=[
            [f"{probabilities[index, label]:.1%} {names[label]}" for label in labels]
            for index, labels in enumerate(order)
        ],
        overlay=overlay,
    )


def draw_layers(explainer: Explainer, about: Shown, *, head: int | None = None, overlay: bool = True) -> Figure:
    """A ViT's attention through the layers, of one head or the mean of all."""
    maps = explainer.head_maps(about.images)  # (N, L, H, g, g)
    whose = "mean of the heads" if head is None else f"head {head + 1}"
    return figures.map_grid(
        title=f"{_attention_of(explainer)}, {whose}",
        images=about.images,
        maps=list(maps.mean(axis=2) if head is None else maps[:, :, head]),
        columns=[f"layer {layer + 1}" for layer in range(maps.shape[1])],
        rows=about.captions(explainer.run.classes),
        overlay=overlay,
    )


def draw_every_head(explainer: Explainer, about: Shown, *, overlay: bool = True) -> Figure:
    """A ViT's attention for the first image, a row a layer and a column a head."""
    maps = explainer.head_maps(about.images[:1])[0]  # (L, H, g, g)
    layers, heads = maps.shape[:2]
    return figures.map_grid(
        title=f"{_attention_of(explainer)}, every head",
        images=about.images[:1].repeat(layers, axis=0),
        maps=list(np.concatenate([maps, maps.mean(axis=1, keepdims=True)], axis=1)),
        columns=[*(f"head {number + 1}" for number in range(heads)), "mean"],
        rows=[f"layer {layer + 1}" for layer in range(layers)],
        overlay=overlay,
        show_images=False,
    )


def _attention_of(explainer: Explainer) -> str:
    assert explainer.vit is not None
    return "Attention of the class token" if explainer.vit.has_cls else "Attention that patches receive"


def draw_position(explainer: Explainer) -> Figure | None:
    """None where there is no position embedding."""
    net = explainer.vit
    if net is None or net.pos_embed is None:
        return None
    where = {"prefix_tokens": net.pos_embed.shape[1] - net.grid_size**2, "grid_size": net.grid_size}
    return figures.position_embedding(
        similarity=position_similarity(net.pos_embed, **where), norm=position_norm(net.pos_embed, **where)
    )


def draw_heads(explainer: Explainer, images: Images) -> Drawn:
    """How the heads of a ViT differ over some images; nothing for other nets."""
    if explainer.vit:
        distance, entropy, apart, tokens = explainer.head_diversity(images[:_FOR_HEADS])
        yield "head_diversity", figures.head_diversity(distance=distance, entropy=entropy, apart=apart, tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Training images uint8 [N, S, S, 3], labels [N], what the net makes of them, vectors float32 [N, D]; and rows,
    int64 [N], where they stand in the training set."""

    images: Images
    labels: NDArray[np.integer]
    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]


def embed(explainer: Explainer[TrainedNet], train: Prepared, *, sample: int) -> Embedded:
    """Training images drawn at random, always the same ones."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:sample])
    images = train.images(rows)
    return Embedded(images=images, labels=train.labels[rows], vectors=explainer.embeddings(images), rows=rows)


def draw_embedding(
    explainer: Explainer[TrainedNet], about: Shown, among: Embedded, *, method: Method = "pca"
) -> Figure:
    """The first images in a plane with training images, and their nearest neighbours among these."""
    some = about.images[:_WITH_PATCHES]
    given = explainer.embeddings(some)
    found, alike = nearest(among.vectors, given, neighbours=_NEIGHBOURS)
    points, stars = in_plane(among.vectors, given, method=method)
    names = explainer.run.classes
    return figures.embedding_map(
        points=points,
        labels=among.labels,
        stars=stars,
        class_names=names,
        images=some,
        names=about.captions(names)[: len(some)],
        neighbours=among.images[found],
        neighbour_labels=among.labels[found],
        alike=alike,
        method=METHOD_NAMES[method],
    )


Pair = tuple[Explainer, Explainer]


def draw_side_by_side(explainers: Pair, about: tuple[Shown, Shown]) -> Figure:
    """What two nets say of the same images, with their class-specific explanations."""
    names = _run_names(explainers)
    first = about[0]
    columns: list[str] = []
    maps: list[NDArray[np.float32]] = []
    captions: list[list[str]] = [[] for _ in first.images]
    for explainer, seen, name in zip(explainers, about, names, strict=True):
        said = seen.captions(explainer.run.classes)
        for place, method in enumerate(each for each in explainer.methods if each not in ("attention", "rollout")):
            maps.append(np.maximum(explainer.maps(method, seen.images, seen.explained), 0))
            columns.append(f"{name}: {NAMES[method]}")
            for row, text in zip(captions, said, strict=True):
                row.append(text if place == 0 else "")
    classes = explainers[0].run.classes
    return figures.map_grid(
        title=f"{names[0]} and {names[1]} on the same images",
        images=first.images,
        maps=[[each[index] for each in maps] for index in range(len(first.images))],
        columns=columns,
        rows=["" if truth is None else f"true: {classes[truth]}" for truth in first.truth],
        captions=captions,
    )


def draw_confusions(explainers: Pair) -> Figure:
    """What two nets take for what, over all test images. Raises ConfigError where these differ."""
    tests = [explainer.run.data.test for explainer in explainers]
    if not np.array_equal(tests[0].labels, tests[1].labels):
        raise ConfigError(f"{explainers[1].run.folder} has another test set; two runs are compared on one.")
    everything = np.arange(len(tests[0]))
    first, second = (
        explainer.probabilities(test.images(everything)).argmax(axis=1)
        for explainer, test in zip(explainers, tests, strict=True)
    )
    return figures.paired_confusions(
        truth=tests[0].labels,
        predicted=(first, second),
        class_names=explainers[0].run.classes,
        runs=_run_names(explainers),
    )


def _run_names(explainers: Pair) -> tuple[str, str]:
    """Those of their models, or where these are alike of their runs."""
    models = [str(explainer.run.config.model.name) for explainer in explainers]
    runs = [str(explainer.run.config.name or explainer.run.folder.parent.name) for explainer in explainers]
    ids = [explainer.run.folder.name for explainer in explainers]
    first, second = next((pair for pair in (models, runs) if pair[0] != pair[1]), ids)
    return first, second

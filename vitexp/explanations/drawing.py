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


def shown(explainer: Explainer, images: Images, truth: Sequence[int | None], *, explained: int | None = None) -> Shown:
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
    classes = explainer.run.classes
    rows, images = about.captions(classes), about.images
    cut = images[:_WITH_PATCHES]
    if explainer.vit:
        patches = image_patches(explainer.as_cut(cut), patch_size=explainer.vit.patch_size)
        yield "patches", figures.exploded_patches(images=cut, patches=patches, names=rows[:_WITH_PATCHES])
    if (filters := explainer.filters()) is not None:
        side = f"{filters[0].shape[1]} × {filters[0].shape[2]} pixels"
        yield "filters", figures.patch_filters(components=filters[0], shares=filters[1], layer=f"first layer, {side}")
    maps = {NAMES[method]: explainer.maps(method, images, about.explained, layer=layer) for method in explainer.methods}
    table = [[np.maximum(each[index], 0) for each in maps.values()] for index in range(len(images))]
    title = _title(explainer, about)
    for name, overlay in (("explanations", True), ("explanations_raw", False)):
        figure = figures.map_grid(
            title=title, images=images, maps=table, columns=list(maps), rows=rows, overlay=overlay
        )
        yield name, figure
    yield "classes", _classes(explainer, about)
    if explainer.vit:
        yield from _attention(explainer, about, rows, head)
        yield from _position(explainer)


def _title(explainer: Explainer, about: Shown) -> str:
    if about.explained == about.predicted:
        return "Explanations of the predicted class"
    return f"Explanations of “{explainer.run.classes[about.explained[0]]}”"


def _classes(explainer: Explainer, about: Shown) -> Figure:
    """The class-specific explanation for the most probable classes of each image."""
    method = "relevance" if explainer.vit else "grad_cam"
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
    )


def _attention(explainer: Explainer, about: Shown, rows: list[str], head: int | None) -> Drawn:
    """Attention through the layers for all images, and of every head for the first."""
    maps = explainer.head_maps(about.images)  # (N, L, H, g, g)
    layers, heads = maps.shape[1:3]
    layer_names = [f"layer {layer + 1}" for layer in range(layers)]
    through = maps.mean(axis=2) if head is None else maps[:, :, head]
    whose = "mean of the heads" if head is None else f"head {head + 1}"
    first = np.concatenate([maps[0], maps[0].mean(axis=1, keepdims=True)], axis=1)  # (L, H + 1, g, g)
    assert explainer.vit is not None
    what = "Attention of the class token" if explainer.vit.has_cls else "Attention that patches receive"
    for ending, overlay in (("", True), ("_raw", False)):
        yield (
            f"attention_layers{ending}",
            figures.map_grid(
                title=f"{what}, {whose}",
                images=about.images,
                maps=list(through),
                columns=layer_names,
                rows=rows,
                overlay=overlay,
            ),
        )
        yield (
            f"attention_heads{ending}",
            figures.map_grid(
                title=f"{what}, every head",
                images=about.images[:1].repeat(layers, axis=0),
                maps=list(first),
                columns=[*(f"head {number + 1}" for number in range(heads)), "mean"],
                rows=layer_names,
                overlay=overlay,
                show_images=False,
            ),
        )


def _position(explainer: Explainer) -> Drawn:
    net = explainer.vit
    assert net is not None
    if net.pos_embed is None:
        return
    where = {"prefix_tokens": net.pos_embed.shape[1] - net.grid_size**2, "grid_size": net.grid_size}
    similarity, norm = position_similarity(net.pos_embed, **where), position_norm(net.pos_embed, **where)
    yield "position_embedding", figures.position_embedding(similarity=similarity, norm=norm)


def draw_heads(explainer: Explainer, images: Images) -> Drawn:
    """How the heads of a ViT differ over some images; nothing for other nets."""
    if explainer.vit:
        distance, entropy, apart, tokens = explainer.head_diversity(images[:_FOR_HEADS])
        yield "head_diversity", figures.head_diversity(distance=distance, entropy=entropy, apart=apart, tokens=tokens)


def draw_embeddings(
    explainer: Explainer, about: Shown, train: Prepared, *, sample: int, methods: Sequence[Method]
) -> Drawn:
    """Training images in a plane, drawn at random (always the same ones); neighbours are sought among these."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:sample])
    training, labels = train.images(rows), train.labels[rows]
    vectors = explainer.embeddings(training)
    some = about.images[:_WITH_PATCHES]
    given = explainer.embeddings(some)
    found, alike = nearest(vectors, given, neighbours=_NEIGHBOURS)
    names = explainer.run.classes
    for method in methods:
        points, stars = in_plane(vectors, given, method=method)
        figure = figures.embedding_map(
            points=points,
            labels=labels,
            stars=stars,
            class_names=names,
            images=some,
            names=about.captions(names)[: len(some)],
            neighbours=training[found],
            neighbour_labels=labels[found],
            alike=alike,
            method=METHOD_NAMES[method],
        )
        yield f"embedding_{method}", figure


def draw_comparison(
    explainers: tuple[Explainer, Explainer], about: Shown, chosen: NDArray[np.int64], *, explained: int | None = None
) -> Drawn:
    """Two nets on the same test images: their class-specific explanations and predictions; and all confusions of both.

    about: what the first net says of the test images at `chosen`. Raises ConfigError where the test sets differ.
    """
    tests = [explainer.run.data.test for explainer in explainers]
    if not np.array_equal(tests[0].labels, tests[1].labels):
        raise ConfigError(f"{explainers[1].run.folder} has another test set; two runs are compared on one.")
    seconds = shown(explainers[1], tests[1].images(chosen), about.truth, explained=explained)
    names = _run_names(explainers)
    columns: list[str] = []
    maps: list[NDArray[np.float32]] = []
    captions: list[list[str]] = [[] for _ in chosen]
    for explainer, seen, name in zip(explainers, (about, seconds), names, strict=True):
        said = seen.captions(explainer.run.classes)
        for place, method in enumerate(each for each in explainer.methods if each not in ("attention", "rollout")):
            maps.append(np.maximum(explainer.maps(method, seen.images, seen.explained), 0))
            columns.append(f"{name}: {NAMES[method]}")
            for row, text in zip(captions, said, strict=True):
                row.append(text if place == 0 else "")
    classes = explainers[0].run.classes
    figure = figures.map_grid(
        title=f"{names[0]} and {names[1]} on the same images",
        images=about.images,
        maps=[[each[index] for each in maps] for index in range(len(chosen))],
        columns=columns,
        rows=["" if truth is None else f"true: {classes[truth]}" for truth in about.truth],
        captions=captions,
    )
    yield "comparison", figure
    everything = np.arange(len(tests[0]))
    first, second = (
        explainer.probabilities(test.images(everything)).argmax(axis=1)
        for explainer, test in zip(explainers, tests, strict=True)
    )
    yield (
        "confusions",
        figures.paired_confusions(truth=tests[0].labels, predicted=(first, second), class_names=classes, runs=names),
    )


def _run_names(explainers: tuple[Explainer, Explainer]) -> tuple[str, str]:
    """Those of their models, or where these are alike of their runs."""
    models = [str(explainer.run.config.model.name) for explainer in explainers]
    runs = [str(explainer.run.config.name or explainer.run.folder.parent.name) for explainer in explainers]
    ids = [explainer.run.folder.name for explainer in explainers]
    first, second = next((pair for pair in (models, runs) if pair[0] != pair[1]), ids)
    return first, second

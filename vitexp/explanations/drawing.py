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
from vitexp.explain.heads import even_attention_distance
from vitexp.explain.patches import image_patches
from vitexp.explain.position import position_norm, position_similarity
from vitexp.explanations.explainer import NAMES, Explainer, Images

Drawn = Iterator[tuple[str, Figure]]  # the name of the file, without its ending

METHOD_NAMES: dict[Method, str] = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_FEW = 3  # images; more make a figure of patches or neighbours a wall
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

    def captions(self, classes: Sequence[str], *, with_truth: bool = True) -> list[str]:
        """A mark and the probability of the prediction, a line for it, and one for the truth where it is another."""
        texts = []
        for truth, predicted, confidence in zip(self.truth, self.predicted, self.confidence, strict=True):
            mark = "" if truth is None else "✓ " if truth == predicted else "✗ "
            true = "" if truth in (None, predicted) or not with_truth else f"\ntrue: {classes[truth]}"
            texts.append(f"{mark}{confidence:.1%}\n{classes[predicted]}{true}")
        return texts

    def few(self) -> list[int]:
        """Indices of the images of figures that show few: the first, and the last, which may be a mistake."""
        count = len(self.images)
        return list(range(count)) if count <= _FEW else [*range(_FEW - 1), count - 1]


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
    if explainer.vit:
        few = about.few()
        patches = image_patches(images[few], patch_size=explainer.vit.patch_size)
        names = [rows[index] for index in few]
        yield "patches", figures.exploded_patches(images=images[few], patches=patches, names=names)
    if (filters := explainer.filters()) is not None:
        side = f"{filters[0].shape[1]} × {filters[0].shape[2]} pixels"
        yield "filters", figures.patch_filters(components=filters[0], shares=filters[1], layer=f"first layer, {side}")
    maps = {NAMES[method]: explainer.maps(method, images, about.explained, layer=layer) for method in explainer.methods}
    if explainer.vit:
        number = layer + 1 if layer >= 0 else explainer.vit.depth + 1 + layer
        maps = {f"attention of layer {number}": maps.pop(NAMES["attention"]), **maps}
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
            [f"{probabilities[index, label]:.1%}\n{names[label]}" for label in labels]
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
    first = np.concatenate([maps[0], maps[0].mean(axis=1, keepdims=True)], axis=1).swapaxes(0, 1)  # (H + 1, L, g, g)
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
                images=about.images[:1].repeat(heads + 1, axis=0),
                maps=list(first),
                columns=layer_names,
                rows=[*(f"head {number + 1}" for number in range(heads)), "mean"],
                overlay=overlay,
                show_images=False,
                about=rows[0],
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
        some, net = images[:_FOR_HEADS], explainer.vit
        distance, entropy, apart, tokens = explainer.head_diversity(some)
        even = even_attention_distance(grid_size=net.grid_size, patch_size=net.patch_size)
        figure = figures.head_diversity(
            distance=distance, entropy=entropy, apart=apart, tokens=tokens, even=even, images=len(some)
        )
        yield "head_diversity", figure


def draw_embeddings(
    explainer: Explainer, about: Shown, train: Prepared, *, sample: int, methods: Sequence[Method]
) -> Drawn:
    """Training images in a plane, drawn at random (always the same ones); neighbours are sought among these."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:sample])
    training, labels = train.images(rows), train.labels[rows]
    vectors = explainer.embeddings(training)
    few = about.few()
    some = about.images[few]
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
            names=[about.captions(names)[index] for index in few],
            neighbours=training[found],
            neighbour_labels=labels[found],
            alike=alike,
            method=METHOD_NAMES[method],
            truth=[about.truth[index] for index in few],
        )
        yield f"embedding_{method}", figure


def check_same_test(explainers: tuple[Explainer, Explainer]) -> None:
    """Raises ConfigError where two runs were not tested on the same images, as far as their labels say."""
    first, second = (explainer.run.data.test.labels for explainer in explainers)
    if not np.array_equal(first, second):
        raise ConfigError(f"{explainers[1].run.folder} has another test set; two runs are compared on one.")


def draw_comparison(
    explainers: tuple[Explainer, Explainer], about: Shown, chosen: NDArray[np.int64], *, explained: int | None = None
) -> Drawn:
    """Two nets on the same test images: their class-specific explanations and predictions; and all confusions of both.

    about: what the first net says of the test images at `chosen`. Raises ConfigError where the test sets differ.
    """
    check_same_test(explainers)
    tests = [explainer.run.data.test for explainer in explainers]
    seconds = shown(explainers[1], tests[1].images(chosen), about.truth, explained=explained)
    names = _run_names(explainers)
    columns: list[str] = []
    maps: list[NDArray[np.float32]] = []
    captions: list[list[str]] = [[] for _ in chosen]
    for explainer, seen, name in zip(explainers, (about, seconds), names, strict=True):
        said = seen.captions(explainer.run.classes, with_truth=False)
        for place, method in enumerate(each for each in explainer.methods if each not in ("attention", "rollout")):
            maps.append(np.maximum(explainer.maps(method, seen.images, seen.explained), 0))
            columns.append(f"{name}: {NAMES[method]}")
            for row, text in zip(captions, said, strict=True):
                row.append(text if place == 0 else "")
    classes = explainers[0].run.classes
    whose = "what each predicts" if explained is None else f"“{classes[explained]}”"
    figure = figures.map_grid(
        title=f"Explanations of two runs, of {whose}",
        images=about.images,
        maps=[[each[index] for each in maps] for index in range(len(chosen))],
        columns=columns,
        rows=["" if truth is None else f"true: {classes[truth]}" for truth in about.truth],
        captions=captions,
    )
    yield "comparison", figure
    first, second = (_predicted(explainer) for explainer in explainers)
    yield (
        "confusions",
        figures.paired_confusions(truth=tests[0].labels, predicted=(first, second), class_names=classes, runs=names),
    )


def _predicted(explainer: Explainer) -> NDArray[np.int64]:
    """Of all test images [N], as the test of the run had it: to the last image of its accuracy, see `FinishedRun`."""
    run, size = explainer.run, int(explainer.run.config.data.batch_size)
    images = run.data.test.images(np.arange(len(run.data.test)))
    parts = [run.logits(images[at : at + size]).argmax(dim=1).cpu().numpy() for at in range(0, len(images), size)]
    return np.concatenate(parts)


def _run_names(explainers: tuple[Explainer, Explainer]) -> tuple[str, str]:
    """Those of their models, or where these are alike of their runs."""
    models = [str(explainer.run.config.model.name) for explainer in explainers]
    runs = [str(explainer.run.config.name or explainer.run.folder.parent.name) for explainer in explainers]
    ids = [explainer.run.folder.name for explainer in explainers]
    first, second = next((pair for pair in (models, runs) if pair[0] != pair[1]), ids)
    return first, second

"""The figures of explanations: which of them apply to a network, and what they are made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from vitexp.data.gtsrb_classes import GTSRB_FAMILIES
from vitexp.explain import figures
from vitexp.explain.explainer import NAMES, Explainer, Images, ImageSet
from vitexp.explain.methods.embedding import Method, in_plane, nearest
from vitexp.explain.methods.heads import even_attention_distance
from vitexp.explain.methods.patches import image_patches, position_norm, position_similarity
from vitexp.explain.ranking import Faithfulness
from vitexp.models.trained_net import TrainedNet
from vitexp.models.vit import ViT
from vitexp.text import percent

Drawn = Iterator[tuple[str, Figure]]  # file name without extension, and the figure

METHOD_NAMES: dict[Method, str] = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_FEW = 3  # images; more make a figure of patches or neighbors too large
_NEIGHBORS = 5
_CHOICES = 5  # classes
_OWN_SCALES = "Each map is on its own scale: compare positions, not strengths."
_FOR_HEADS = 16  # images over which the heads are compared


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images uint8 [N, S, S, 3] with labels and predictions.

    truth: ground truth, None if unknown. explained: the class that the maps explain.
    """

    images: Images
    truth: list[int | None]
    predicted: list[int]
    confidence: list[float]
    explained: list[int]

    def captions(self, classes: Sequence[str], *, with_truth: bool = True) -> list[str]:
        """Return a mark, the probability and class of each prediction, and the ground truth if it differs."""
        texts = []
        for truth, predicted, confidence in zip(self.truth, self.predicted, self.confidence, strict=True):
            mark = "" if truth is None else "✓ " if truth == predicted else "✗ "
            true = "" if truth in (None, predicted) or not with_truth else f"\ntrue: {classes[truth]}"
            texts.append(f"{mark}{confidence:.1%}\n{classes[predicted]}{true}")
        return texts

    def few(self) -> list[int]:
        """Return the indices for figures of few images: the first ones, and the last, which may be a mistake."""
        count = len(self.images)
        return list(range(count)) if count <= _FEW else [*range(_FEW - 1), count - 1]


def shown(
    explainer: Explainer[TrainedNet], images: Images, truth: Sequence[int | None], *, explained: int | None = None
) -> Shown:
    """Return images with their predictions. explained: the class that the maps explain; None: the predicted class."""
    probabilities = explainer.probabilities(images)
    predicted = [int(label) for label in probabilities.argmax(axis=1)]
    return Shown(
        images=images,
        truth=list(truth),
        predicted=predicted,
        confidence=probabilities.max(axis=1).tolist(),
        explained=predicted if explained is None else [explained] * len(images),
    )


def draw_images(explainer: Explainer, about: Shown, *, head: int | None = None, before: Tensor | None = None) -> Drawn:
    """Yield every figure that needs only the network and the images, but `draw_explanations`.

    before: see `draw_position`.
    """
    if explainer.vit:
        yield "patches", draw_patches(explainer, about)
    if (filters := draw_filters(explainer)) is not None:
        yield "filters", filters
    yield "classes", draw_classes(explainer, about)
    for ending, overlay in (("", True), ("_raw", False)):
        if explainer.vit:
            yield f"attention_layers{ending}", draw_layers(explainer, about, head=head, overlay=overlay)
            yield f"attention_heads{ending}", draw_every_head(explainer, about, overlay=overlay)
        if (stages := draw_stages(explainer, about, overlay=overlay)) is not None:
            yield f"attention_stages{ending}", stages
    if (position := draw_position(explainer.vit, before)) is not None:
        yield "position_embedding", position


def draw_patches(explainer: Explainer, about: Shown) -> Figure:
    """Draw a few images cut into the patches of a ViT."""
    assert explainer.vit is not None
    few, captions = about.few(), about.captions(explainer.run.classes)
    patches = image_patches(explainer.as_cut(about.images[few]), patch_size=explainer.vit.patch_size)
    return figures.exploded_patches(images=about.images[few], patches=patches, names=[captions[each] for each in few])


def draw_filters(explainer: Explainer) -> Figure | None:
    """Draw the filters of the first layer; None if it has none."""
    if (filters := explainer.filters()) is None:
        return None
    components, shares = filters
    side = f"{components.shape[1]} × {components.shape[2]} pixels"
    return figures.patch_filters(components=components, shares=shares, layer=f"first layer, {side}")


def draw_explanations(
    explainer: Explainer,
    about: Shown,
    *,
    layer: int = -1,
    measured: Faithfulness | None = None,
    overlay: bool = True,
) -> Figure:
    """Draw every applicable method side by side, with its faithfulness if it was measured.

    layer: layer of the method "attention", which was measured in the last layer.
    """
    methods, scores = explainer.methods, measured.scores if measured else {}
    if scores:
        methods = sorted(methods, key=lambda method: -scores[NAMES[method]])
    maps = {}
    for method in methods:
        name = NAMES[method]
        if method == "attention" and explainer.vit and (not scores or layer not in (-1, explainer.vit.depth - 1)):
            number = layer + 1 if layer >= 0 else explainer.vit.depth + 1 + layer
            name = f"attention of layer {number}"
        elif measured:
            name = scored(name, measured)
        maps[name] = explainer.maps(method, about.images, about.explained, layer=layer)
    title = "Explanations of the predicted class"
    if about.explained != about.predicted:
        title = f"Explanations of “{explainer.run.classes[about.explained[0]]}”"
    if scores:
        title = f"{title.removesuffix(' of the predicted class')}, the most faithful first"
    return figures.map_grid(
        title=title,
        images=about.images,
        maps=[[np.maximum(each[index], 0) for each in maps.values()] for index in range(len(about.images))],
        columns=list(maps),
        rows=about.captions(explainer.run.classes),
        overlay=overlay,
        note=measured.order if measured else "",
    )


def scored(name: str, measured: Faithfulness) -> str:
    """Return the heading of a map: the explanation, its score, and a warning unless it clearly beats random order."""
    warning = "" if measured.beats_random(name) else ", not clearly better than random order"
    return f"{name} {measured.scores[name]:.2f}{warning}"


def draw_classes(explainer: Explainer, about: Shown, *, overlay: bool = True) -> Figure:
    """Draw a class-specific explanation of the most probable classes of each image, and of the true one."""
    method = next(each for each in ("relevance", "grad_cam", "occlusion") if each in explainer.methods)
    probabilities = explainer.probabilities(about.images)
    ranked = np.argsort(-probabilities, axis=1, kind="stable")
    order = ranked[:, :_CHOICES].copy()
    columns = [f"choice {place + 1}" for place in range(order.shape[1])]
    for row, truth in enumerate(about.truth):
        if truth is not None and truth not in order[row]:
            order[row, -1], columns[-1] = truth, f"choice {len(columns)}, or the true class"
    maps = [explainer.maps(method, about.images, order[:, place].tolist()) for place in range(order.shape[1])]
    names = explainer.run.classes
    return figures.map_grid(
        title=f"The most probable classes: {NAMES[method]}",
        images=about.images,
        maps=[[each[index] for each in maps] for index in range(len(about.images))],
        columns=columns,
        rows=["" if truth is None else f"true: {names[truth]}" for truth in about.truth],
        captions=[
            [
                f"{percent(float(probabilities[index, label]))}\n{names[label]}"
                + (f"\n({_place(ranked[index], label)})" if label == about.truth[index] else "")
                for label in labels
            ]
            for index, labels in enumerate(order)
        ],
        overlay=overlay,
        note=_OWN_SCALES,
    )


def _place(ranked: NDArray[np.integer], label: int) -> str:
    """Say that a class is the true one and, if it is below the choices that are drawn, its place."""
    place = int((ranked == label).argmax()) + 1
    return "true" if place <= _CHOICES else f"true: choice {place} of {len(ranked)}"


def draw_layers(explainer: Explainer, about: Shown, *, head: int | None = None, overlay: bool = True) -> Figure:
    """Draw the attention of each layer of a ViT, of one head or averaged over the heads."""
    maps = explainer.head_maps(about.images)  # (N, L, H, g, g)
    which = "mean of the heads" if head is None else f"head {head + 1}"
    shown_maps = maps.mean(axis=2) if head is None else maps[:, :, head]
    return figures.map_grid(
        title=f"{_attention_of(explainer)}, {which}",
        images=about.images,
        maps=list(shown_maps),
        columns=[f"layer {layer + 1}" for layer in range(maps.shape[1])],
        rows=about.captions(explainer.run.classes),
        captions=None if overlay else [[_shares(explainer, each) for each in row] for row in shown_maps],
        overlay=overlay,
        one_scale="" if overlay else "{:.1%}",
        note=_OWN_SCALES if overlay else _about_shares(explainer),
    )


def draw_stages(explainer: Explainer, about: Shown, *, overlay: bool = True) -> Figure | None:
    """Draw the attention that positions receive in each block of a staged network; None if they have no choice."""
    maps = explainer.received(about.images) if explainer.staged else {}
    if not maps:
        return None
    rows = [[each[index] for each in maps.values()] for index in range(len(about.images))]
    return figures.map_grid(
        title="Attention that positions receive, mean of the heads",
        images=about.images,
        maps=rows,
        columns=list(maps),
        rows=about.captions(explainer.run.classes),
        captions=None if overlay else [[f"max {each.max():.1f}×" for each in row] for row in rows],
        overlay=overlay,
        one_scale="" if overlay else "{:.1f} times an even share",
        note=_OWN_SCALES if overlay else "Below each map, its largest value as a multiple of an even share.",
    )


def draw_every_head(explainer: Explainer, about: Shown, *, overlay: bool = True) -> Figure:
    """Draw the attention of a ViT for the first image: one row per head, one column per layer."""
    maps = explainer.head_maps(about.images[:1])[0].swapaxes(0, 1)  # (H, L, g, g)
    heads, layers = maps.shape[:2]
    rows = [*maps, maps.mean(axis=0)]
    return figures.map_grid(
        title=f"{_attention_of(explainer)}, every head",
        images=about.images[:1].repeat(heads + 1, axis=0),
        maps=rows,
        columns=[f"layer {number + 1}" for number in range(layers)],
        rows=[*(f"head {number + 1}" for number in range(heads)), "mean"],
        captions=None if overlay else [[_shares(explainer, each) for each in row] for row in rows],
        overlay=overlay,
        one_scale="" if overlay else "{:.1%}",
        note=_OWN_SCALES if overlay else _about_shares(explainer),
        show_images=False,
        about=about.captions(explainer.run.classes)[0],
    )


def _shares(explainer: Explainer, attention: NDArray[np.floating]) -> str:
    """Return what the colors of a map do not tell: its largest value and, with a class token, the sum of all.

    The sum is small where the class token attends to itself.
    """
    assert explainer.vit is not None
    largest, all_patches = (
        "<0.1%" if share < 0.0005 else f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
        for share in (float(attention.max()), float(attention.sum()))
    )
    return f"max {largest}\nall {all_patches}" if explainer.vit.has_cls else f"max {largest}"


def _about_shares(explainer: Explainer) -> str:
    assert explainer.vit is not None
    even = f"the same for all patches would be {1 / explainer.vit.grid_size**2:.1%} each."
    if not explainer.vit.has_cls:
        return (
            "Below each map: the largest share of the attention that a patch receives, on average over all patches; "
            + even
        )
    return (
        "Below each map: the largest share of its attention that the class token gives to a patch, and what it gives "
        "to all patches; the rest goes to itself and other tokens that are not patches; " + even
    )


def _attention_of(explainer: Explainer) -> str:
    assert explainer.vit is not None
    return "Attention of the class token" if explainer.vit.has_cls else "Attention that patches receive"


def draw_position(net: ViT | None, before: Tensor | None = None) -> Figure | None:
    """Draw the position embeddings of a ViT, and what training changed; None if there are none, or one patch.

    before: the position embeddings before training; None if unknown.
    """
    if net is None or net.pos_embed is None or net.grid_size == 1:
        return None
    where = {"prefix_tokens": net.pos_embed.shape[1] - net.grid_size**2, "grid_size": net.grid_size}
    after = net.pos_embed.detach().cpu()

    def positions(embedding: Tensor) -> figures.Positions:
        similarity, norm = position_similarity(embedding, **where), position_norm(embedding, **where)
        return figures.Positions(similarity=similarity, norm=norm)

    return figures.position_embedding(
        after=positions(after),
        before=None if before is None else positions(before),
        moved=None if before is None else position_norm(after - before, **where),
        is_fixed=not isinstance(net.pos_embed, nn.Parameter),
    )


def draw_heads(explainer: Explainer, images: Images) -> Drawn:
    """Yield a figure that compares the heads of a ViT over some images; nothing for other networks."""
    if net := explainer.vit:
        some = images[:_FOR_HEADS]
        distance, entropy, apart, tokens = explainer.head_diversity(some)
        even = even_attention_distance(grid_size=net.grid_size, patch_size=net.patch_size)
        figure = figures.head_diversity(
            distance=distance, entropy=entropy, apart=apart, tokens=tokens, even=even, images=len(some)
        )
        yield "head_diversity", figure


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Training images uint8 [N, S, S, 3], their labels [N], embeddings float32 [N, D], and training indices [N]."""

    images: Images
    labels: NDArray[np.integer]
    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]


def embed(explainer: Explainer[TrainedNet], train: ImageSet, *, sample: int) -> Embedded:
    """Embed `sample` training images, drawn with a fixed seed."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:sample])
    images = train.images(rows)
    return Embedded(images=images, labels=train.labels[rows], vectors=explainer.embeddings(images), rows=rows)


def draw_embedding(
    explainer: Explainer[TrainedNet], about: Shown, among: Embedded, *, method: Method = "pca"
) -> Figure:
    """Draw a few images in a plane with training images, and their nearest neighbors among them."""
    few, names = about.few(), explainer.run.classes
    given = explainer.embeddings(about.images[few])
    found, similarity = nearest(among.vectors, given, neighbors=_NEIGHBORS)
    plane = in_plane(among.vectors, given, method=method)
    captions = about.captions(names)
    return figures.embedding_map(
        points=plane.training,
        labels=among.labels,
        stars=plane.given,
        class_names=names,
        images=about.images[few],
        names=[captions[index] for index in few],
        neighbors=among.images[found],
        neighbor_labels=among.labels[found],
        similarity=similarity,
        method=METHOD_NAMES[method],
        shares=plane.shares,
        families=families_of(names),
        truth=[about.truth[index] for index in few],
    )


def families_of(classes: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """Return the families of classes, by name, if all of them are signs of GTSRB."""
    known = {name for names in GTSRB_FAMILIES.values() for name in names}
    return GTSRB_FAMILIES if known.issuperset(classes) else None

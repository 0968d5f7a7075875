"""Figures of explanations: drawn, with all their texts inside, also for odd names and many classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.explain.test_figures import _any_font, check, drawn_texts, images, names  # noqa: F401 - a fixture
from vitexp.explain.figures import (
    embedding_map,
    exploded_patches,
    faithfulness_curves,
    head_diversity,
    map_grid,
    paired_confusions,
    patch_filters,
)
from vitexp.explain.patches import image_patches

RANDOM = np.random.default_rng(0)


def maps(rows: int, columns: int, side: int = 8) -> list[list[np.ndarray]]:
    return [[RANDOM.random((side, side), dtype=np.float32) for _ in range(columns)] for _ in range(rows)]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 6), (12, 13), (3, 2)])
@pytest.mark.parametrize("overlay", [True, False])
def test_grids_of_maps(rows: int, columns: int, overlay: bool) -> None:
    figure = map_grid(
        title="Maps",
        images=images(rows),
        maps=maps(rows, columns),
        columns=names(columns),
        rows=[f"✗ {name}" for name in names(rows)],
        captions=[names(columns)] * rows,
        overlay=overlay,
    )
    check(figure)
    assert len(figure.axes) == rows * (columns + 1)


def test_grids_without_images_name_their_rows() -> None:
    figure = map_grid(
        title="Heads", images=images(3), maps=maps(3, 2), columns=["a", "b"], rows=["layer 1", "layer 2", "layer 3"],
        show_images=False,
    )  # fmt: skip
    check(figure)
    assert len(figure.axes) == 6
    assert "layer 3" in drawn_texts(figure)


def test_maps_of_other_sizes_and_flat_ones() -> None:
    table = [[np.zeros((4, 4)), RANDOM.random((32, 32))]]
    check(map_grid(title="Maps", images=images(1), maps=table, columns=["flat", "fine"], rows=["x"]))


def test_grids_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        map_grid(title="Maps", images=images(2), maps=maps(2, 2), columns=["a"], rows=["x", "y"])
    with pytest.raises(ValueError, match="do not fit"):
        map_grid(title="Maps", images=images(1), maps=maps(2, 1), columns=["a"], rows=["x", "y"])


@pytest.mark.parametrize(("size", "patch"), [(32, 4), (64, 16), (8, 8)])
def test_patches_apart(size: int, patch: int) -> None:
    pictures = images(3, size=size)
    figure = exploded_patches(images=pictures, patches=image_patches(pictures, patch_size=patch), names=names(3))
    check(figure)
    side = size // patch
    assert figure.texts[0].get_text() == f"A token for each of {side} × {side} patches of {patch} × {patch} pixels"
    exploded = np.asarray(figure.axes[1].images[0].get_array())
    white = (exploded == 255).all(axis=(1, 2)).sum()
    assert (white > 0) == (side > 1)


@pytest.mark.parametrize("count", [1, 27, 28])
def test_filters(count: int) -> None:
    components = RANDOM.normal(size=(count, 3, 3, 3))
    figure = patch_filters(components=components, shares=np.full(count, 1 / count), layer="first layer")
    check(figure)
    assert len(figure.axes) == count


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (6, 3), (12, 12)])
def test_heads(layers: int, heads: int) -> None:
    apart = RANDOM.random((layers * heads,) * 2)
    some = RANDOM.random((layers, heads))
    figure = head_diversity(distance=some * 20, entropy=some * 6, apart=apart, tokens=65)
    check(figure)
    with pytest.raises(ValueError, match="not of one net"):
        head_diversity(distance=some, entropy=some, apart=apart[:-1], tokens=65)


def test_faithfulness_names_the_best_first() -> None:
    good, bad = np.linspace(1, 0, 17)[None].repeat(9, axis=0) ** 4, np.linspace(1, 0, 17)[None].repeat(9, axis=0)
    figure = faithfulness_curves(
        deletion={"bad": bad, "good": good}, insertion={"bad": bad[:, ::-1] ** 2, "good": bad[:, ::-1]}
    )
    check(figure)
    for axes in figure.axes:
        said = [text.get_text() for text in axes.get_legend().get_texts()]
        assert [each.split()[0] for each in said] == ["good", "bad"]
    assert said == ["good  0.500", "bad  0.334"]
    with pytest.raises(ValueError, match="same names"):
        faithfulness_curves(deletion={"a": bad}, insertion={"b": bad})


@pytest.mark.parametrize(("classes", "count"), [(2, 1), (10, 3), (43, 3)])
def test_embedding_maps(classes: int, count: int) -> None:
    figure = embedding_map(**embedded(classes, count))
    check(figure)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert (legend[0] == "other classes") == (classes > 10)
    assert "★ 1" in drawn_texts(figure)


def embedded(classes: int, count: int) -> dict[str, Any]:
    return {
        "points": RANDOM.normal(size=(60, 2)),
        "labels": np.arange(60) % classes,
        "stars": RANDOM.normal(size=(count, 2)),
        "class_names": names(classes),
        "images": images(count),
        "names": names(count),
        "neighbours": np.stack([images(5)] * count),
        "neighbour_labels": RANDOM.integers(0, classes, (count, 5)),
        "alike": np.full((count, 5), 0.9876),
        "method": "PCA",
    }


def test_embedding_maps_of_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="need as many"):
        embedding_map(**{**embedded(3, 2), "names": ["one"]})


@pytest.mark.parametrize("classes", [2, 43])
def test_confusions_of_two_runs(classes: int) -> None:
    truth = np.arange(200) % classes
    first, second = truth.copy(), truth.copy()
    first[:20] = (truth[:20] + 1) % classes
    second[10:14] = (truth[10:14] + 1) % classes
    figure = paired_confusions(truth=truth, predicted=(first, second), class_names=names(classes), runs=("A", "B"))
    check(figure)
    assert "both right 90.00%, only A 0.00%, only B 8.00%, neither 2.00%" in drawn_texts(figure)


def test_two_runs_without_mistakes() -> None:
    truth = np.arange(10) % 2
    check(paired_confusions(truth=truth, predicted=(truth, truth), class_names=["a", "b"], runs=("A", "B")))

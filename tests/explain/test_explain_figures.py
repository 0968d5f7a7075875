"""Figures of explanations: drawn, with all their texts inside, even for odd names and many classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from tests.explain.test_figures import LONG, _any_font, check, check_apart, drawn_texts, images, names  # noqa: F401 - a fixture
from vitexp.data.gtsrb_classes import GTSRB_CLASSES, GTSRB_FAMILIES
from vitexp.explain.drawing import families_of
from vitexp.explain.figures import (
    embedding_map,
    exploded_patches,
    faithfulness_curves,
    head_diversity,
    map_grid,
    paired_confusions,
    patch_filters,
)
from vitexp.explain.methods.patches import image_patches

RANDOM = np.random.default_rng(0)


def maps(rows: int, columns: int, side: int = 8) -> list[list[np.ndarray]]:
    return [[RANDOM.random((side, side), dtype=np.float32) for _ in range(columns)] for _ in range(rows)]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 6), (3, 2)])
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
    assert len(figure.axes) == rows * (columns + 1) + 1
    assert "value of each map" in drawn_texts(figure)


@pytest.mark.parametrize("layers", [6, 12, 24])
def test_layers_and_heads_are_equally_large_in_rows_of_six(layers: int) -> None:
    columns = [f"layer {number + 1}" for number in range(layers)]
    captions = ["✓ 91.4%\nPriority road", f"✗ 58.9%\nSlippery road\ntrue: {LONG}"]
    sizes = set()
    for overlay in (True, False):
        grids = [
            map_grid(
                title="Layers", images=images(2), maps=maps(2, layers), columns=columns, rows=captions, overlay=overlay
            ),
            map_grid(
                title="Heads", images=images(1).repeat(4, axis=0), maps=maps(4, layers), columns=columns,
                rows=["head 1", "head 2", "head 3", "mean"], show_images=False, about=captions[0], overlay=overlay,
                note="The whole of it",
            ),
        ]  # fmt: skip
        for grid in grids:
            check(grid)
            *cells, _ = grid.axes
            check_apart(grid, [*grid.texts, *(text for each in cells for text in (each.title, each.xaxis.label))])
            sizes |= {tuple(np.round(each.get_window_extent().size)) for each in cells}
            named = [each.get_title() for each in cells if each.get_title()]
            assert sorted(named) == sorted(columns * (2 if grid is grids[0] and layers > 6 else 1))
            tops = [round(each.get_position().y1, 4) for each in cells]
            assert max(map(tops.count, tops)) <= 7, "six maps and an image"
    assert len(sizes) == 1 and min(sizes) > (130, 130)  # pixels


def test_grids_without_images_name_their_rows() -> None:
    pictures = images(1).repeat(3, axis=0)
    figure = map_grid(
        title="Heads", images=pictures, maps=maps(3, 2), columns=["a", "b"], rows=["head 1", "head 2", "head 3"],
        show_images=False, about="✓ 91.4%\nPriority road",
    )  # fmt: skip
    check(figure)
    head, *grid, _ = figure.axes
    np.testing.assert_array_equal(head.images[0].get_array(), pictures[0])  # once, above all maps
    assert len(grid) == 6 and all(each.get_position().y1 < head.get_position().y0 for each in grid)
    assert "head 3" in drawn_texts(figure) and "✓ 91.4%\nPriority road" in drawn_texts(figure)


def test_maps_of_other_sizes_and_flat_ones() -> None:
    table = [[np.zeros((4, 4)), RANDOM.random((32, 32))]]
    for overlay in (True, False):
        figure = map_grid(title="Maps", images=images(1), maps=table, columns=["a", "b"], rows=["x"], overlay=overlay)
        check(figure)
        assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [[], ["flat"], [], []]


def test_maps_on_one_scale_show_which_are_weak() -> None:
    """A hundredth of the largest value is dark, not as bright as it."""
    table = [[np.array([[0.0, 0.64]]), np.array([[0.0, 0.0064]])]]
    figure = map_grid(
        title="Maps", images=images(1), maps=table, columns=["a", "b"], rows=["x"], overlay=False, one_scale="{:.0%}"
    )
    check(figure)
    drawn = [axes.images[0] for axes in figure.axes[1:3]]
    assert [each.norm(each.get_array()).max() for each in drawn] == pytest.approx([1.0, 0.1])
    assert "from 0 to 64%, the same for all maps" in drawn_texts(figure)


def test_grids_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        map_grid(title="Maps", images=images(2), maps=maps(2, 2), columns=["a"], rows=["x", "y"])
    with pytest.raises(ValueError, match="do not fit"):
        map_grid(title="Maps", images=images(1), maps=maps(2, 1), columns=["a"], rows=["x", "y"])


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(("size", "patch"), [(32, 2), (32, 4), (64, 16), (8, 8)])
def test_patches_apart(size: int, patch: int, count: int) -> None:
    pictures = images(count, size=size)
    patches = image_patches(pictures, patch_size=patch)
    figure = exploded_patches(images=pictures, patches=patches, names=names(count))
    check(figure)
    assert len(figure.axes) == 2 * count
    side = size // patch
    assert figure.texts[0].get_text() == f"One token for each of {side} × {side} patches of {patch} × {patch} pixels"
    exploded = np.asarray(figure.axes[1].images[0].get_array())
    white = (exploded == 255).all(axis=(1, 2)).sum()
    assert (white > 0) == (side > 1)


def test_white_patches_have_a_border() -> None:
    pictures = np.full((1, 8, 8, 3), 255, np.uint8)
    figure = exploded_patches(images=pictures, patches=image_patches(pictures, patch_size=4), names=["white"])
    exploded = np.asarray(figure.axes[1].images[0].get_array())
    across = exploded[exploded.shape[0] // 4, :, 0]
    assert (np.diff(across.astype(int)) < 0).sum() == 3  # the left border is the picture's edge


@pytest.mark.parametrize("count", [1, 27, 28])
def test_filters(count: int) -> None:
    components = RANDOM.normal(size=(count, 3, 3, 3))
    figure = patch_filters(components=components, shares=np.full(count, 1 / count), layer="first layer")
    check(figure)
    assert len(figure.axes) == count
    assert "fraction of the variance" in drawn_texts(figure)


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (6, 3), (12, 12)])
def test_heads(layers: int, heads: int) -> None:
    apart = RANDOM.random((layers * heads,) * 2)
    some = RANDOM.random((layers, heads))
    figure = head_diversity(distance=some * 20, entropy=some * 6, apart=apart, tokens=65)
    check(figure)
    assert drawn_texts(figure).count("uniform attention") == 1
    figure = head_diversity(distance=some, entropy=some, apart=apart, tokens=65, even=16.7, images=1234)
    check(figure)
    assert drawn_texts(figure).count("uniform attention") == 2 and "over 1,234 images" in drawn_texts(figure)
    assert figure.axes[0].get_ylim()[1] > 16.7
    with pytest.raises(ValueError, match="do not match"):
        head_diversity(distance=some, entropy=some, apart=apart[:-1], tokens=65)


def test_faithfulness_has_one_colour_for_an_explanation_on_every_net() -> None:
    curves = np.linspace(1, 0, 17)[None].repeat(9, axis=0)
    lines = []
    for names_of_a_net in (["attention", "rollout", "Grad-CAM", "random order"], ["Grad-CAM", "random order", "mine"]):
        of_each = dict.fromkeys(names_of_a_net, curves)
        figure = faithfulness_curves(deletion=of_each, insertion=of_each)
        check(figure)
        lines.append({line.get_label(): line for line in figure.axes[0].lines})
        check_apart(figure, figure.axes[2].texts)
    vit, cnn = lines
    for name in ("Grad-CAM", "random order"):
        assert vit[name].get_color() == cnn[name].get_color()
    assert (
        len({line.get_color() for line in vit.values()}) == 4 and len({line.get_color() for line in cnn.values()}) == 3
    )
    assert vit["random order"].get_linestyle() == "--"


def test_faithfulness_compares_each_explanation_with_the_random_order() -> None:
    """Image by image: the intervals of all four overlap, because the images differ much more than the orders."""
    of_images = np.linspace(0, 0.8, 9)[:, None].repeat(17, axis=1)
    noise = np.linspace(-1, 1, 9)[:, None] ** 2 - 0.4
    insertion = {name: of_images + gain for name, gain in {"good": 0.1, "bad": -0.1, "like": noise}.items()}
    figure = faithfulness_curves(
        deletion=dict.fromkeys([*insertion, "random order"], of_images * 0),
        insertion={**insertion, "random order": of_images},
    )
    check(figure)
    check_apart(figure, figure.axes[2].texts)
    key = [text.get_text() for text in figure.axes[2].texts]
    verdicts = {name: key[key.index(name) + 4] for name in insertion}
    assert verdicts == {"good": "clearly", "bad": "clearly worse", "like": "not clearly"}
    one = {name: curves[:1] for name, curves in insertion.items()}
    assert "clearly" not in drawn_texts(faithfulness_curves(deletion=one, insertion=one))


def test_faithfulness_names_the_best_first() -> None:
    good, bad = np.linspace(1, 0, 17)[None].repeat(9, axis=0) ** 4, np.linspace(1, 0, 17)[None].repeat(9, axis=0)
    figure = faithfulness_curves(
        deletion={"bad": bad, "good": good}, insertion={"bad": bad[:, ::-1] ** 2, "good": bad[:, ::-1]}
    )
    check(figure)
    key = [text.get_text() for text in figure.axes[2].texts]
    assert key[3:] == [
        *("good", "0.201 ± 0.000", "0.500 ± 0.000", "0.299 ± 0.000"),
        *("bad", "0.500 ± 0.000", "0.334 ± 0.000", "-0.166 ± 0.000"),
    ]
    assert "favors" not in drawn_texts(figure)
    with pytest.raises(ValueError, match="same names"):
        faithfulness_curves(deletion={"a": bad}, insertion={"b": bad})


@pytest.mark.parametrize(("classes", "count"), [(2, 1), (10, 3), (43, 3), (100, 3)])
def test_embedding_maps_label_every_class_at_its_points(classes: int, count: int) -> None:
    given = embedded(classes, count)
    figure = embedding_map(**given, shares=(0.123, 0.04))
    check(figure)
    plane, key = figure.axes[:2]
    check_apart(figure, plane.texts)
    numbers = [text.get_text() for text in plane.texts]
    assert len(numbers) == classes + count and numbers[-1] == f"★{count}"
    assert len(key.texts) == classes
    first = plane.transData.transform(given["points"][given["labels"] == 0])
    at = plane.transAxes.transform(plane.texts[0].get_position())
    assert np.linalg.norm(first - at, axis=1).min() < 150, "near a point of its class"
    assert ("Color" if classes <= 10 else "Number") + ": the true class." in drawn_texts(figure)
    assert "component 1: 12.3% of the variance" in drawn_texts(figure)
    assert "shows 16% of the variance: classes that overlap here may be apart" in drawn_texts(figure)
    assert "shows 97% of the variance: nearly all." in drawn_texts(embedding_map(**given, shares=(0.9, 0.07)))


def test_stars_are_hollow_and_drawn_last() -> None:
    stars = embedding_map(**embedded(10, 3)).axes[0].collections[-1]
    assert len(stars.get_offsets()) == 3 and not len(stars.get_facecolor()), "a star hides no class"


def test_families_of_signs_have_a_color() -> None:
    families = {"round": names(43)[:20], "square": names(43)[20:]}
    figure = embedding_map(**embedded(43, 1), families=families)
    check(figure)
    colors = [tuple(points.get_facecolor()[0]) for points in figure.axes[0].collections[:-1]]
    assert len(set(colors[:20])) == len(set(colors[20:])) == 1 and colors[0] != colors[-1]
    assert {"round", "square"} < {text.get_text() for text in figure.axes[1].texts}
    assert {each for family in GTSRB_FAMILIES.values() for each in family} == set(GTSRB_CLASSES)
    assert sum(map(len, GTSRB_FAMILIES.values())) == 43
    assert families_of(GTSRB_CLASSES[:12]) is GTSRB_FAMILIES and families_of(["cat", "Stop"]) is None
    few = embedding_map(**embedded(4, 1), families={"all": names(4)})
    assert len({tuple(points.get_facecolor()[0]) for points in few.axes[0].collections[:-1]}) == 4


def test_of_very_many_classes_those_near_the_stars_are_labelled() -> None:
    given = {**embedded(101, 2), "neighbor_labels": np.full((2, 5), 7)}
    figure = embedding_map(**given, truth=[11, None])
    assert [text.get_text() for text in figure.axes[0].texts] == ["11", "7", "★1", "★2"]
    assert figure.axes[1].texts[-1].get_text() == "other classes"
    check(figure)


def embedded(classes: int, count: int) -> dict[str, Any]:
    return {
        "points": RANDOM.normal(size=(202, 2)),
        "labels": np.arange(202) % classes,
        "stars": RANDOM.normal(size=(count, 2)),
        "class_names": names(classes),
        "images": images(count),
        "names": names(count),
        "neighbors": np.stack([images(5)] * count),
        "neighbor_labels": RANDOM.integers(0, classes, (count, 5)),
        "similarity": np.full((count, 5), 0.9876),
        "method": "PCA",
    }


def test_embedding_maps_of_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="need the same number"):
        embedding_map(**{**embedded(3, 2), "names": ["one"]})


@pytest.mark.parametrize("classes", [2, 43])
def test_confusions_of_two_runs(classes: int) -> None:
    truth = np.arange(200) % classes
    first, second = truth.copy(), truth.copy()
    first[:20] = (truth[:20] + 1) % classes
    second[10:14] = (truth[10:14] + 1) % classes
    figure = paired_confusions(
        truth=truth, predicted=(first, second), class_names=names(classes), runs=("A", "B"), epochs=(1, 30)
    )
    check(figure)
    assert "accuracy: A 90.00% (1 epoch), B 98.00% (30 epochs)" in drawn_texts(figure)
    assert "both right 90.00%, only A 0.00%, only B 8.00%, neither 2.00%" in drawn_texts(figure)


def test_each_run_chooses_half_of_the_confusions() -> None:
    truth = np.repeat(np.arange(12), 100)
    often, seldom = truth.copy(), truth.copy()
    for label in range(12):  # the first run has 30 to 41 of each, the second only one to twelve of others
        often[100 * label : 100 * label + 30 + label] = (label + 1) % 12
        seldom[100 * label : 100 * label + 1 + label] = (label + 2) % 12
    figure = paired_confusions(
        truth=truth, predicted=(often, seldom), class_names=list("abcdefghijkl"), runs=("A", "B")
    )
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    pairs = {step: [f"{chr(97 + n)} → {chr(97 + (n + step) % 12)}" for n in range(11, 3, -1)] for step in (1, 2)}
    assert shown == pairs[1] + pairs[2]  # eight of each, in the order of the sum of both
    assert (
        "Shown: 16 pairs of classes, the 8 most frequent of each run, in the order of the sum of both"
        in drawn_texts(figure)
    )


def test_confusions_write_a_name_out_where_the_other_is_short() -> None:
    truth, predicted = np.array([0, 1, 1]), np.array([1, 1, 2])
    figure = paired_confusions(
        truth=truth, predicted=(predicted, truth), class_names=["Road narrows on the right", "Stop", "x" * 99],
        runs=("y" * 80, "two words " * 20),
    )  # fmt: skip
    check(figure)
    words = drawn_texts(figure)
    assert "Road narrows on the right → Stop" in words
    assert "Stop → xxxxx" in words and f"{'y' * 21}… 33.33%, two words two words" in words
    check_apart(figure, figure.texts)


def test_long_names_of_runs_stay_apart() -> None:
    truth = np.array([0, 1, 1])
    runs = "20261121-113229-34efde", "20261121-120716-c5cffa"
    figure = paired_confusions(truth=truth, predicted=(truth[::-1], truth), class_names=["a", "b"], runs=runs)
    check(figure)
    [axes] = figure.axes
    title = next(text for text in axes.findobj(Text) if text.get_text() == "true → predicted")
    check_apart(figure, [*figure.texts, title, *axes.get_legend().get_texts()])


def test_two_runs_without_mistakes() -> None:
    truth = np.arange(10) % 2
    check(paired_confusions(truth=truth, predicted=(truth, truth), class_names=["a", "b"], runs=("A", "B")))

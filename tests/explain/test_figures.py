from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from vitexp.explain.figures import (
    Positions,
    attention_maps,
    augmented_batch,
    confusion_matrix,
    learning_curves,
    position_embedding,
    sample_predictions,
)

LONG = "End of no passing by vehicles over 3.5 metric tons"
ODD_NAMES = ("$\\frac{a_b$", "<b>&amp;", "Überholverbot", "line\nbreak", "停止", LONG, "x" * 200, "Stop")


@pytest.fixture(autouse=True)
def _any_font():
    # Whether a machine has glyphs for every name depends on its fonts; a missing glyph is not a failure here.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def names(count: int) -> list[str]:
    return [f"{index} {ODD_NAMES[index % len(ODD_NAMES)]}" for index in range(count)]


def images(count: int, *, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def counts(classes: int) -> np.ndarray:
    random = np.random.default_rng(classes)
    return random.poisson(0.3, (classes, classes)) + np.diag(random.integers(20, 300, classes))


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def drawn_texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in texts(figure))


def check(figure: Figure) -> np.ndarray:
    """Check that no text leaves the figure and that it is not blank; return its pixels [height, width, 4]."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    height, width = pixels.shape[:2]
    for text in texts(figure):
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        # Ticks beyond the limits of an axis keep their text but are not drawn.
        assert inside or not drawn(text, figure), f"{text.get_text()!r} at {box} leaves {width} x {height}"
    assert (pixels[..., :3] < 250).any(axis=2).mean() > 0.005
    return pixels


def drawn(text: Text, figure: Figure) -> bool:
    return not any(
        tick.label1 is text and not low <= tick.get_loc() <= high
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for low, high in [sorted(axis.get_view_interval())]
        for tick in (*axis.majorTicks, *axis.minorTicks)
    )


def check_apart(figure: Figure, pieces: list[Text]) -> None:
    """Check that no two of these texts overlap."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in pieces if text.get_text()]
    for index, (words, box) in enumerate(boxes):
        for other_words, other in boxes[index + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 1 or height <= 1, f"{words!r} lies on {other_words!r}"


@pytest.mark.parametrize("classes", [2, 10, 18, 43, 100])
def test_confusion_matrix_fits(classes: int) -> None:
    figure = confusion_matrix(counts=counts(classes), class_names=names(classes))
    check(figure)
    check_apart(figure, [*figure.axes[0].get_yticklabels(), *figure.texts])
    check_apart(figure, figure.axes[0].get_xticklabels())


def test_confusion_matrix_says_it_in_words() -> None:
    matrix = np.array([[8, 2, 0], [0, 4, 1], [0, 0, 5]])
    words = drawn_texts(confusion_matrix(counts=matrix, class_names=["cat", "$dog_1$", "cow"], part="test"))
    assert "Accuracy 85.00% on 20 test images" in words
    assert "Most frequent of the 3 mistakes: true → predicted\n" in words
    assert words.index("$dog_1$ → cow, 1 of 5") < words.index("cat → $dog_1$, 2 of 10")  # drawn from the bottom up


def test_confusion_matrix_counts_what_is_as_frequent_as_the_last_of_the_list() -> None:
    matrix = 90 * np.eye(20, dtype=int) + 3 * np.eye(20, k=1, dtype=int)
    matrix[0, 1] = 7
    figure = confusion_matrix(counts=matrix, class_names=names(20))
    check(figure)
    check_apart(figure, figure.texts)
    assert "and 9 other pairs of classes with 3 each" in drawn_texts(figure), "one with 7 and nine of 18 are listed"
    assert "other pair" not in drawn_texts(confusion_matrix(counts=matrix[:11, :11], class_names=names(11)))


def test_confusion_matrix_numbers_many_classes_only_where_listed() -> None:
    matrix = np.diag(np.full(43, 90))
    matrix[3, 7] = 12
    axes = confusion_matrix(counts=matrix, class_names=names(43)).axes[0]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("12", (7, 3))]


def test_confusion_matrix_numbers_large_shares_of_small_classes() -> None:
    matrix = np.diag(np.full(43, 900)) + 20 * np.eye(43, k=1, dtype=int)
    matrix[0] = 0
    matrix[0, [5, 6, 7]] = 29, 19, 2  # of 50
    axes = confusion_matrix(counts=matrix, class_names=names(43)).axes[0]
    numbered = {text.get_position(): text.get_text() for text in axes.texts}
    assert {(5, 0): "29", (6, 0): "19"}.items() <= numbered.items()
    assert (7, 0) not in numbered and len(numbered) == 11  # ten are listed, (5, 0) among them


@pytest.mark.parametrize("classes", [2, 12, 20, 43])
def test_numbers_of_a_confusion_matrix_fit_into_their_cells(classes: int) -> None:
    matrix = np.full((classes, classes), 8765) // np.arange(1, classes + 1)[:, None]
    figure = confusion_matrix(counts=matrix, class_names=[f"Speed limit {index}" for index in range(classes)])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / classes
    assert axes.texts
    for text in axes.texts:
        assert text.get_window_extent().width <= cell, text.get_text()


def test_a_class_without_a_correct_prediction_has_a_white_diagonal() -> None:
    matrix = np.array([[60, 0], [60, 0]])
    figure = confusion_matrix(counts=matrix, class_names=["a", "b"])
    pixels = check(figure)
    box = figure.axes[0].get_window_extent()
    height = len(pixels)

    def color(row: float, column: float) -> list[int]:
        x, y = box.x0 + (column + 0.2) / 2 * box.width, box.y1 - (row + 0.2) / 2 * box.height
        return pixels[int(height - y), int(x), :3].tolist()

    assert color(1, 1) == [255, 255, 255] == color(0, 1)
    assert color(0, 0) == [0, 0x72, 0xB2]


def test_confusion_matrix_separates_name_and_number_and_explains_its_colors() -> None:
    figure = confusion_matrix(counts=np.diag(np.full(13, 5)), class_names=[f"Speed limit {n}" for n in range(13)])
    words = drawn_texts(figure)
    assert "Speed limit 12 (12)" in words and "Color: share of the class" in words
    check_apart(figure, [text for axes in figure.axes[1:] for text in axes.get_xticklabels()])


def test_confusion_matrix_without_errors_or_images() -> None:
    perfect = confusion_matrix(counts=np.diag([3, 4]), class_names=["a", "b"])
    check(perfect)
    assert "No mistakes" in drawn_texts(perfect)
    empty = confusion_matrix(counts=np.zeros((2, 2), int), class_names=["a", "b"])
    empty.canvas.draw()
    assert "No images" in drawn_texts(empty)


def test_confusion_matrix_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*2 class names"):
        confusion_matrix(counts=np.zeros((2, 3), int), class_names=["a", "b"])


@pytest.mark.parametrize(("count", "size", "grid"), [(1, 32, 8), (7, 32, 4), (5, 224, 14)])
def test_attention_maps_fit(count: int, size: int, grid: int) -> None:
    maps = np.random.default_rng(0).random((count, grid, grid), dtype=np.float32)
    truth = names(count)
    figure = attention_maps(images=images(count, size=size), maps=maps, truth=truth, predicted=[*truth[1:], LONG])
    check(figure)
    check_apart(figure, [*figure.texts, *(axes.title for axes in figure.axes)])
    assert len(figure.axes) == 3 * count


def test_attention_shows_where_it_is_strong() -> None:
    maps = np.zeros((1, 2, 2), dtype=np.float32)
    maps[0, 0, 1] = 0.5
    black = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    figure = attention_maps(images=black, maps=maps, truth=["Stop"], predicted=["Stop"])
    pixels = check(figure)
    box = figure.axes[2].get_window_extent()  # the overlay
    inside = pixels[::-1][int(box.y0) : int(box.y1), int(box.x0) : int(box.x1), :3].astype(float).mean(axis=2)
    half = inside.shape[0] // 2
    quarters = {"upper right": inside[half:, half:], "upper left": inside[half:, :half], "lower": inside[:half]}
    assert quarters["upper right"].mean() > 2 * max(quarters["upper left"].mean(), quarters["lower"].mean())


def test_sample_predictions_part_right_from_wrong() -> None:
    truth = names(8)
    predicted = [*truth[:6], LONG, "$x_1$"]
    confidence = np.linspace(0.3, 1, 8)
    figure = sample_predictions(
        images=images(8),
        truth=truth,
        predicted=predicted,
        confidence=confidence,
        right=7_680,
        wrong=2_320,
        part="test",
    )
    check(figure)
    check_apart(figure, [*figure.texts, *(axes.xaxis.label for axes in figure.axes)])
    words = [axes.get_xlabel() for axes in figure.axes]
    assert [caption[0] for caption in words] == ["✓"] * 6 + ["✗"] * 2
    assert words[6].startswith("✗ 90.0%\nEnd of no passing by\nvehicles over 3.5\nmetric tons\ntrue: ")
    assert "true" not in words[0]
    headings = [text.get_text() for text in figure.texts]
    assert headings == [
        "Sample predictions; accuracy 76.80% on 10,000 test images",
        "Right: 6 of 7,680, drawn at random, with confidence",
        "Wrong: 2 of 2,320, drawn at random, with confidence",
    ]


def test_sample_predictions_with_none_wrong() -> None:
    figure = sample_predictions(
        images=images(2), truth=["a", "b"], predicted=["a", "b"], confidence=[1.0, 0.5], right=2, wrong=0
    )
    check(figure)
    assert [text.get_text() for text in figure.texts] == [
        "Sample predictions; accuracy 100.00% on 2 images",
        "Right: 2 of 2, drawn at random, with confidence",
    ]


def test_augmented_batch_takes_what_the_network_gets() -> None:
    photographs, originals = images(6), images(6, size=48)
    for batch in (photographs, photographs / 255, ((photographs / 255 - 0.5) / 0.25).astype(np.float32)):
        figure = augmented_batch(originals=originals, images=batch, labels=[*names(5), f"Stop 0.7 / {LONG} 0.3"])
        check(figure)
        check_apart(figure, [*figure.texts, *(axes.xaxis.label for axes in figure.axes)])
        shown = [np.asarray(axes.images[0].get_array(), dtype=float) for axes in figure.axes]
        # The values cover the whole range, so that undoing the normalization gives the photograph back.
        np.testing.assert_allclose(shown[5] / shown[5].max(), photographs[0] / photographs[0].max(), atol=0.01)
        np.testing.assert_array_equal(shown[0], originals[0])
        np.testing.assert_array_equal(shown[10], originals[5])
    above, below = (figure.axes[index].get_position() for index in (0, 5))
    assert above.x0 == below.x0 and above.y0 > below.y1
    assert figure.axes[11].get_xlabel().startswith("Stop 0.7\nEnd of no passing")
    assert figure.texts[0].get_text().startswith("6 training images as the network sees them")


def positions(similarity: np.ndarray | None = None, *, grid: int = 2, norm: np.ndarray | None = None) -> Positions:
    noise = np.random.default_rng(grid).uniform(-1, 1, (grid,) * 4)
    return Positions(
        similarity=noise if similarity is None else similarity,
        norm=np.linspace(9.7, 9.9, grid**2).reshape(grid, grid) if norm is None else norm,
    )


@pytest.mark.parametrize("grid", [2, 8, 28])
def test_position_embedding_fits(grid: int) -> None:
    after, before = positions(grid=grid), positions(grid=grid, norm=np.full((grid, grid), 9.8))
    moved = np.full((grid, grid), 0.1)
    for figure in (
        position_embedding(after=after, before=before, moved=moved),
        position_embedding(after=after),
        position_embedding(after=after, before=before, moved=0 * moved, is_fixed=True),
    ):
        check(figure)
        check_apart(figure, [*figure.texts, *(axes._left_title for axes in figure.axes)])
        check_apart(figure, [text for axes in figure.axes for text in axes.get_xticklabels()])


def test_position_embedding_says_what_was_learned() -> None:
    start = positions(grid=4)
    moved = np.full((4, 4), 0.98)
    same = position_embedding(after=positions(start.similarity + 0.01, grid=4), before=start, moved=moved)
    assert "mostly as before training" in drawn_texts(same)
    assert "correlate 1.00: this pattern was there before" in drawn_texts(same)
    assert "moved by 10% of its length" in drawn_texts(same)
    new = position_embedding(after=positions(start.similarity[::-1], grid=4), before=start, moved=moved)
    assert "mostly learned" in drawn_texts(new)
    assert "does not show what was learned" in drawn_texts(position_embedding(after=start))
    fixed = position_embedding(after=start, before=start, moved=0 * moved, is_fixed=True)
    assert "fixed, not learned" in drawn_texts(fixed) and "Before" not in drawn_texts(fixed)


def test_scales_of_position_embeddings() -> None:
    before, after = np.linspace(0.72, 1, 16).reshape((2,) * 4), np.linspace(0.52, 1, 16).reshape((2,) * 4)
    figure = position_embedding(after=positions(after), before=positions(before), moved=np.ones((2, 2)))
    first, _, second, _, difference, _, lengths = figure.axes[:7]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0.5, 1)  # comparable
    assert difference.images[0].get_clim() == pytest.approx((-0.2, 0.2))  # zero is white
    assert lengths.images[0].get_clim() == (9.7, 9.9)
    assert "at most ±0.2" in difference.get_title(loc="left") and "9.7 to 9.9" in lengths.get_title(loc="left")


def test_position_embedding_lays_each_map_at_its_patch() -> None:
    similarity = np.zeros((2, 2, 2, 2), dtype=np.float32)
    similarity[1, 0] = [[0.1, 0.2], [0.3, 0.4]]
    figure = position_embedding(after=positions(similarity))
    tiles = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert tiles.shape == (5, 5)
    np.testing.assert_allclose(tiles[3:, :2], similarity[1, 0])
    assert np.isnan(tiles[2]).all()
    with pytest.raises(ValueError, match="one grid"):
        positions(similarity, norm=np.ones((3, 3)))
    with pytest.raises(ValueError, match="before and moved"):
        position_embedding(after=positions(similarity), before=positions(grid=3), moved=np.ones((3, 3)))


HISTORY = {
    "train/loss": (np.linspace(0, 3, 40), np.linspace(3, 1, 40)),
    "val/loss": ([1, 2, 3], [2.0, 1.5, 1.6]),
    "train/accuracy": ([1, 2, 3], [0.1, 0.3, 0.5]),
    "val/accuracy": ([1, 2, 3], [0.2, 0.6, 0.6]),
    "val/precision_macro": ([1, 2, 3], [0.3, 0.5, 0.6]),
    "val/recall_macro": ([1, 2, 3], [0.2, 0.5, 0.5]),
    "val/f1_macro": ([1, 2, 3], [0.1, 0.4, 0.5]),
    "val/ece": ([1, 2, 3], [0.3, 0.2, 0.25]),
    "lr": (np.linspace(0, 3, 40), np.linspace(1e-3, 1e-6, 40)),
}


def test_learning_curves_mark_the_best_epoch() -> None:
    figure = learning_curves(history=HISTORY, best=("val/accuracy", "max"))
    check(figure)
    assert figure.texts[0].get_text() == "Best validation accuracy 60.00% at epoch 2"
    titles = [axes.get_title(loc="left").split(" on ")[0] for axes in figure.axes]
    assert titles == ["Loss", "Accuracy", "Precision, recall and F1", "Learning rate"]
    for axes in figure.axes:
        assert list(axes.lines[-1].get_xdata()) == [2, 2]
    ring = figure.axes[1].lines[-2]
    assert (ring.get_label(), list(ring.get_xdata()), list(ring.get_ydata())) == ("best, epoch 2", [2], [0.6])
    [rate] = figure.axes[-1].lines[:-1]
    assert len(rate.get_xdata()) == 40, "every step, not every epoch"


@pytest.mark.parametrize(
    ("best", "title", "panel"),
    [
        (("val/f1_macro", "max"), "macro F1 50.00% at epoch 3", "Precision, recall and F1"),
        (("val/ece", "min"), "calibration error (ECE) 20.00% at epoch 2", "Calibration error (ECE)"),
        (("val/loss", "min"), "loss 1.5000 at epoch 2", "Loss"),
    ],
)
def test_learning_curves_mark_the_monitored_metric(best, title: str, panel: str) -> None:
    figure = learning_curves(history=HISTORY, best=best)
    check(figure)
    assert figure.texts[0].get_text() == f"Best validation {title}"
    marked = [
        axes.get_title(loc="left")
        for axes in figure.axes
        if any(str(line.get_label()).startswith("best") for line in axes.lines)
    ]
    assert [name.split(" on ")[0] for name in marked] == [panel]


def test_the_legend_says_what_makes_training_values_differ() -> None:
    differ = {
        "image_changes": ["augmented", "mixup", "CutMix"],
        "loss_changes": ["label smoothing 0.1", "distillation"],
    }
    figure = learning_curves(history=HISTORY, **differ)
    check(figure)
    loss, accuracy = (axes.get_legend().get_texts()[0].get_text() for axes in figure.axes[:2])
    assert loss == "train (augmented, mixup, CutMix, label smoothing 0.1, distillation)"
    assert accuracy == "train (augmented, mixup, CutMix)"


def test_the_accuracy_of_guessing_is_a_line_among_accuracies() -> None:
    figure = learning_curves(history=HISTORY, baseline=0.0567)
    check(figure)
    words = {axes.get_title(loc="left"): axes.get_legend_handles_labels()[1] for axes in figure.axes}
    assert [panel for panel, said in words.items() if "always the most frequent class: 5.7%" in said] == ["Accuracy"]


def test_of_equally_good_epochs_the_one_with_the_lowest_loss_is_marked() -> None:
    history = {**HISTORY, "val/loss": ([1, 2, 3], [2.0, 1.6, 1.5])}  # as BestCheckpoint chooses
    assert "at epoch 3" in learning_curves(history=history, best=("val/accuracy", "max")).texts[0].get_text()


def test_learning_curves_do_not_praise_weights_that_are_not_tested() -> None:
    figure = learning_curves(history={**HISTORY, "val/accuracy": ([1, 2, 3], [0.2, 0.6, 0.5])})
    check(figure)
    assert figure.texts[0].get_text() == "Validation accuracy 50.00% at epoch 3, the last"
    assert all(len(line.get_xdata()) > 2 for axes in figure.axes for line in axes.lines), "no epoch is marked"


def test_learning_curves_of_a_pretraining_show_its_probe() -> None:
    history = {"val/loss": ([1, 2], [1.0, 0.9]), "val/knn_accuracy": ([1, 2], [0.1, 0.4])}
    figure = learning_curves(history=history)
    check(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "k-NN accuracy of the features"]
    assert list(figure.axes[1].lines[0].get_ydata()) == [0.1, 0.4]


def test_learning_curves_without_accuracy() -> None:
    figure = learning_curves(history={"val/loss": ([1, 2, 3], [float("nan"), 1.5, 1.6])}, best=("val/loss", "min"))
    check(figure)
    assert figure.texts[0].get_text() == "Best validation loss 1.5000 at epoch 2"
    assert len(figure.axes) == 1


@pytest.mark.parametrize("best", [None, ("val/accuracy", "max")])
def test_learning_curves_without_validation(best) -> None:
    figure = learning_curves(history={name: HISTORY[name] for name in ("train/loss", "lr")}, best=best)
    check(figure)
    assert figure.texts[0].get_text() == "Learning curves"
    assert len(figure.axes) == 2


def test_learning_curves_of_one_epoch() -> None:
    history = {name: ([1], y[:1]) for name, (_, y) in HISTORY.items()}
    figure = learning_curves(history=history, best=("val/accuracy", "max"))
    check(figure)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels() if drawn(text, figure)] == ["1"]
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 1)


@pytest.mark.parametrize(
    "history", [{}, {"lr": ([], [])}, {"train/loss": ([1], [float("inf")])}, {"other": ([1], [1])}]
)
def test_learning_curves_of_nothing(history) -> None:
    with pytest.raises(ValueError, match="no curve"):
        learning_curves(history=history, best=("val/accuracy", "max"))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[2, 2, 1\]"):
        augmented_batch(originals=images(2), images=images(2), labels=["one"])
    with pytest.raises(ValueError, match=r"\[0, 0, 0\]"):
        augmented_batch(originals=images(0), images=images(0), labels=[])


def test_pngs_stay_small(tmp_path: Path) -> None:
    # Noise is the worst case for PNG compression; real images take less space.
    truth = names(20)
    figure = sample_predictions(
        images=images(20), truth=truth, predicted=truth, confidence=[0.5] * 20, right=20, wrong=0
    )
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 400_000


def test_no_pyplot_and_no_torch() -> None:
    probe = "import sys, vitexp.explain.figures; sys.exit(bool({'matplotlib.pyplot', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0

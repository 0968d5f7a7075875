"""The figures of an evaluation: every text lies inside the figure, and they show the given data."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from vitexp.explain.figures import (
    ReliabilityPanel,
    confident_mistakes,
    reliability_diagram,
    robustness_curves,
)

LONG = "End of no passing by vehicles over 3.5 metric tons, $\\frac{a_b$"


def check(figure: Figure) -> str:
    """Check that no text leaves the figure and that it is not blank; return all texts, one per line."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    assert pixels.std() > 5
    height, width = pixels.shape[:2]
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    for text in texts:
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()!r} at {box} of {width}x{height}"
    return "\n".join(text.get_text() for text in texts)


def panel(title: str, *, bins: int = 15) -> ReliabilityPanel:
    counts = np.arange(bins) ** 3
    middles = (np.arange(bins) + 0.5) / bins
    accuracy = np.where(counts > 0, middles**0.5, np.nan)
    return ReliabilityPanel(title=title, accuracy=accuracy, confidence=middles, counts=counts)


@pytest.mark.parametrize("count", [1, 2])
def test_reliability_diagram(count: int) -> None:
    figure = reliability_diagram(
        panels=[panel("As trained: ECE 0.0975"), panel("Temperature 0.682: ECE 0.0092")][:count],
        title="Calibration on 12,630 test images of gtsrb",
    )
    assert "Calibration on 12,630 test images of gtsrb" in check(figure)
    bars = [patch.get_height() for patch in figure.axes[0].patches]
    assert bars == pytest.approx(panel("").accuracy[1:])  # and none for the empty bin
    shares = [patch.get_height() for patch in figure.axes[1].patches]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < figure.axes[1].get_ylim()[1] < 1.2 * max(shares)
    assert all(line.get_xdata()[0] > 1 / 15 for line in figure.axes[0].lines[1:])  # the first bin is empty


def test_a_reliability_diagram_of_one_image() -> None:
    counts = np.eye(15, dtype=int)[14]
    one = np.where(counts > 0, 1.0, np.nan)
    check(
        reliability_diagram(
            panels=[ReliabilityPanel(title="one", accuracy=one, confidence=one, counts=counts)], title="One"
        )
    )


def test_reliability_diagram_refuses_three_panels() -> None:
    with pytest.raises(ValueError, match="one or two panels, not 3"):
        reliability_diagram(panels=[panel("")] * 3, title="")


@pytest.mark.parametrize("size", [16, 32, 224])
def test_robustness_curves(size: int) -> None:
    names = ["dark", "blur", "noise", "occlusion", "jpeg"]
    accuracy = {name: [0.9 - 0.1 * row - 0.02 * at for at in range(5)] for row, name in enumerate(names)}
    examples = np.random.default_rng(0).integers(0, 256, (5, 6, size, size, 3), dtype=np.uint8)
    figure = robustness_curves(clean=0.9876, accuracy=accuracy, examples=examples, images=12_630, of=12_630)
    words = check(figure)
    assert "Accuracy 98.76%, corrupted 66.00% on average" in words and "(all 12,630 test images;" in words
    assert all(name in words for name in names)
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert lines == [[0.9876, *line] for line in accuracy.values()]
    bands = [band.get_paths()[0].vertices for band in figure.axes[0].collections]
    # At severity 5 of the first: 0.82 of 12,630 images.
    ends = sorted({round(y, 4) for x, y in bands[0] if x == 5})
    assert ends == [0.8132, 0.8266]


def test_the_interval_of_few_images_stays_between_0_and_1() -> None:
    examples = np.zeros((1, 2, 8, 8, 3), dtype=np.uint8)
    figure = robustness_curves(clean=1, accuracy={"dark": [0.0]}, examples=examples, images=10, of=12_630)
    [band] = [band.get_paths()[0].vertices for band in figure.axes[0].collections]
    ends = [sorted({round(float(y), 4) for x, y in band if x == at}) for at in (0, 1)]
    assert ends == [[0.7225, 1.0], [0.0, 0.2775]]
    assert "(10 of 12,630 test images;" in check(figure)


def test_robustness_curves_refuse_other_shapes() -> None:
    accuracy, examples = {name: [0.5] for name in "abcde"}, np.zeros((5, 2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="do not fit 4 corruptions"):
        robustness_curves(clean=1, accuracy=dict(list(accuracy.items())[:4]), examples=examples, images=1, of=1)


@pytest.mark.parametrize("count", [1, 7, 20])
def test_confident_mistakes(count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    figure = confident_mistakes(
        images=images,
        truth=[LONG] * count,
        predicted=[f"Yield {index}" for index in range(count)],
        confidence=np.linspace(0.99, 0.5, count).tolist(),
        errors=1234,
        of=12_630,
        medians=(0.9021, 0.6104),
    )
    words = check(figure)
    assert f"{count} of the 1,234 mistakes on 12,630 images" in words
    assert "Median confidence of all correct predictions: 90.2%; of all mistakes: 61.0%." in words
    assert words.count("true: ") == count
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert all(np.array_equal(one, other) for one, other in zip(shown, images, strict=True))
    with pytest.raises(ValueError, match="the same number of everything"):
        confident_mistakes(images=images[:0], truth=[], predicted=[], confidence=[], errors=0, of=1, medians=(0.5, 0.5))

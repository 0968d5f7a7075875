from __future__ import annotations

import pytest

from vitexp.metrics import METRICS, metric
from vitexp.text import cut, duration, file_size, format_value, large_number, markdown_table, percent, plural


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (61.6, "1 min 02 s"),
        (3599.6, "1 h 00 min"),
        (7650, "2 h 07 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (9.9999, "10.000"), (12.34, "12.3"), (12345.6, "12,346")]
)
def test_format_value(value: float, text: str) -> None:
    assert format_value(value) == text


def test_counts() -> None:
    assert [plural(count, "step") for count in (0, 1, 2, 1000)] == ["0 steps", "1 step", "2 steps", "1,000 steps"]
    numbers = (999, 12345, 2_692_587, 4.188e8, 1.5e10, 3e12)
    assert [large_number(number) for number in numbers] == [
        *("999", "12,345", "2.69 million", "419 million", "15 billion", "3 trillion")
    ]


def test_markdown_table() -> None:
    table = markdown_table(["name", "accuracy"], [["a|b", "97.63%"]], ["left", "right"])
    assert table == "| name | accuracy |\n| --- | ---: |\n| a\\|b | 97.63% |\n"
    [line] = markdown_table(["class"], [["<b> a*b `x` a\\|b"]], ["left"]).splitlines()[2:]
    assert line == "| \\<b\\> a\\*b \\`x\\` a\\\\\\|b |"


def test_metrics() -> None:
    assert METRICS["ece"].format(0.0123) == "1.23%"
    assert METRICS["loss"].format(0.19126) == "0.1913"
    assert METRICS["accuracy"].format(None) == "–"
    assert [name for name, each in METRICS.items() if each.direction == "min"] == ["ece", "loss"]
    assert (metric("own_score").label, metric("own_score").format(0.5)) == ("own score", "0.5000")


@pytest.mark.parametrize(
    ("share", "text"), [(0.97634, "97.63%"), (0.0003, "0.03%"), (0.00006, "0.01%"), (2e-7, "<0.01%"), (0.0, "0.00%")]
)
def test_small_probabilities_are_legible(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(300_123, "300 kB"), (999_499, "999 kB"), (999_600, "1.00 MB"), (119.2e6, "119 MB"), (4.7e9, "4.70 GB")],
)
def test_file_sizes(size: float, text: str) -> None:
    assert file_size(int(size)) == text


def test_texts_are_cut_in_the_middle() -> None:
    assert [cut("abcdefghij", width) for width in (10, 9, 4)] == ["abcdefghij", "abcd…ghij", "ab…j"]

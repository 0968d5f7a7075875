"""Figures of a network that is asked about images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.explain.nets import pvt, swin, trained, vit
from vitexp.explain import figures
from vitexp.explain.drawing import _shares, draw_classes, draw_layers, draw_stages, scored, shown
from vitexp.explain.explainer import Explainer
from vitexp.explain.ranking import RANDOM, Faithfulness


def test_the_true_class_is_among_the_drawn_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(trained(vit(num_classes=9), num_classes=9))
    names = explainer.run.classes
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    order = np.argsort(-explainer.probabilities(images), axis=1, kind="stable")
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figures, "map_grid", lambda **arguments: drawn.update(arguments))
    draw_classes(explainer, shown(explainer, images, [int(order[0, 1]), int(order[1, 8])]))
    second, last = drawn["captions"][0][1], drawn["captions"][1][4]
    assert second.endswith(f"{names[order[0, 1]]}\n(true)")
    assert last.endswith(f"{names[order[1, 8]]}\n(true: choice 9 of {len(names)})")
    assert drawn["columns"][3:] == ["choice 4", "choice 5, or the true class"]
    assert sum("true" in text for row in drawn["captions"] for text in row) == 2


def test_a_map_that_is_not_clearly_better_than_random_order_says_so() -> None:
    random = np.random.default_rng(0)
    curves = {
        name: random.normal(mean, 0.2, (40, 5)).astype(np.float32)
        for name, mean in (("good", 0.8), ("doubtful", 0.52), (RANDOM, 0.5))
    }
    measured = Faithfulness(deletion={name: np.zeros((40, 5), np.float32) for name in curves}, insertion=curves)
    assert scored("good", measured) == f"good {measured.scores['good']:.2f}"
    assert scored("doubtful", measured).endswith(", not clearly better than random order")
    second = list(measured.scores)[1]
    expected = f"mean over 40 images; {RANDOM} {measured.scores[RANDOM]:.2f}. Good is clearly better than {second}."
    assert measured.order == f"Numbers: faithfulness (insertion - deletion), {expected}"
    few = {name: curves[name] for name in ("doubtful", RANDOM)}
    unclear = Faithfulness(deletion={name: np.zeros((40, 5), np.float32) for name in few}, insertion=few)
    assert ". Random order is not clearly better than doubtful." in unclear.order


def test_attention_of_the_stages_leaves_out_blocks_without_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figures, "map_grid", lambda **arguments: drawn.update(arguments) or True)
    sides = {"block 1.1": 8, "block 1.2": 8, "block 2.1": 4}
    for net, expected in ((swin(), sides), (pvt(), {"block 2.1": 2})):
        explainer = Explainer(trained(net))
        assert draw_stages(explainer, shown(explainer, images, [0, 1, 2]))
        assert dict(zip(drawn["columns"], [len(each) for each in drawn["maps"][0]], strict=True)) == expected
        assert [len(row) for row in drawn["maps"]] == [len(expected)] * 3
        assert not np.allclose(drawn["maps"][0][-1], drawn["maps"][1][-1])
        draw_stages(explainer, shown(explainer, images, [0, 1, 2]), overlay=False)
        assert drawn["captions"][2][-1] == f"max {drawn['maps'][2][-1].max():.1f}×"
    explainer = Explainer(trained(vit()))
    draw_layers(explainer, shown(explainer, images, [0, 1, 2]), overlay=False)
    shares = [[float(each.rstrip("%")) / 100 for each in words[4:].split("\nall ")] for words in drawn["captions"][1]]
    expected = [[attention.max(), attention.sum()] for attention in drawn["maps"][1]]
    np.testing.assert_allclose(shares, expected, atol=0.0051)
    assert _shares(explainer, np.full((4, 4), 2e-5)) == "max <0.1%\nall <0.1%"
    assert _shares(explainer, np.array([[0.05, 0.85]])) == "max 85%\nall 90%"
    pooled = Explainer(trained(vit(pool="gap")))
    assert _shares(pooled, np.array([[0.25, 0.75]])) == "max 75%"
    assert draw_stages(explainer, shown(explainer, images, [0, 1, 2])) is None

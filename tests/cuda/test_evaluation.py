"""Evaluation, prediction and explanations on CUDA, rehearsed without a GPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import vitexp
from tests.conftest import composed, result
from tests.cuda.device import NAME, fake_gpu
from tests.cuda.runs import SMALL, of_model, options, slow
from vitexp.bench.step import train_step
from vitexp.evaluate.evaluation import evaluate
from vitexp.evaluate.latency import measure_latency
from vitexp.explain.explainer import Explainer
from vitexp.models.trained_net import TrainedNet
from vitexp.runs import explained
from vitexp.runs.build import build_net
from vitexp.runs.finished import load_run
from vitexp.runs.run import run

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def finished_cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    few = ("trainer=cpu", "trainer.precision=32-true", "callbacks=none", f"log_dir={folder}")
    return run(composed(*SMALL, *of_model("simple_cnn"), *few), overrides=[])


def test_evaluation(finished: Path, tmp_path: Path) -> None:
    with fake_gpu():
        found = evaluate(finished, device="cuda", out=tmp_path, tta=True, corruptions=True, corruption_images=4)
    assert found["environment"]["device"] == NAME
    assert found["metrics"]["accuracy"] == pytest.approx(result(finished)["metrics"]["test"]["accuracy"], abs=0.05)
    assert {"calibration", "test_time_augmentation", "corruptions", "worst_classes"} <= set(found)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_prediction(finished: Path, finished_cnn: Path, kind: str) -> None:
    folder = finished if kind == "vit" else finished_cnn
    expected = vitexp.load(folder).predict(list(IMAGES))
    with fake_gpu():
        found = vitexp.load(folder, device="cuda").predict(list(IMAGES))
    assert isinstance(found, list)
    assert isinstance(expected, list)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.01)


@pytest.mark.parametrize("kind", [slow("vit"), "cnn"])
def test_every_figure_of_explain(
    finished: Path, finished_cnn: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished if kind == "vit" else finished_cnn
    monkeypatch.setattr(explained, "load_run", partial(load_run, device="cuda"))
    with fake_gpu():
        explained.explain_run(folder, images=4, shown=2, embedded=20)
    drawn = {path.stem for path in (folder / "figures" / "explain").glob("*.png")}
    assert {"faithfulness", "explanations", "embedding_pca"} <= drawn


@pytest.mark.parametrize("model", options("model"))
def test_explanations_equal_those_of_the_cpu(model: str) -> None:
    """In float32, for networks with random weights."""
    config = composed(*SMALL, *of_model(model))
    torch.manual_seed(0)
    net = build_net(config, num_classes=4).eval()
    trained = TrainedNet(net=net, classes=list("abcd"), image_size=16, mean=torch.zeros(3), std=torch.ones(3))
    explainer = Explainer(trained)
    expected = {method: explainer.maps(method, IMAGES, [0, 1, 2]) for method in explainer.methods}
    with fake_gpu():
        net.to("cuda")
        explainer = Explainer(trained)
        for method in explainer.methods:
            np.testing.assert_allclose(explainer.maps(method, IMAGES, [0, 1, 2]), expected[method], atol=1e-4)


def test_latency_is_timed_with_an_idle_device(finished: Path) -> None:
    with fake_gpu() as gpu:
        rows = measure_latency(load_run(finished, device="cuda"), batch_sizes=(1, 2), repeats=1)
    assert [row.batch_size for row in rows] == [1, 2]
    assert len(gpu.synchronized) == 4  # before and after each turn


def test_benchmark_trains_on_channels_last_images() -> None:
    config = composed(*SMALL, *of_model("simple_cnn"))
    seen = []
    with fake_gpu() as gpu:
        step = train_step(config, build_net(config, num_classes=43))
        step.net.register_forward_pre_hook(lambda net, images: seen.extend(images))
        step.warm_up()
    assert all(images.is_cuda and images.is_contiguous(memory_format=torch.channels_last) for images in seen)
    assert len(seen) == 3
    assert len(gpu.synchronized) == 2  # before the first and after the last step

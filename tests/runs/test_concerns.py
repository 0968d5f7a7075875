"""What a run says about choices that are likely to disappoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import composed
from vitexp.runs.concerns import concerns, fewer_patches, never_predicted, without_images
from vitexp.runs.summary import accuracy_interval, class_names
from vitexp.training.callbacks import Norms

WHOLE = {
    "max_steps": -1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "log_every_n_steps": 50,
    "callbacks": (),
}


def said(*overrides: str, epochs: int, train: int, val: int = 5_000, test: int = 5_000, **trainer: Any) -> str:
    shown: Any = SimpleNamespace(max_epochs=epochs, accumulate_grad_batches=1, **{**WHOLE, **trainer})
    data: Any = SimpleNamespace(train=range(train), val=range(val), test=range(test), batch_size=128)
    return " ".join(concerns(composed(*overrides), shown, data))


def test_few_steps_are_named_with_the_length_that_would_do() -> None:
    assert said("trainer.max_epochs=8", epochs=8, train=198).startswith("8 optimizer steps are few")
    assert "trainer.max_epochs=1500 gives 1,500" in said("trainer.max_epochs=8", epochs=8, train=198)
    assert said("trainer.max_epochs=8", epochs=8, train=35_000) == ""
    assert said(epochs=8, train=198) == "", "chosen by the data set"
    assert said("trainer.max_epochs=8", epochs=8, train=198, limit_train_batches=3) == "", "a test of the set-up"
    assert said("trainer.max_epochs=8", epochs=8, train=198, limit_train_batches=1) == "", "one batch, not all of them"
    assert said("trainer.max_epochs=8", "model.weights=x", epochs=8, train=198) == "", "fine-tuning is short"


def test_norms_that_would_never_be_logged_are_named() -> None:
    norms = {"callbacks": [Norms()]}
    sentence = "the norms are logged every 50 steps, and this run has 49; trainer.log_every_n_steps=1 logs "
    assert sentence in said(epochs=49, train=128, **norms)
    assert sentence in said(epochs=99, train=128, max_steps=49, **norms)
    assert "norms" not in said(epochs=50, train=128, **norms) + said(epochs=49, train=128)


def test_few_measured_images_have_an_uncertainty() -> None:
    assert said(epochs=8, train=9_999, val=22, test=56) == (
        "accuracy on 22 validation and 56 test images is uncertain by up to 21 and 13 points (95%)."
    )
    assert said(epochs=8, train=9_999, val=22, limit_val_batches=0) == "", "they are not measured"
    assert "accuracy on 128 test images" not in said(epochs=8, train=9_999, limit_test_batches=1)
    assert "accuracy on 90 validation images" in said(epochs=8, train=9_999, val=90, limit_val_batches=1)
    assert said("trainer=debug", epochs=2, train=9_999, val=22) == "", "it only tries things out"
    assert said("task=mae", "model=vit_tiny", epochs=8, train=9_999, val=22) == ""


def test_classes_that_are_never_predicted_are_named() -> None:
    probabilities = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.6, 0.3, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0]])
    labels, classes = torch.tensor([0, 1, 2]), ["a", "b", "c", "d"]
    sentence = never_predicted(probabilities, labels, classes, imbalance=1.0)
    assert sentence.startswith("never predicted on the test images: b (1 of 4 classes);"), "d has no test image"
    assert "class_weights" not in sentence
    assert "loss.class_weights=balanced" in never_predicted(probabilities, labels, classes, imbalance=20.0)
    assert never_predicted(probabilities, torch.tensor([0, 0, 2]), classes, imbalance=1.0) == ""


def test_classes_without_test_images_are_named() -> None:
    sentence = without_images(torch.tensor([0, 2, 2]), ["a", "b", "c", "d"])
    assert sentence.startswith("no test images of b and d (2 of 4 classes): macro means skip such a class unless")
    assert without_images(torch.tensor([1, 0]), ["a", "b"]) == ""


def test_the_opening_lines_name_as_many_classes_as_fit() -> None:
    assert class_names(["cat", "dog"]) == "cat and dog"
    many = class_names([f"class {number}" for number in range(1000)])
    assert many.startswith("class 0, class 1, ") and many.endswith(" more") and 60 < len(many) <= 70
    assert len(class_names(["x" * 200, "y" * 200])) <= 70
    assert "\n" not in class_names(["a\nb", "c"])


def test_the_accuracy_has_an_interval() -> None:
    def of(right: int, count: int) -> str:
        return accuracy_interval({"metrics": {"test": {"accuracy": right / count}}, "data": {"test": count}})

    # Brown, Cai and DasGupta 2001: the Wilson interval of 0 of 10 is 0 to 27.8%
    assert of(0, 10) == "95% interval of the test accuracy, from 10 images: 0.0 to 27.8%"
    assert of(38, 56) == "95% interval of the test accuracy, from 56 images: 54.8 to 78.6%"
    assert accuracy_interval({"metrics": {"test": {"loss": 1.0}}, "data": {"test": 9}}) == ""


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (
            ("model=vit_tiny", "data.image_size=200", "model.patch_size=8"),
            "an image has 625 patches, and model.patch_size=25 makes 64",
        ),
        (("data.image_size=192", "model.patch_size=4"), "an image has 2,304 patches, and model.patch_size=32 makes 36"),
        (("data.image_size=200", "model.patch_size=4"), "an image has 2,500 patches, and model.patch_size=8 makes 625"),
        (("data.image_size=200", "model.patch_size=8"), ""),  # a convolutional stem needs a power of two
        (("model=vit_tiny", "data.image_size=202", "model.patch_size=2"), ""),  # 101 would leave 4 patches
        (
            ("model=vit_tiny", "data.image_size=128", "model.patch_size=4", "training.image_sizes=[80,128]"),
            "an image has 1,024 patches, and model.patch_size=16 makes 64",
        ),
        (("model=vit_tiny", "data.image_size=200", "model.patch_size=8", "model.weights=x"), ""),
        (("data.image_size=32",), ""),
        (("model=simple_cnn", "data.image_size=200"), ""),
    ],
)
def test_many_patches(overrides: tuple[str, ...], advice: str) -> None:
    assert fewer_patches(composed(*overrides)).startswith(advice)
    assert bool(fewer_patches(composed(*overrides))) == bool(advice)

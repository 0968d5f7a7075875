"""find-lr and find-batch train for a few steps, and leave no run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, composed
from vitexp.commands import find_batch, find_lr
from vitexp.errors import ConfigError, UserError
from vitexp.runs import rehearsal
from vitexp.runs.rehearsal import HIGHEST, LOWEST, fitting_batches, range_test


def test_the_suggested_rate_is_where_a_known_curve_falls_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_UNSTEADY", 0)
    rates = np.geomspace(LOWEST, HIGHEST, 101)
    falls = 1 / (1 + np.exp(3 * (np.log10(rates) + 3)))  # a step down whose middle is 1e-3
    rises = np.exp(3 * (np.log10(rates) - 0.5))
    assert rehearsal._steepest(rates, falls + rises) == pytest.approx(1e-3, rel=0.15)
    with pytest.raises(UserError, match="the loss does not fall at any learning rate from 1e-05 to 10"):
        rehearsal._steepest(rates, rises)


def test_the_moving_average_of_a_constant_is_that_constant() -> None:
    np.testing.assert_allclose(rehearsal._moving_average(np.full(30, 2.5)), 2.5)


def test_the_rate_rises_by_a_constant_factor_and_the_loss_belongs_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_steepest", lambda rates, smoothed: float(rates[0]))
    found = range_test(composed(*TINY, "trainer.accumulate_grad_batches=2", "optim=sgd"), steps=12)
    assert len(found.rates) == len(found.losses) <= 12
    np.testing.assert_allclose(found.rates, np.geomspace(LOWEST, HIGHEST, 12)[: len(found.rates)])
    assert found.losses[0] == pytest.approx(np.log(43), rel=0.1)  # an untrained network
    assert found.passes == pytest.approx(len(found.losses) / 4)  # 129 images make four whole batches


def test_find_lr_prints_a_line_to_paste_and_leaves_a_figure_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "_steepest", lambda rates, smoothed: 0.00123)
    find_lr.main([*TINY, "steps=20", f"log_dir={tmp_path}", "name=a", "trainer.max_epochs=1"])
    said = capsys.readouterr().out
    assert "optim.lr=0.0012 " in said
    assert "In 20 steps, each training image was seen 5 times" in said
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [Path("a/find-lr.png")]
    assert Image.open(tmp_path / "a" / "find-lr.png").width == 1080


def test_batches_that_fit_are_powers_of_two_up_to_the_training_images() -> None:
    sizes, speeds = zip(*fitting_batches(composed(*TINY, "training.mixup_alpha=0.2")), strict=True)
    assert sizes == (1, 2, 4, 8, 16, 32, 64, 128)  # of 129 training images
    assert min(speeds) > 0


def test_memory_limits_the_batch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def step(trainer: object, module: object, count: int) -> None:
        if count > 20:
            raise MemoryError

    monkeypatch.setattr("vitexp.training.out_of_memory.step", step)
    find_batch.main([*TINY, "trainer.accumulate_grad_batches=2"])
    out = capsys.readouterr().out
    assert "data.batch_size counts all devices and accumulated batches" in out
    assert "data.batch_size=16   the largest" in out  # 16 and an eighth are 18
    monkeypatch.setattr("vitexp.training.out_of_memory.step", lambda *_: step(None, None, 99))
    with pytest.raises(UserError, match="not even 1 image of vit_tiny fits into memory"):
        find_batch.main([*TINY])


@pytest.mark.parametrize("command", [find_lr, find_batch])
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("resume=auto", "resumes no run; remove resume=auto"),
        ("optim.lrr=1", "optim.lr"),
        ("model=nothing", "nothing"),
    ],
)
def test_bad_words_are_refused(command: object, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        command.main([*TINY, word])  # type: ignore[attr-defined]


def test_steps_must_be_a_number() -> None:
    with pytest.raises(ConfigError, match="steps=few must be an integer of 20 or more"):
        find_lr.main([*TINY, "steps=few"])

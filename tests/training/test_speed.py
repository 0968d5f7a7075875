"""Optimizations do not change a run's numbers. (For its speed see python -m vitexp bench.)"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest
import torch

from tests.conftest import result, tiny_run


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def losses(folder: Path) -> list[float]:
    """Return train/loss_step of every step."""
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss_step"]) for row in csv.DictReader(file) if row["train/loss_step"]]


@pytest.mark.slow
def test_resident_data_and_the_data_loader_train_the_same_weights(tmp_path: Path) -> None:
    runs = [tiny_run(tmp_path, f"data.resident={where}", "augment=none") for where in ("device", "memory")]
    assert weights(runs[0]) == weights(runs[1])


def test_only_the_last_batch_reads_scalars_back_between_log_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    item = torch.Tensor.item

    def counted(self: torch.Tensor) -> float:
        reads.append(1)
        return item(self)

    monkeypatch.setattr(torch.Tensor, "item", counted)
    few = ("trainer.limit_val_batches=0", "trainer.enable_checkpointing=false", "callbacks=none", "data.batch_size=8")
    counts = []
    for steps in (4, 12):
        reads.clear()
        tiny_run(tmp_path, f"trainer.max_steps={steps}", "trainer.log_every_n_steps=100", *few)
        counts.append(len(reads))
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_compiled_and_eager_runs_have_the_same_losses_and_two_graphs(tmp_path: Path) -> None:
    torch._dynamo.reset()
    fp32 = ("trainer.precision=32-true", "trainer.log_every_n_steps=1", "trainer.max_epochs=2", "callbacks=none")
    eager = losses(tiny_run(tmp_path, *fp32))
    torch._dynamo.utils.counters.clear()
    run = tiny_run(tmp_path, "trainer.compile=on", *fp32)
    assert losses(run) == pytest.approx(eager, rel=1e-3)
    # One for training, one for evaluation: the smaller last batches of validation and test add no shapes.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert not any("_orig_mod" in name for name in checkpoint["state_dict"])


@pytest.mark.slow
def test_bf16_reaches_the_accuracy_of_fp32_within_the_noise_of_three_seeds(tmp_path: Path) -> None:
    small = (
        *("model=vit_tiny_conv", "model.dim=64", "model.depth=2", "model.num_heads=1", "model.patch_size=8"),
        *("data.train_per_class=120", "data.test_per_class=20", "trainer.max_epochs=6", "augment=none"),
        *("callbacks=none", "optim.lr=2e-3"),
    )
    accuracies = {
        precision: [
            result(tiny_run(tmp_path, *small, f"trainer.precision={precision}", f"seed={seed}"))["metrics"]["test"][
                "accuracy"
            ]
            for seed in range(3)
        ]
        for precision in ("32-true", "bf16-mixed")
    }
    means = [statistics.mean(values) for values in accuracies.values()]
    noise = statistics.mean(statistics.stdev(values) for values in accuracies.values())
    assert min(means) > 0.5, accuracies  # otherwise nothing was learned, and the comparison would be meaningless
    assert abs(means[0] - means[1]) < 0.01 + 2 * noise, accuracies

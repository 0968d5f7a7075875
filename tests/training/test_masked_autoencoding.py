"""Pretraining with train.py: its results, training from its weights, and refused options."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import composed, result, tiny_run
from vitexp.commands import evaluate
from vitexp.config.check import check
from vitexp.errors import ConfigError, UserError
from vitexp.evaluate.evaluation import evaluate as evaluate_run
from vitexp.runs.find import completed_runs
from vitexp.runs.finished import load_run

SIZES = ("model.dim=24", "model.num_heads=3")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(
        tmp_path_factory.mktemp("pretrained"),
        *("task=mae", *SIZES, "task.mask_ratio=0.5", "trainer.max_epochs=3", "optim.lr=0.01"),
        *("schedule.warmup_epochs=0", "callbacks.reconstructions.images=3"),
    )


def test_it_reports_losses_and_no_classifier_metrics(pretrained: Path) -> None:
    told = result(pretrained)
    assert (told["status"], told["name"]) == ("completed", "signs-vit_tiny-mae")
    assert [list(told["metrics"][part]) for part in ("test", "val")] == [["loss"], ["loss"]]
    with (pretrained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {name for name in rows[0] if "accuracy" in name} == {"val/knn_accuracy"}
    probed = [float(row["val/knn_accuracy"]) for row in rows if row["val/knn_accuracy"]]
    assert len(probed) == 3 and all(1 / 43 <= accuracy <= 1 for accuracy in probed)
    losses = [float(row["val/loss"]) for row in rows if row.get("val/loss")]
    assert min(losses) == pytest.approx(told["metrics"]["val"]["loss"])
    assert losses[-1] < losses[0] - 0.02, "completing images is learned"
    log = (pretrained / "train.log").read_text()
    assert "masked autoencoder: 50% of each image is covered, decoder of 2 x 96 channels" in log


def test_its_figures_and_report(pretrained: Path) -> None:
    figures = {path.stem for path in (pretrained / "figures").iterdir()}
    assert figures == {"augmented_batch", "reconstructions", "position_embedding", "curves"}
    page = (pretrained / "report.html").read_text()
    assert "test loss of the pretraining run" in page
    assert f"python train.py data=signs model=vit_tiny model.weights={pretrained}" in page
    assert "vitexp.explain" not in page


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_training_starts_from_all_weights_of_the_encoder(pretrained: Path, tmp_path: Path, pool: str) -> None:
    options = ("callbacks=none", "optim.lr=1e-12", "schedule.min_lr=0", f"model.pool={pool}")
    tuned = tiny_run(tmp_path, *SIZES, f"model.weights={pretrained}", *options)
    told = result(tuned)["model"]["weights"]
    assert told["new"] == ["head"]
    assert told["unused"] == ([] if pool == "cls" else ["cls_token"])
    assert told["taken"] == told["of"] - 2
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tuned))
    assert "head.weight" not in before
    assert (after["blocks.1.attn.qkv.weight"] - before["blocks.1.attn.qkv.weight"]).abs().max() < 1e-6
    finished = load_run(tuned)
    assert finished.classes


@pytest.mark.parametrize("run", ["pretrained", "classifier"])
def test_probes(run: str, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a pretraining run, they are the only measurement; the last validation agrees with its curve."""
    folder = pretrained if run == "pretrained" else tiny_run(tmp_path, "callbacks=none")
    evaluate.main([f"run={folder}", "probe=knn,linear", f"out={tmp_path / 'out'}", "device=cpu"])
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert ("metrics" in found) == (run == "classifier")
    assert "logistic regression" in capsys.readouterr().out
    assert "frozen features" in (tmp_path / "out" / "evaluation.html").read_text()
    for kind in ("knn", "linear"):
        assert 0 <= found["probes"][kind]["val"] <= 1 and 0 <= found["probes"][kind]["test"] <= 1
    if run == "pretrained":
        with (pretrained / "metrics.csv").open() as file:
            [*_, last] = [row["val/knn_accuracy"] for row in csv.DictReader(file) if row["val/knn_accuracy"]]
        assert found["probes"]["knn"]["val"] == pytest.approx(float(last), abs=0.06)  # bf16 there


def test_other_measurements_of_a_pretraining_run_are_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a pretraining run has no classifier; only probe= measures it"):
        evaluate_run(pretrained, probe=["knn"], tta=True, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_probes_are_refused_for_other_data(pretrained: Path) -> None:
    with pytest.raises(ConfigError, match="probe=knn measures the run's own images; remove data= or probe="):
        evaluate_run(pretrained, data=["data=signs", "data.test_per_class=3"], probe=["knn"], device="cpu")


def test_loading_a_pretraining_as_a_classifier_is_refused(pretrained: Path) -> None:
    with pytest.raises(
        UserError, match=r"is a pretraining run, which has no classifier; train a classifier .* model\.weights="
    ):
        load_run(pretrained)
    assert completed_runs(pretrained.parents[1]) == []


@pytest.mark.parametrize("options", [["model.stem=conv"], ["model.stem=shifted", "model.pool=seqpool"], ["optim=muon"]])
def test_it_trains_with_every_stem(tmp_path: Path, options: list[str]) -> None:
    begun = ("model.registers=1", "training.ema_decay=0.5", "trainer.accumulate_grad_batches=2")
    told = result(tiny_run(tmp_path, "task=mae", "callbacks=none", *begun, *options))
    assert 0 < told["metrics"]["test"]["loss"] < 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["model=simple_cnn"], "which simple_cnn cannot leave out; choose a plain ViT"),
        (["model=swin_tiny"], "which swin_tiny cannot leave out; choose a plain ViT"),
        (["model.mlp_conv=true"], "model.mlp_conv=true needs the whole grid"),
        (["training.image_sizes=[16,32]"], "training.image_sizes has no effect"),
        (["loss.label_smoothing=0.2"], "loss.label_smoothing=0.2 has no effect because this task uses no"),
        (["training.mixup_alpha=0.2"], "training.mixup_alpha=0.2 has no effect"),
        (["training.layer_decay=0.5"], "training.layer_decay=0.5 has no effect"),
        (["checkpoint.monitor=val/accuracy", "checkpoint.mode=max"], "is not measured by this task; use val/loss"),
        (["task.mask_ratio=1"], "task.mask_ratio=1 must be a number between 0 and 1, exclusive"),
        (["task.mask_ratio=0.99"], "task.mask_ratio=0.99 hides all of the 16 patches"),
        (["task.mask_ratio=0.01"], "task.mask_ratio=0.01 hides none of the 16 patches"),
        (["task.decoder_dim=30"], "must be an integer of 4 or more, at most 8,192"),
        (["task.decoder_heads=5"], "task.decoder_heads=5 does not divide task.decoder_dim=96; use 1, 2"),
        (["+task.decoder=1"], "there is no key 'task.decoder'"),
    ],
)
def test_options_that_do_not_apply_are_refused(options: list[str], told: str) -> None:
    model = [] if options[0].startswith("model=") else ["model=vit_tiny", "model.patch_size=8"]
    with pytest.raises(ConfigError) as caught:
        check(composed("task=mae", *model, *options))
    assert told in str(caught.value)

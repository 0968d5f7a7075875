"""Whole runs: what they write, and that they are repeatable."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.conftest import CONF, TINY, command, composed, result, tiny_run
from vitexp.metrics import METRICS
from vitexp.models.vit import ViT
from vitexp.runs.build import settle
from vitexp.runs.find import completed_runs
from vitexp.runs.finished import load_run
from vitexp.runs.resume import differences
from vitexp.runs.run import _callbacks
from vitexp.training.best_checkpoint import BestCheckpoint
from vitexp.training.callbacks.pace import Pace
from vitexp.training.masked_autoencoding import MaskedAutoencoding


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with mixing, EMA and every figure, logged to offline W&B, TensorBoard and CSV."""
    return tiny_run(
        tmp_path_factory.mktemp("logs"),
        "logger=default",
        "+logger.tensorboard={_target_: vitexp.training.loggers.tensorboard_logger}",
        "model.registers=1",
        "training.mixup_alpha=0.4",
        "training.cutmix_alpha=1.0",
        "training.ema_decay=0.9",
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
        "callbacks.confusion_matrix.every_n_epochs=1",
    )


FIGURES = {
    *("attention", "augmented_batch", "confusion_matrix", "curves", "position_embedding", "samples"),
    *("embedding", "explanations", "faithfulness"),
}


def test_folder_is_complete(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "config.yaml",
        "result.json",
        "metrics.csv",
        "checkpoints",
        "model.safetensors",
        "figures",
        "report.html",
        "train.log",
    }
    assert {path.stem for path in (finished / "figures").glob("*.png")} == FIGURES
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }


def test_result_has_the_whole_schema(finished: Path) -> None:
    record = result(finished)
    assert list(record) == [
        *(
            "schema",
            "run_id",
            "status",
            "error",
            "name",
            "options",
            "overrides",
            "config_hash",
            "seed",
            "debug",
            "data",
            "model",
            "training",
            "metrics",
        ),
        *("epochs", "steps", "images_seen", "timing", "environment", "started_at", "finished_at"),
    ]
    assert record["schema"] == 1
    assert record["run_id"] == finished.name
    assert record["status"] == "completed"
    assert record["error"] is None
    assert record["name"] == finished.parent.name == "signs-vit_tiny"
    fingerprints = record["data"].pop("fingerprints")
    assert record["data"] == {"name": "signs", "train": 129, "val": 43, "test": 86, "classes": 43, "unread": ""}
    assert set(fingerprints) == {"train", "test"} and fingerprints["train"] != fingerprints["test"]
    assert (record["epochs"], record["steps"], record["images_seen"]) == (2, 8, 256)
    assert record["model"]["parameters"] > 0
    assert record["model"]["flops_per_image"] > 0
    for part in ("test", "val"):
        metrics = record["metrics"][part]
        assert list(metrics) == [
            *("accuracy", "accuracy_top5", "precision_macro", "recall_macro", "f1_macro", "f1_weighted", "ece", "loss")
        ]
        assert all(0 <= value <= 1 for name, value in metrics.items() if name != "loss")
        assert metrics["accuracy"] <= metrics["accuracy_top5"]
    assert set(record["timing"]) == {"total_s", "fit_s", "train_images_per_s", "time_to_first_step_s", "first_step_s"}
    assert set(record["environment"]) == {
        *("git_commit", "git_dirty", "python", "torch", "lightning", "device", "device_count", "hostname")
    }


def test_test_accuracy_is_exact(finished: Path) -> None:
    """The accuracy in result.json equals that of the saved weights, computed here on all 86 images."""
    from omegaconf import OmegaConf

    from vitexp.runs.build import build_datamodule, build_net

    config = OmegaConf.load(finished / "config.yaml")
    datamodule, _ = build_datamodule(config)  # type: ignore[arg-type]
    datamodule.setup()
    net = build_net(config, num_classes=43)  # type: ignore[arg-type]
    with safe_open(finished / "model.safetensors", "pt") as file:
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
        header = json.loads(file.metadata()["vitexp"])
    images = torch.from_numpy(datamodule.test.stored).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(header[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=_autocast(finished)):
        right = net.eval()((images - mean) / std).argmax(dim=1) == torch.from_numpy(datamodule.test.labels)
    assert result(finished)["metrics"]["test"]["accuracy"] == pytest.approx(right.float().mean().item(), abs=1e-6)
    assert header["classes"] == datamodule.classes
    assert header["model"]["name"] == "vit_tiny"


@pytest.mark.parametrize("monitor", ["val/accuracy", "null"])
def test_chosen_or_last_weights_are_tested(tmp_path: Path, monitor: str) -> None:
    hopeless = ("schedule=constant", "schedule.warmup_epochs=0", "optim.lr=2", "trainer.max_epochs=3")
    run = tiny_run(tmp_path, "callbacks=none", *hopeless, f"checkpoint.monitor={monitor}")
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    measured = [(float(row["val/accuracy"]), -float(row["val/loss"])) for row in rows]
    epoch = measured.index(max(measured)) if monitor != "null" else 2
    assert result(run)["metrics"]["val"]["loss"] == pytest.approx(-measured[epoch][1])
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["net.norm.weight"]
    with safe_open(run / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("norm.weight"), last) == (epoch == 2)
    chosen = f"after epoch {epoch + 1}, chosen by checkpoint.monitor"
    assert (chosen in (run / "train.log").read_text()) == (epoch < 2)


def _autocast(folder: Path) -> bool:
    return "bf16-mixed" in (folder / "train.log").read_text()


def test_checkpoints_hold_plain_data_only(finished: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(finished / "checkpoints" / name, weights_only=True)
        assert "net.cls_token" in checkpoint["state_dict"]
        # to resume, the raw weights are needed in addition to the averaged ones
        to_resume = {"current_model_state", "optimizer_states"} & set(checkpoint)
        assert len(to_resume) == (0 if name == "best.ckpt" else 2)


def test_metrics_csv_has_every_scalar(finished: Path) -> None:
    with (finished / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {name for row in rows for name, value in row.items() if value}
    assert logged >= {
        "train/loss_step",
        "train/loss_epoch",
        "train/accuracy",
        "val/accuracy",
        "val/loss",
        "test/f1_macro",
    }
    assert any(name.startswith("lr") for name in logged)
    assert sum(bool(row["train/loss_step"]) for row in rows) == 8


def test_learning_curves_have_every_epoch(finished: Path) -> None:
    """Each scalar is shown at its epoch, including scalars that are only known after it."""
    checkpoint = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    history = checkpoint["callbacks"]["LearningCurves"]["history"]
    assert set(history) == {"train/loss", "train/accuracy", "lr", *(f"val/{name}" for name in METRICS)}
    epochs, rates = history.pop("lr")
    assert epochs == pytest.approx(np.arange(8) / 4) and len(rates) == 8, "every step"
    with (finished / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/accuracy"]]
    for epochs, values in history.values():
        assert epochs == [1, 2][: len(epochs)]
        assert len(values) == len(epochs)
    logged = [float(row["train/accuracy"]) for row in rows]
    assert history["train/accuracy"][1] == pytest.approx(logged[: len(history["train/accuracy"][1])])


def test_wandb_file_holds_scalars_images_matrix_config_and_summary(finished: Path) -> None:
    [folder] = (finished / "wandb").glob("offline-run-*")
    assert folder.name.endswith(finished.name)  # both ids are the same
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    records = [json.loads(line) for line in listed.splitlines()]
    text = json.dumps([record for record in records if record["type"] in ("history", "summary")])
    figures = [f"figures/{name}" for name in ("confusion_matrix_interactive", *FIGURES)]
    model = ("model/parameters", "model/flops_per_image", "train/images_per_s", "best/epoch")
    for name in ("train/loss_step", "val/accuracy", "test/accuracy", *figures, *model):
        assert f'"{name}' in text, name
    run = next(record["run"] for record in records if record["type"] == "run")
    assert run["run_id"] == finished.name
    assert (run["display_name"], run["job_type"]) == (f"{finished.parent.name}, seed 0", "train")
    assert run["tags"] == ["signs", "vit_tiny", "adamw"]
    assert "weight_decay" in listed
    [ended] = [record for record in records if record["type"] == "exit"]
    assert ended["exit"].get("exit_code", 0) == 0
    pictures = {path.name.split("_")[0] for path in (folder / "files" / "media" / "images" / "figures").iterdir()}
    assert pictures == {name.split("_")[0] for name in FIGURES}


def test_wandb_has_a_table_of_test_images_mistakes_first(finished: Path) -> None:
    [folder] = (finished / "wandb").glob("offline-run-*")
    [path] = (folder / "files" / "media" / "table").glob("test_images*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["image", "truth", "prediction", "confidence", "relevance"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 64
    hits = [row["truth"] == row["prediction"] for row in rows]
    assert hits == sorted(hits)
    with (finished / "predictions.csv").open() as file:
        tested = {(row["true"], row["predicted"], round(float(row["probability"]), 3)) for row in csv.DictReader(file)}
    assert all((row["truth"], row["prediction"], round(row["confidence"], 3)) in tested for row in rows)
    [staged] = (finished / "wandb" / "artifacts").iterdir()
    assert len([path for path in staged.iterdir() if path.read_bytes().startswith(b"\x89PNG")]) == 2 * 64


def test_tensorboard_gets_scalars_and_images(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    assert {"train/loss_step", "val/accuracy", "test/accuracy"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {f"figures/{name}" for name in FIGURES}


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    mixing = ("training.mixup_alpha=0.4", "model.drop_path=0.2", "callbacks=none")
    weights = [(tiny_run(tmp_path, *mixing, f"seed={seed}") / "model.safetensors").read_bytes() for seed in (0, 0, 1)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_figures_do_not_change_the_training(tmp_path: Path) -> None:
    plain = tiny_run(tmp_path, "callbacks=none")
    drawn = tiny_run(tmp_path, "callbacks=default")
    assert (plain / "model.safetensors").read_bytes() == (drawn / "model.safetensors").read_bytes()


def test_gradient_accumulation_sees_the_same_batches(tmp_path: Path) -> None:
    parts = [f"trainer.accumulate_grad_batches={number}" for number in (1, 2)]
    runs = [tiny_run(tmp_path, part, "callbacks=none", "trainer.log_every_n_steps=1") for part in parts]
    record = [result(run) for run in runs]
    assert record[0]["steps"] == record[1]["steps"] == 4
    assert record[0]["images_seen"] == record[1]["images_seen"]
    for run in runs:  # the mean over the images, close to guessing among 43 classes
        with (run / "metrics.csv").open() as file:
            logged = [float(row["train/loss_step"]) for row in csv.DictReader(file) if row["train/loss_step"]]
        assert logged == pytest.approx([3.76] * 4, abs=0.2)


def test_patience_stops_early(tmp_path: Path) -> None:
    slow = ("optim.lr=1e-12", "schedule.min_lr=0", "trainer.max_epochs=6", "training.patience=2", "callbacks=none")
    assert result(tiny_run(tmp_path, *slow))["epochs"] == 3  # nothing improves after the first


@pytest.mark.parametrize("off", ["trainer.enable_checkpointing=false", "trainer.limit_val_batches=0"])
def test_without_checkpoints_or_validation_the_last_weights_are_tested(tmp_path: Path, off: str) -> None:
    record = result(tiny_run(tmp_path, off, "callbacks=none"))
    assert record["status"] == "completed"
    assert record["metrics"]["test"]["accuracy"] is not None
    assert (record["metrics"]["val"]["accuracy"] is None) == ("limit_val" in off)


@pytest.mark.parametrize(
    "model",
    [
        *("vit_tiny", "simple_cnn"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "swin_tiny", "pvt_tiny")),
    ],
)
def test_a_debug_run_of_every_kind_of_model(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures are drawn last, from the few images that a debug run tests. Its record says what it is."""
    overrides = [each for each in TINY if model == "vit_tiny" or not each.startswith("model")]
    from tests.conftest import composed
    from vitexp.runs.run import run

    few = ("callbacks.explanations.images=1", "callbacks.explanations.measured=2", "callbacks.embedding.training=20")
    late = ("callbacks=default", *few, "+callbacks.late._target_=tests.failing.LateFigure")
    run(composed(*overrides, *late, f"model={model}", "trainer=debug", f"log_dir={tmp_path}"))
    printed = capsys.readouterr().out
    assert printed.index("macro F1") < printed.index("figures\n")  # "drawing 7 figures"
    assert "cannot draw" not in printed
    assert not any(words in printed for words in ("never predicted", "is uncertain", "are few")), "as is to be expected"
    [folder] = tmp_path.glob("*/*")
    assert result(folder)["status"] == "completed"
    assert result(folder)["data"]["test"] == 32  # one batch
    assert result(folder)["debug"] is True
    assert not (folder / "metrics.csv").exists()
    assert not (folder / "wandb").exists()
    assert completed_runs(tmp_path) == []
    assert (folder / "figures" / "attention.png").exists() == (model == "vit_tiny")


def test_sample_augmentation_trains(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "augment=albumentations", "data.num_workers=1", "callbacks=none")
    assert result(folder)["status"] == "completed"


@pytest.mark.slow
def test_config_yaml_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    """With the command that config.yaml states, in another folder."""
    script = CONF.parent / "train.py"
    command = [sys.executable, str(script), "--config-dir", str(finished), "--config-name", "config"]
    ended = subprocess.run(
        [*command, f"log_dir={tmp_path}/again"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    [again] = (tmp_path / "again").glob("*/*")
    assert (again / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert result(again)["config_hash"] == result(finished)["config_hash"]
    assert "report" in ended.stdout
    assert str((again / "report.html").relative_to(tmp_path)) in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["again"]  # Hydra wrote no log


@pytest.mark.slow
def test_two_processes_count_every_test_image_once(tmp_path: Path) -> None:
    """43 test images cannot be divided evenly among two processes; padding would count one twice."""
    words = command(tmp_path, "logger=default", "trainer.devices=2", "trainer.strategy=ddp", "data.test_per_class=1")
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    [folder] = tmp_path.glob("*/*")
    record = result(folder)
    assert record["status"] == "completed"
    assert record["data"]["test"] == 43
    assert record["environment"]["device_count"] == 2
    right = record["metrics"]["test"]["accuracy"] * 43
    assert right == pytest.approx(round(right), abs=1e-4)


def test_epochs_without_validation_repeat_no_old_values(tmp_path: Path) -> None:
    often = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "checkpoint.monitor=null")
    folder = tiny_run(tmp_path, *often)
    lines = [line for line in (folder / "train.log").read_text().splitlines() if "train loss" in line]
    assert ["val loss" in line for line in lines] == [False, True, False]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    history = checkpoint["callbacks"]["LearningCurves"]["history"]
    assert (history["val/loss"][0], history["train/loss"][0]) == ([2], [1, 2, 3])
    assert None not in result(folder)["metrics"]["val"].values(), "the last weights are validated before the test"


def test_lengths_that_follow_from_the_data_set(tmp_path: Path) -> None:
    auto = ("data.batch_size=auto", "trainer.max_epochs=auto")
    run = tiny_run(tmp_path, "callbacks=none", *auto, "trainer.max_steps=9")
    assert result(run)["training"] == {"batch_size": 32, "max_epochs": 3}  # of 4 steps
    assert result(run)["steps"] == 9
    assert None not in result(run)["metrics"]["val"].values(), "although no epoch ended after step 9"
    assert load_run(run).batch_size == 32
    log = (run / "train.log").read_text()
    assert "data.batch_size=32, because 129 training images are few" in log
    assert "never predicted on the test images" in log

    def changes(epochs: int) -> list[str]:
        words = [*TINY, *auto, "logger=csv", "callbacks=none", "trainer.max_steps=9", f"trainer.max_epochs={epochs}"]
        return differences(run, composed(*words))

    assert changes(4) == [], "longer"
    assert changes(2) == ["trainer.max_epochs=3, now 2"]


def test_lengths_of_fast_dev_run_are_its_own() -> None:
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(max_epochs=1), world_size=1, accumulate_grad_batches=1)
    data: Any = SimpleNamespace(train=range(129))
    settle(composed("trainer.fast_dev_run=true", "trainer.max_epochs=auto"), trainer, data)
    assert trainer.fit_loop.max_epochs == 1


def test_a_run_whose_time_is_over_before_its_first_optimizer_step_is_tested(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = ("trainer.max_time={seconds: 0.001}", "trainer.accumulate_grad_batches=4", "callbacks=none")
    record = result(tiny_run(tmp_path, "logger=none", *short))
    assert (record["status"], record["steps"]) == ("completed", 0)
    assert record["timing"]["total_s"] >= record["timing"]["fit_s"] > 0
    assert "training ended before its first optimizer step, so the weights are not trained." in "".join(
        capfd.readouterr()
    )


@pytest.mark.parametrize(
    ("words", "is_warned"),
    [
        ((), True),
        (("trainer.max_epochs=3",), False),
        (("trainer.max_steps=9",), False),
        (("trainer.max_time=00:01:00:00",), False),
    ],
)
def test_only_a_length_that_was_not_asked_for_is_called_long(
    words: tuple[str, ...], is_warned: bool, tmp_path: Path
) -> None:
    config = composed("callbacks=none", "trainer.enable_checkpointing=false", *words)
    others, best = cast(Any, None), BestCheckpoint(tmp_path, monitor=None, mode="max")
    callbacks = _callbacks(config, others, best, tmp_path, others, [])
    [pace] = [callback for callback in callbacks if isinstance(callback, Pace)]
    assert pace.warns == is_warned


def test_validation_of_a_run_that_is_resumed_after_its_training() -> None:
    module: Any = MaskedAutoencoding(net=ViT(num_classes=2, image_size=16, dim=16, depth=1, num_heads=2))
    module._trainer = SimpleNamespace(is_global_zero=True, global_step=7)
    module.on_load_checkpoint({"global_step": 7, "val_metrics": {"val/loss": 0.5}, "train_sums": torch.zeros(2)})
    assert module.val_metrics() == {"val/loss": 0.5}
    module._trainer.global_step = 8
    assert module.val_metrics() == {}, "of other weights"

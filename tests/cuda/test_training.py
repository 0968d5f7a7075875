"""Training on CUDA, rehearsed without a GPU: whole runs with every model, optimizer, augmentation and task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import composed, result
from tests.cuda.runs import SMALL, of_model, options, rehearse, slow
from vitexp.runs.run import run
from vitexp.training.out_of_memory import OutOfMemory
from vitexp.training.task import Batch, Task

GROUPS = {group: options(group) for group in ("model", "optim", "augment", "loss", "schedule")}
RUNS = max(map(len, GROUPS.values()))


@pytest.mark.parametrize("number", [slow(0), *range(1, RUNS)])  # the first is a ResNet
def test_every_option_of_every_group(tmp_path: Path, number: int) -> None:
    """Each run takes the next option of every group, so that all occur."""
    chosen = {group: names[number % len(names)] for group, names in GROUPS.items()}
    model = chosen.pop("model")
    if model in ("resnet18", "simple_cnn", "timm") and chosen["optim"] == "muon":  # which needs blocks
        chosen["optim"] = "adamw"
    _, gpu = rehearse(tmp_path, *(f"{group}={name}" for group, name in chosen.items()), model=model)
    assert gpu.steps == 4


MIXING = ("training.mixup_alpha=0.4", "training.cutmix_alpha=1.0")
VARIANTS = {
    "one of every two batches steps": ["trainer.accumulate_grad_batches=2", *MIXING],
    "averaged weights": ["training.ema_decay=0.9", "optim=muon", "data.resident=memory"],
    "drawn image sizes": ["training.image_sizes=[8,16,24]", *MIXING, "model.stem=conv", "model.pool=gap"],
    "decayed learning rates": ["training.layer_decay=0.7", "optim=sgd", "model.drop_path=0.2", "model.dropout=0.1"],
    "float16": ["trainer.precision=16-mixed", "training.ema_decay=0.9", *MIXING],
    "float32": ["trainer.precision=32-true", "optim=muon"],
    "no clipping, balanced classes": ["trainer.gradient_clip_val=null", "loss.class_weights=balanced", *MIXING],
    "balanced binary loss": ["loss=bce", "loss.class_weights=balanced", "loss.label_smoothing=0.1"],
    "balanced focal loss": ["loss=focal", "loss.class_weights=balanced", "data.sampler=balanced"],
    "rand augment": ["augment=natural", "augment.policy=randaugment", "augment.erase_prob=0.5"],
    "auto augment": ["augment=natural", "augment.policy=autoaugment", "augment.crop_border=zeros"],
    "trivial augment": ["augment=natural", "augment.policy=trivialaugment", "augment.crop_padding=0"],
    "signs": ["augment.blur_prob=1", "augment.padding=zeros", "augment.erase_prob=1"],
    "shifted patches": ["model.stem=shifted", "model.lsa=true", "model.registers=2", "model.layer_scale=0.1"],
    "pooled sequence": ["model.stem=conv", "model.pool=seqpool", "model.head=mlp", "model.mlp_conv=true"],
    "fixed positions": ["model.position_embedding=sincos", "model.qk_norm=true", "model.upsample=24"],
    "recomputed activations": ["model.gradient_checkpointing=true", "model.attention_dropout=0.1"],
    "validation within the epoch": ["trainer.val_check_interval=0.5", "training.patience=1", "checkpoint.monitor=auto"],
}


QUICK = ("one of every two batches steps", "averaged weights", "drawn image sizes", "float16", "auto augment")


@pytest.mark.parametrize("variant", [name if name in QUICK else slow(name) for name in VARIANTS])
def test_variant(tmp_path: Path, variant: str) -> None:
    assert rehearse(tmp_path, *VARIANTS[variant])[1].steps > 0


@pytest.mark.parametrize(("kind", "token"), [("hard", False), ("soft", True), slow("hard", True), slow("soft", False)])
def test_distillation(tmp_path: Path, finished: Path, kind: str, token: bool) -> None:
    student = ("model.distillation_token=true", "model.pool=cls") if token else ()
    rehearse(tmp_path, f"training.teacher={finished}", f"training.distillation={kind}", *student, *MIXING)


@pytest.mark.parametrize("normalized", [slow(False), True])
def test_masked_autoencoding(tmp_path: Path, normalized: bool) -> None:
    pictures = ("callbacks.reconstructions.every_n_epochs=1", f"task.normalize_targets={normalized}")
    made, _ = rehearse(tmp_path, "task=mae", *pictures, figures=True)
    assert (made / "figures" / "reconstructions.png").exists()


@pytest.mark.parametrize("model", ["vit_tiny", slow("simple_cnn"), slow("swin_tiny"), slow("pvt_tiny")])
def test_figures(tmp_path: Path, model: str) -> None:
    few = ("callbacks.explanations.images=2", "callbacks.explanations.measured=4", "callbacks.embedding.training=20")
    made, _ = rehearse(tmp_path, *few, model=model, figures=True)
    drawn = {path.stem for path in (made / "figures").glob("*.png")}
    assert drawn >= {"augmented_batch", "explanations", "faithfulness", "embedding", "confusion_matrix", "samples"}
    assert ("attention" in drawn) == (model == "vit_tiny")
    assert "cannot draw" not in (made / "train.log").read_text()


def test_the_device_is_awaited_after_the_first_step_and_after_those_of_an_epoch(tmp_path: Path) -> None:
    _, gpu = rehearse(tmp_path, "trainer.max_epochs=2")
    assert gpu.synchronized == [0, 4, 8]  # steps that have ended; the first one ends after it was timed


def test_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for a batch that fits also runs on the device."""
    step = Task.training_step

    def limited(task: Task, batch: Batch, batch_index: int) -> Tensor:
        if len(batch[0]) > 5:
            raise torch.OutOfMemoryError
        return step(task, batch, batch_index)

    monkeypatch.setattr(Task, "training_step", limited)
    with pytest.raises(OutOfMemory, match=r"the GPU .* \(0 of 17 GB in use\); .* or data\.batch_size=4\.$"):
        rehearse(tmp_path, "training.mixup_alpha=0.4")


def test_numbers_are_those_of_the_cpu(tmp_path: Path) -> None:
    """The rehearsal computes: a run gives the same weights and metrics as without it, up to rounding."""
    same = ("trainer.precision=32-true", "optim=sgd", *MIXING, "training.ema_decay=0.9")
    ours, _ = rehearse(tmp_path / "cuda", *same)
    theirs = run(composed(*SMALL, *of_model("vit_tiny"), "callbacks=none", *same, f"log_dir={tmp_path}", "trainer=cpu"))
    weights, expected = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)
    assert result(ours)["metrics"]["val"]["loss"] == pytest.approx(result(theirs)["metrics"]["val"]["loss"], rel=1e-4)

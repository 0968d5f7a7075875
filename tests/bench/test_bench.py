"""The benchmark: its numbers are complete and consistent. No test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from tests.conftest import CONF, TINY
from vitexp.bench.peers import ImageFiles, equalized, file_loader, peer_nets, write_files
from vitexp.bench.report import Subject
from vitexp.bench.step import TrainStep
from vitexp.commands.bench import bench, check_bench
from vitexp.config.check import check
from vitexp.config.schema import BENCH
from vitexp.errors import ConfigError
from vitexp.runs.build import build_net

ROUNDS = 3


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("bench", list(overrides))


def measured(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run a tiny benchmark and return the content of its JSON file."""
    sizes = (f"repeats={ROUNDS}", "steps=3", "starts=1", f"log_dir={folder}", f"output={folder}/bench/numbers.json")
    typed = [*TINY, *sizes, *overrides]
    config = composed(*typed)
    check(config, own_keys=BENCH)
    check_bench(config)
    bench(config, overrides=typed, model="vit_tiny")
    info: dict[str, Any] = json.loads((folder / "bench" / "numbers.json").read_text())
    assert info["overrides"] == typed
    assert info["environment"]["device"]
    assert info["precision"] in ("32-true", "bf16-mixed")
    assert info["threads"] == torch.get_num_threads()
    assert (info["model"], info["data"], info["batch_size"]) == ("vit_tiny", "signs", 32)
    return info


def rows(subject: dict[str, Any], *, rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """Return the rows by name, after checks that apply to all."""
    for row in subject["rows"]:
        assert len(row["rounds"]) == rounds
        assert min(row["rounds"]) > 0
        assert row["median"] == pytest.approx(np.median(row["rounds"]))
        assert row["quartiles"] == pytest.approx(np.percentile(row["rounds"], [25, 75]))
    return {row["name"]: row for row in subject["rows"]}


def paired(numerator: dict[str, Any], denominator: dict[str, Any]) -> float:
    return float(np.median(np.divide(numerator["rounds"], denominator["rounds"])))


def test_step_with_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = measured(tmp_path, "what=step", "peers=true")
    assert list(info["subjects"]) == ["step"]
    subject = info["subjects"]["step"]
    ours, *peers = (made := rows(subject)).values()
    assert set(made) == {"vitexp", "timm VisionTransformer", "vit-pytorch ViT", "vit-pytorch SimpleViT"}
    assert ours["ratio"] == 1.0
    for row in peers:
        assert row["ratio"] == pytest.approx(paired(ours, row))
        assert row["activation_bytes"] > 0
        assert row["warm_up_s"] > 0
    facts = subject["facts"]
    assert facts["achieved_flops_per_s"] == pytest.approx(facts["flops_per_step"] * ours["median"] / 32)
    assert facts["share_of_matmul_rate"] == pytest.approx(facts["achieved_flops_per_s"] / facts["matmul_flops_per_s"])
    printed = capsys.readouterr().out
    assert "SimpleViT" in printed
    assert "numbers.json" in printed


@pytest.mark.slow
def test_compiled_step_has_a_row_of_its_own(tmp_path: Path) -> None:
    subject = measured(tmp_path, "what=step", "trainer.compile=on", "model.depth=1")["subjects"]["step"]
    eager, compiled = (made := rows(subject)).values()
    assert list(made) == ["vitexp", "vitexp, compiled"]
    assert compiled["ratio"] == 1.0
    assert eager["ratio"] == pytest.approx(paired(compiled, eager))
    assert compiled["warm_up_s"] > eager["warm_up_s"]


def test_loader_with_the_usual_pipeline(tmp_path: Path) -> None:
    subject = measured(tmp_path, "what=loader", "peers=true")["subjects"]["loader"]
    ours, like, theirs = rows(subject).values()
    assert like["ratio"] == 1.0
    assert theirs["ratio"] == pytest.approx(paired(like, theirs))
    assert ours["ratio"] == pytest.approx(paired(like, ours))


def test_train_is_a_whole_run_with_loggers(tmp_path: Path) -> None:
    subject = measured(tmp_path, "what=train")["subjects"]["train"]
    step, fit = rows(subject).values()
    assert step["ratio"] == 1.0
    assert fit["ratio"] == pytest.approx(paired(fit, step))
    assert subject["facts"]["steps_per_epoch"] == 3
    assert subject["facts"]["overhead_per_step_s"] > 0
    assert not (tmp_path / "signs-vit_tiny").exists()  # its runs were elsewhere


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    subject = measured(tmp_path, "what=memory")["subjects"]["memory"]
    computed, training, run = rows(subject, rounds=1).values()
    facts = subject["facts"]
    assert facts["data_bytes"] == 6 * 43 * 32 * 32 * 3  # 4 images per class for training, 2 for the test
    assert facts["model_bytes"] >= facts["gradients_bytes"] > 0
    assert facts["optimizer_bytes"] >= 2 * facts["gradients_bytes"]
    parts = ("data", "model", "gradients", "optimizer", "activations")
    assert computed["median"] == pytest.approx(sum(facts[f"{part}_bytes"] for part in parts) / 2**20)
    assert training["ratio"] == pytest.approx(training["median"] / computed["median"])
    assert run["median"] >= training["median"]


@pytest.mark.slow
def test_start(tmp_path: Path) -> None:
    subject = measured(tmp_path, "what=start")["subjects"]["start"]
    imports, first_step, typo, help_text = rows(subject, rounds=1).values()
    for row in (first_step, typo, help_text):
        assert row["difference_s"] == pytest.approx(row["median"] - imports["median"])
    assert imports["difference_s"] == 0
    # errors and --help do not import torch; a training step does
    assert typo["median"] < min(imports["median"], first_step["median"])  # importing torch takes longer than noise


def test_activations_are_counted_once() -> None:
    """By hand, for a net whose backward pass is known."""
    batch, hidden, pixels = 8, 5, 3 * 4 * 4
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 43))
    step = TrainStep(
        net=net,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3),
        precision="32-true",
        batch_size=batch,
        image_size=4,
        clip=1.0,
        device=torch.device("cpu"),
    )
    before = [parameter.detach().clone() for parameter in net.parameters()]
    floats = pixels + hidden + 43  # the batch; the hidden layer, which ReLU and the next layer share; log softmax
    assert step.activation_bytes() == batch * (4 * floats + 8) + 4  # and the labels, and the sum of their weights
    assert all(map(torch.equal, before, net.parameters()))
    assert step() == batch
    assert not any(map(torch.equal, before, net.parameters()))
    parameters = 4 * sum(parameter.numel() for parameter in net.parameters())
    state = step.state_bytes()
    assert (state["model"], state["gradients"]) == (parameters, parameters)
    assert state["optimizer"] == 2 * parameters + 4 * 4  # two moments, and a count of steps for each of the 4


def test_peers_have_our_shape() -> None:
    config = composed("model.num_heads=6", "model.depth=2")
    nets = {"vitexp": build_net(config, num_classes=43), **peer_nets(config, num_classes=43)}
    images = torch.zeros(2, 3, 32, 32)
    assert {net(images).shape for net in nets.values()} == {(2, 43)}
    sizes = {name: sum(parameter.numel() for parameter in net.parameters()) for name, net in nets.items()}
    assert sizes["timm VisionTransformer"] == sizes["vitexp"]
    # vit-pytorch differs by norms around the patches, biases and position embeddings
    assert all(abs(size / sizes["vitexp"] - 1) < 0.03 for size in sizes.values())


@pytest.mark.parametrize("model", ["swin_tiny", "pvt_tiny"])
def test_networks_with_stages_are_compared_with_timms(model: str) -> None:
    config = composed(f"model={model}", "model.drop_path=0.3")
    mine = build_net(config, num_classes=43)
    [(name, peer)] = peer_nets(config, num_classes=43).items()
    assert name.startswith("timm ")
    assert {key: each.shape for key, each in peer.state_dict().items()} == {
        key: each.shape for key, each in mine.state_dict().items()
    }
    assert max(module.drop_prob for module in peer.modules() if hasattr(module, "drop_prob")) == pytest.approx(0.3)


def test_peers_are_refused_where_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="model=simple_cnn is not one"):
        peer_nets(composed("model=simple_cnn"), num_classes=43)
    monkeypatch.setitem(sys.modules, "vit_pytorch", None)
    with pytest.raises(ConfigError, match="pip install timm vit-pytorch"):
        peer_nets(composed(), num_classes=43)


def test_the_usual_pipeline_reads_what_was_written(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))
    files = write_files([(images[:4], torch.arange(4)), (images[4:], torch.arange(4, 6))], tmp_path, count=5)
    assert [label for _, label in files] == [0, 1, 2, 3, 4]
    for (path, label), image in zip(files, images.numpy(), strict=False):
        assert np.array_equal(np.asarray(Image.open(path)), image), label
    dataset = ImageFiles(files=files, image_size=32, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    [(batch, labels)] = file_loader(dataset, batch_size=5, workers=1, pin_memory=False)
    assert batch.shape == (5, 3, 32, 32)
    assert batch.min() >= -2
    assert batch.max() <= 2
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]


def test_the_usual_pipeline_does_what_data_prepare_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    clahe = albumentations.CLAHE(clip_limit=(2.0, 2.0), tile_grid_size=(4, 4), p=1.0)
    assert np.array_equal(equalized(image), clahe(image=image)["image"])


def test_processes_find_external_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []

    def measure(overrides: list[str], *, starts: int) -> Subject:
        passed.extend(overrides)
        return Subject(title="", unit="s", comparison="ratio", comparison_title="", rows=[])

    monkeypatch.setattr("vitexp.bench.start.measure_start", measure)
    config = composed("what=start", f"output={tmp_path}/numbers.json")
    bench(config, overrides=["what=start", "model=mine", "seed=1"], model="mine", searchpath=["file:///conf"])
    assert passed == ["model=mine", "data.batch_size=256", 'hydra.searchpath=["file:///conf"]', "seed=1"]


@pytest.mark.parametrize(
    "wrong",
    ["what=speed", "repeats=0", "steps=few", "peers=timm", "trainer.devices=2", "model=typo", "data.image_size=0"],
)
def test_a_mistake_is_one_sentence_and_code_2(wrong: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vitexp", "bench", wrong, f"log_dir={tmp_path}"]
    ended = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    [sentence] = ended.stderr.strip().splitlines()
    assert sentence.startswith("vitexp: ")
    assert wrong.partition("=")[2] in sentence
    assert not list(tmp_path.iterdir())

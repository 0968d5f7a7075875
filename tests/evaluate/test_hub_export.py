"""A folder for the Hugging Face Hub: vitexp and timm load it, it names no user, and the card states the record."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

import vitexp
from tests.conftest import result
from tests.evaluate.networks import TINY_PVT, TINY_SWIN, TINY_TIMM, TINY_VIT, images, untrained
from tests.evaluate.test_export import BrightSwin
from vitexp.commands.evaluate import parse
from vitexp.errors import ConfigError, UserError
from vitexp.evaluate.evaluation import evaluate
from vitexp.evaluate.hub_export import export_hub
from vitexp.evaluate.published_record import without_paths
from vitexp.runs.find import newest_run
from vitexp.runs.finished import FinishedRun, load_run

BRIGHT = [*TINY_SWIN, f"model._target_={BrightSwin.__module__}.BrightSwin"]
# Overrides, and whether timm has the network.
NETWORKS: dict[str, tuple[list[str], bool]] = {
    "learned": (TINY_VIT, True),
    "sincos": ([*TINY_VIT, "model.position_embedding=sincos"], True),
    "swin": (TINY_SWIN, True),
    "pvt": (TINY_PVT, True),
    "timm": (TINY_TIMM, True),
    "conv": ([*TINY_VIT, "model.stem=conv"], False),
    "simple_cnn": (["model=simple_cnn"], False),
    "bright": (BRIGHT, False),
}
METRICS = {"accuracy": 0.9, "f1_macro": 0.8, "ece": 0.0312, "loss": 0.5}
RECORD: dict[str, Any] = {
    "schema": 1,
    "run_id": "run",
    "status": "completed",
    "name": "net",
    "overrides": ["data=gtsrb"],
    "seed": 3,
    "data": {"name": "gtsrb", "train": 900, "val": 50, "test": 100, "classes": 43},
    "model": {"name": "net", "parameters": 12345, "flops_per_image": 4_000_000},
    "training": {"batch_size": 32, "max_epochs": 1},
    "metrics": {"test": METRICS, "val": {**METRICS, "accuracy": 0.95}},
    "epochs": 2,
    "steps": 60,
    "timing": {"fit_s": 12.0},
    "environment": {"torch": "2.15.0", "device": "a CPU", "hostname": "box"},
}


def recorded(*overrides: str) -> FinishedRun:
    return replace(untrained("data=gtsrb", *overrides), result=RECORD)


@pytest.mark.parametrize("network", NETWORKS)
def test_vitexp_loads_every_network_and_timm_those_that_it_has(network: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    overrides, in_timm = NETWORKS[network]
    run, folder = recorded(*overrides), tmp_path / "hub"
    found = export_hub(run, folder, images=images(3))
    names = ["README.md", *["config.json"] * in_timm, "config.yaml", "model.safetensors", "result.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert found["in_timm"] == in_timm
    loaded = vitexp.load(folder)
    assert loaded.classes == run.classes and loaded.metrics["test"] == METRICS
    torch.testing.assert_close(loaded.logits(images(5)), run.logits(images(5)), atol=0, rtol=0)
    photo = np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.prepare_image(photo), run.prepare_image(photo))
    card = (folder / "README.md").read_text()
    assert ("timm.create_model" in card) == in_timm != ("timm cannot load these weights: " in card)
    assert f"library_name: {'timm' if in_timm else 'vitexp'}\n" in card
    if in_timm:
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            ours, same = run.net(run.prepared(images(4))), theirs(run.prepared(images(4)))
        torch.testing.assert_close(same, ours, atol=1e-4 * max(1.0, float(ours.abs().max())), rtol=0)


def test_without_timm_the_folder_is_for_vitexp_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    run, folder = recorded(*TINY_VIT), tmp_path / "hub"
    export_hub(run, folder, images=images(2))
    assert (folder / "config.json").exists()
    monkeypatch.setattr("vitexp.evaluate.hub_export.find_spec", lambda name: None)
    assert not export_hub(run, folder, images=images(2))["in_timm"]
    assert not (folder / "config.json").exists()
    torch.testing.assert_close(load_run(folder).logits(images(2)), run.logits(images(2)), atol=0, rtol=0)


def test_the_card_states_the_record(tmp_path: Path) -> None:
    run = recorded(*TINY_VIT, "optim.lr=0.002", "training.mixup_alpha=0.3")
    run.classes[1] = "a|b\n*c*"
    export_hub(run, tmp_path / "hub", images=images(2), repository="me/net")
    card = (tmp_path / "hub" / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["pipeline_tag"] == "image-classification" and "license" not in header
    [measured] = header["model-index"][0]["results"]
    assert measured["dataset"] == {"name": "gtsrb", "type": "gtsrb", "split": "test"}
    assert {each["type"]: each["value"] for each in measured["metrics"]} == {
        "accuracy": 0.9,
        "f1": 0.8,
        "ece": 0.0312,
        "loss": 0.5,
    }
    for words in (
        "0.01 million parameters",
        'snapshot_download("me/net", local_dir="net")',
        "CLAHE(clip_limit=[",
        "| accuracy | 90.00% | 95.00% |",
        "95% interval of the test accuracy, from 100 images: 82.6 to 94.5%",
        "900 training, 50 validation and 100 test images",
        "AdamW(lr=0.002, ",
        "mixup\\_alpha=0.3",
        "| length | 2 epochs, 60 steps |",
        "| seed | 3 |",
        "vitexp train data=gtsrb\n",
        "by 3.1 percentage points on average",
        r"1 'a\|b\\n\*c\*', 2 ",
    ):
        assert words in card, words


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/jane doe/My Photos", "My Photos"),
        ("data.root='/home/jane/My Photos'", "data.root='My Photos'"),
        ("+model.weights=~/runs/a", "+model.weights=a"),
        (r"data.root=C:\Users\jane\photos", "data.root=photos"),
        ("data.root=/Users/jane", "data.root=data"),
        ("~", "data"),
        ("../../jane/photos", "photos"),
        ("hydra.searchpath=[file:///home/jane/conf]", "hydra.searchpath=[conf]"),
        ("12 of 14 tensors from /scratch/jane/model.pth, new", "12 of 14 tensors from model.pth, new"),
        ("https://sid.erda.dk/public/archives", "https://sid.erda.dk/public/archives"),
        ("~callbacks.curves", "~callbacks.curves"),
        ("data/gtsrb", "data/gtsrb"),
        ("model._target_=a.B", "model._target_=a.B"),
    ],
)
def test_paths_are_shortened_to_their_last_part(text: str, left: str) -> None:
    assert without_paths({"key": [text, 1, None]}) == {"key": [left, 1, None]}


def test_no_file_names_a_user_or_a_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "jane"
    monkeypatch.setenv("HOME", str(home))
    run = recorded(*TINY_VIT, f"data.root={home}/photos", f"log_dir={home}/logs", f"data.cache_dir={home}/cache")
    run.config.model.weights = f"{home}/logs/other/run"
    run.config.training.teacher = "/scratch/jane/run"
    run.config.logger = {"wandb": {"_target_": "x", "entity": "jane"}}
    found: dict[str, Any] = {
        "options": ["--config-dir", f"{home}/conf"],
        "overrides": [f"data.root={home}/photos", f"log_dir={home}/logs", "logger.wandb.entity=jane", "seed=1"],
        "data": {**RECORD["data"], "root": f"{home}/photos", "unread": "photos/jane.txt"},
        "model": {**RECORD["model"], "weights": {"from": f"{home}/logs/other/run", "new": []}},
        "environment": {"hostname": "box-of-jane", "torch": "2.15.0"},
    }
    export_hub(replace(run, result={**RECORD, **found}), tmp_path / "hub", images=images(2))
    for path in (tmp_path / "hub").iterdir():
        content = path.read_bytes()
        assert b"jane" not in content and str(tmp_path).encode() not in content, path.name
    config, record = OmegaConf.load(tmp_path / "hub" / "config.yaml"), result(tmp_path / "hub")
    assert config.data.root == config.data.source.root == "photos" and config.data.cache_dir == "~/.cache/vitexp"
    assert record["overrides"] == ["data.root=photos", "seed=1"]
    assert run.config.data.root == f"{home}/photos"  # the run itself is not changed


def test_a_secret_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "s3cr3t-s3cr3t")
    run = replace(recorded(*TINY_VIT), result={**RECORD, "overrides": ["name=s3cr3t-s3cr3t"]})
    with pytest.raises(ConfigError, match="contains the secret in the environment variable SERVICE_TOKEN"):
        export_hub(run, tmp_path / "hub", images=images(2))
    assert not (tmp_path / "hub").exists()


def test_an_export_is_part_of_an_evaluation_and_not_the_newest_run(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "name" / "20261127"  # before "hub" in the alphabet
    shutil.copytree(finished, run)
    found = evaluate(run, export=("hub",))["export"]["hub"]
    assert found["largest_difference"] == 0 and found["images_compared"] > 0
    hub = run / "evaluation" / "hub"
    assert newest_run(tmp_path / "name") == newest_run(tmp_path) == run
    assert json.loads((run / "evaluation" / "evaluation.json").read_text())["export"].keys() == {"hub"}
    assert vitexp.load(hub).metrics == result(run)["metrics"]
    shutil.move(hub, tmp_path / "hub")
    with pytest.raises(UserError, match="would overwrite the run"):
        evaluate(tmp_path / "hub", out=tmp_path, export=("hub",))
    vitexp.load(tmp_path / "hub")


def test_words_of_the_command(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    run = f"run={finished}"
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert parse([run, "export=hub,onnx", "push=me/net"])["push"] == "me/net"
    for words, sentence in (
        (["export=onnx", "push=me/net"], "push=me/net uploads the folder of export=hub; add export=hub"),
        (["export=hub", "push=net"], "push=net must be OWNER/NAME, such as push=my-account/my-model"),
        (["export=hub", "push=me/a--b"], "must be OWNER/NAME"),
        (["export=hub", "push=me/a/b"], "must be OWNER/NAME"),
        (["export=nothing"], "export=nothing must be onnx, timm, hub or several of them, as in export=onnx,timm"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            parse([run, *words])
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="push=me/net needs a token with write access; run `hf auth login`, or set"):
        parse([run, "export=hub", "push=me/net"])

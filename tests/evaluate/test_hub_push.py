"""Uploads to a local server that answers like the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluate.hub_server import HubServer, hub_server
from vitexp.errors import UserError
from vitexp.evaluate.evaluation import evaluate
from vitexp.evaluate.hub_push import FILES, push_folder

pytest.importorskip("huggingface_hub", reason="push needs huggingface_hub")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with hub_server() as server:
        for name, value in (("ENDPOINT", server.url), ("HF_HUB_DISABLE_XET", True), ("HF_HUB_OFFLINE", False)):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like an export of a network that timm does not have."""
    (tmp_path / "hub" / "evaluation").mkdir(parents=True)
    for name in ("README.md", "config.yaml", "model.safetensors", "result.json", "evaluation/predictions.csv"):
        (tmp_path / "hub" / name).write_text(name)
    return tmp_path / "hub"


def test_an_evaluation_pushes_its_export(
    finished: Path, tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(finished, out=tmp_path, export=("hub",), push="me/net")
    assert hub.created[0].get("visibility") == "private" or hub.created[0].get("private")  # by version
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    assert hub.files.keys() <= set(FILES) and b'"me/net"' in hub.files["README.md"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"pushed    {hub.url}/me/net; a new repository is private until")


def test_only_the_export_is_uploaded_and_a_stale_configuration_of_timm_removed(hub: HubServer, folder: Path) -> None:
    hub.files = {"config.json": b"{}", "LICENSE": b"MIT", "README.md": b"old"}
    assert push_folder(folder, "me/net") == f"{hub.url}/me/net"
    assert hub.files.keys() == {"LICENSE", "README.md", "config.yaml", "model.safetensors", "result.json"}
    assert hub.files["README.md"] == b"README.md" and hub.files["model.safetensors"] == b"model.safetensors"


@pytest.mark.parametrize(
    ("status", "said", "sentence"),
    [
        (401, "Invalid credentials", "refused the token; run `hf auth login` again, or correct HF_TOKEN"),
        (403, "Forbidden", "the token has no write access to me"),
        (400, "This name is reserved.", "refused it: .*This name is reserved"),
        (500, "", "cannot upload to http://127.0.0.1:.*500"),
    ],
)
def test_a_refusal_is_one_sentence(hub: HubServer, folder: Path, status: int, said: str, sentence: str) -> None:
    hub.refused = (status, said)
    with pytest.raises(UserError, match=f"^push=me/net: .*{sentence}") as refused:
        push_folder(folder, "me/net")
    assert str(refused.value).endswith(f"the folder is complete, so `hf upload me/net {folder}` uploads it later.")
    assert "\n" not in str(refused.value) and (folder / "README.md").exists()


def test_without_a_network_the_folder_remains(folder: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"push=me/net: cannot upload to http://127\.0\.0\.1:9 \(.*; the folder is"):
        push_folder(folder, "me/net")

"""Published weights: downloaded once, verified by checksum, refused for models without published weights."""

from __future__ import annotations

import hashlib
import io
import socket
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import composed
from tests.data.conftest import FileServer, server  # noqa: F401 - a fixture
from vitexp.data.source import DataError
from vitexp.errors import ConfigError
from vitexp.runs import published as table
from vitexp.runs import weights
from vitexp.runs.published import NORMALIZATIONS, Published
from vitexp.runs.weights import starting_weights

pytest.importorskip("timm")

from tests.models.published import SMALL, of_torchvision


@pytest.fixture
def published(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:  # noqa: F811
    """A configuration that starts from a small torchvision network on a local server."""
    body = io.BytesIO()
    torch.save(of_torchvision().state_dict(), body)
    digits = hashlib.sha256(body.getvalue()).hexdigest()[:8]
    server.files[f"vit-{digits}.pth"] = body.getvalue()
    entry = Published(url=f"{server.url}/vit-{digits}.pth", sha256=digits, normalize="imagenet", num_heads=3)
    for module in (table, weights):
        monkeypatch.setattr(module, "PUBLISHED", {"imagenet1k": {(24, 2, 8): entry}})
    return composed(*SMALL, "model.weights=imagenet1k", f"data.cache_dir={tmp_path}")


def test_weights_are_downloaded_once(server: FileServer, published: DictConfig, tmp_path: Path) -> None:  # noqa: F811
    for _ in range(2):
        started = starting_weights(published, resumed=None)
    assert started is not None
    assert started.normalization == NORMALIZATIONS["imagenet"]
    [name] = server.files
    assert server.requests == [(name, None)]
    assert (tmp_path / "weights" / name).read_bytes() == server.files[name]
    assert name.endswith(f"-{started.sha256[:8]}.pth")


def test_interrupted_download_resumes(server: FileServer, published: DictConfig) -> None:  # noqa: F811
    server.cut = 5000
    with pytest.raises(DataError, match="run the same command to continue"):
        starting_weights(published, resumed=None)
    server.cut = None
    assert starting_weights(published, resumed=None) is not None
    assert server.requests[1][1] == "bytes=5000-"


def test_file_with_another_checksum_is_refused(server: FileServer, published: DictConfig) -> None:  # noqa: F811
    [name] = server.files
    server.files[name] = server.files[name][:-1] + b"!"
    with pytest.raises(DataError, match=r"is not the published file \(sha256 checksum is not [0-9a-f]{8}\)"):
        starting_weights(published, resumed=None)


def test_without_network_the_message_names_the_folder(
    published: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so no other process gets the port
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/vit.pth"
        entry = Published(url=url, sha256="00", normalize="half", num_heads=3)
        monkeypatch.setattr(table, "PUBLISHED", {"imagenet1k": {(24, 2, 8): entry}})
        with pytest.raises(
            DataError, match=rf"cannot download {url}: .*; try again, or put the file into {tmp_path}/weights"
        ):
            starting_weights(published, resumed=None)


def test_unpublished_sizes_are_refused_before_downloading() -> None:
    with pytest.raises(ConfigError, match=r"imagenet21k is published for model\.dim=768 .*model=vit_b16"):
        starting_weights(composed("model.weights=imagenet21k"), resumed=None)


def test_table_agrees_with_torchvision() -> None:
    from torchvision.models import vision_transformer

    for name, entry in zip(("B_16", "B_32", "L_16", "L_32"), table.PUBLISHED["imagenet1k"].items(), strict=True):
        (dim, depth, patch_size), published = entry
        theirs = getattr(vision_transformer, f"ViT_{name}_Weights").IMAGENET1K_V1
        net = getattr(vision_transformer, f"vit_{name.lower()}")
        with torch.device("meta"):
            built = net()
        assert (published.url, published.num_heads) == (theirs.url, built.encoder.layers[0].num_heads)
        assert (dim, depth, patch_size) == (built.hidden_dim, len(built.encoder.layers), built.patch_size)
        transform = theirs.transforms()
        assert (tuple(transform.mean), tuple(transform.std)) == NORMALIZATIONS[published.normalize]

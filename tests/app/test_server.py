"""The start and the end of the app: its port, proxies and signals."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from vitexp.commands import app
from vitexp.errors import ConfigError

gr = pytest.importorskip("gradio", reason="the app needs gradio")
server = import_module("vitexp.app.server")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that runs the command with another `serve`, on a run that is never read."""

    def run_with(serve: Callable[..., None], *words: str) -> None:
        monkeypatch.setattr(app, "opened", lambda *_, **__: None)
        monkeypatch.setattr(server, "serve", serve)
        app.main(["run=.", *words])

    with patch.dict(os.environ):
        yield run_with


def page() -> Any:
    """Return an empty page."""
    with gr.Blocks() as blocks:
        return blocks


def test_a_taken_port_is_refused_before_the_run_is_read(start: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = rf"^port={port} is already in use; choose another, such as port=8080\.$"
        with pytest.raises(ConfigError, match=message):
            start(lambda *_, **__: pytest.fail("started"), f"port={port}")
        with pytest.raises(ConfigError, match=message):  # taken in the meantime
            server._launch(page(), port)


def test_no_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: Any, **__: Any) -> None:
        raise OSError("Cannot find empty port in range: 7860-7959.")

    blocks = page()
    monkeypatch.setattr(blocks, "launch", launch)
    with pytest.raises(ConfigError, match=r"^no free port was found; choose one, such as port=8080\.$"):
        server._launch(blocks, None)


@pytest.mark.parametrize("excepted", ["", "intranet.example"])
def test_the_page_is_not_requested_through_a_proxy(start: Callable[..., None], excepted: str) -> None:
    os.environ.update(http_proxy="http://127.0.0.1:9", NO_PROXY=excepted)
    os.environ.pop("no_proxy", None)
    urls = []

    def serve(*_: Any, **__: Any) -> None:
        blocks = page()
        urls.append(server._launch(blocks, None)[1])
        blocks.close(verbose=False)

    start(serve)
    assert urls
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == f"{excepted},127.0.0.1,localhost".strip(",")


def test_sigterm_during_loading_removes_the_temporary_folder(start: Callable[..., None]) -> None:
    folders = []

    def serve(*_: Any, folder: Path, **__: Any) -> None:
        folders.append(folder)
        assert folder.is_dir()
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("not stopped")

    with pytest.raises(SystemExit):
        start(serve)
    assert not folders[0].exists()

"""A local file server, and a folder that other users can reach."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.serving import serving


@dataclass
class FileServer:
    """A server of `files` on 127.0.0.1 that sends at most `cut` bytes of a body, and resumes downloads if `ranges`."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # more headers of a file

    def publish(self, name: str, body: bytes) -> str:
        """Serve `body` as `name`; return its md5 sum."""
        self.files[name] = body
        return hashlib.md5(body, usedforsecurity=False).hexdigest()

    def publish_zip(self, name: str, files: dict[str, bytes]) -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as bundle:
            for path, content in files.items():
                bundle.writestr(path, content)
        return self.publish(name, buffer.getvalue())


@pytest.fixture
def server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name, asked = self.path.lstrip("/"), self.headers.get("Range")
            state.requests.append((name, asked))
            if name not in state.files:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                for key, value in state.headers.get(name, {}).items():
                    self.send_header(key, value)
                self.end_headers()
                return
            body = state.files[name]
            start = int(re.findall(r"\d+", asked)[0]) if asked and state.ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            for key, value in state.headers.get(name, {}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[start : state.cut])

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as state.url:
        yield state


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)

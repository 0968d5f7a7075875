"""A local server that accepts pushes as the Hugging Face Hub does."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.serving import serving


@dataclass
class HubServer:
    """One repository, me/net, on 127.0.0.1. refused: the status and message with which its creation is refused.

    files: its content. created: the requests that created it.
    """

    url: str = ""
    refused: tuple[int, str] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256

    def answer(self, path: str, body: bytes) -> Any:
        """Return what is sent as JSON; None if there is no such address."""
        if path.startswith("/large/"):
            self.large[path.rpartition("/")[2]] = body
            return {}
        if path.startswith("/api/models/me/net/tree/"):
            return [{"type": "file", "path": name, "oid": "0", "size": len(each)} for name, each in self.files.items()]
        if path.startswith("/api/models/me/net/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{self.url}/me/net/commit/1", "commitOid": "1"}
        sent = json.loads(body or b"{}")
        if path == "/api/repos/create":
            self.created.append(sent)
            return {"url": f"{self.url}/me/net", "name": "me/net"}
        if path.startswith("/api/models/me/net/preupload/"):
            modes = {True: "lfs", False: "regular"}
            return {
                "files": [
                    {
                        "path": each["path"],
                        "uploadMode": modes[each["path"].endswith(".safetensors")],
                        "shouldIgnore": False,
                    }
                    for each in sent["files"]
                ]
            }
        if path == "/me/net.git/info/lfs/objects/batch":
            uploads = [
                {**each, "actions": {"upload": {"href": f"{self.url}/large/{each['oid']}"}}} for each in sent["objects"]
            ]
            return {"transfer": "basic", "objects": uploads}
        return {} if path == "/api/validate-yaml" else None

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.files[value["path"]]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    state = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, sent = 200, state.answer(self.path.partition("?")[0], body)
            if state.refused:
                status, sent = state.refused[0], {"error": state.refused[1]}
            elif sent is None:
                status, sent = 404, {"error": f"no {self.path}"}
            content = json.dumps(sent).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as state.url:
        yield state

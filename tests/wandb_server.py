"""A local W&B server that runs of other processes can use, and that fails on request."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAIL = "/fail/"  # GET /fail/HOW


class WandbServer(ThreadingHTTPServer):
    """A server with the requests of wandb 0.31 for runs, history and files.

    how: ok | refuses (connections) | hangs (reads requests, never answers) | nonsense (answers without content, which
    wandb's service does not survive) | an HTTP status such as 500.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.how = "ok"
        self.rows: list[dict[str, Any]] = []  # history, as received
        self.files: dict[str, int] = {}  # sizes of what was uploaded
        self.artifacts: list[dict[str, Any]] = []  # as requested
        self.views: list[dict[str, Any]] = []  # reports and workspaces
        self.alerts: list[dict[str, Any]] = []
        self.is_complete = False  # the run was reported as finished
        self.failed_requests = 0
        self.connections: set[socket.socket] = set()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a run use this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}

    def fail(self, how: str) -> None:
        """Answer all further requests in the way `how`, those of open connections too."""
        self.how = how
        if how == "refuses":
            self.socket.close()
            for connection in list(self.connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that were killed."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve in a thread while the block runs."""
    server = WandbServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *words: object) -> None:
        pass

    def serve(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.startswith(FAIL):
            self.answer({})
            self.server.fail(path[len(FAIL) :])
        elif self.server.how == "ok":
            self.answer(self.content(path, body))
        else:
            self.server.failed_requests += 1
            self.misbehave(self.server.how)

    do_GET = do_POST = do_PUT = serve  # noqa: N815 - names of the base class

    def misbehave(self, how: str) -> None:
        if how == "refuses":
            self.close_connection = True
        elif how == "hangs":
            self.server.ended.wait()
            self.close_connection = True
        elif how == "nonsense":
            self.answer({"data": {}})
        else:
            self.answer({"error": how}, status=int(how))

    def content(self, path: str, body: bytes) -> Any:
        """Answer as W&B does."""
        if path == "/graphql":
            return self.graphql(json.loads(body))
        if path.endswith("/file_stream"):
            stream = json.loads(body)
            history = stream.get("files", {}).get("wandb-history.jsonl", {"content": []})
            self.server.rows += [json.loads(line) for line in history["content"]]
            self.server.is_complete |= bool(stream.get("complete"))
        elif path.startswith("/upload/"):
            self.server.files[path.removeprefix("/upload/")] = len(body)
        return {}

    def graphql(self, request: dict[str, Any]) -> Any:
        variables = request.get("variables") or {}
        operation = request["query"].split()[1].partition("(")[0]
        if operation == "Viewer":
            viewer = {"id": "viewer", "entity": "someone", "username": "someone", "email": "", "flags": "{}"}
            return {"data": {"viewer": {**viewer, "teams": {"edges": []}}}}
        if operation == "GetDefaultEntity":
            return {"data": {"viewer": {"id": "viewer", "entity": "someone"}}}
        if operation == "GetProjects":
            projects = {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
            return {"data": {"models": projects}}
        if operation.lower() in ("projectinternalid", "getprojectinternalid"):
            return {"data": {"project": {"internalId": "project"}}}
        if operation.lower().startswith("upsertview"):
            self.server.views.append(variables)
            project = {"id": "project", "name": variables["projectName"], "entityName": variables["entityName"]}
            view = {**variables, "id": f"view{len(self.server.views)}", "project": project}
            return {"data": {"upsertView": {"view": view, "inserted": True}}}
        if operation == "UpsertBucket":
            project = {"id": "project", "name": variables["project"], "entity": {"id": "entity", "name": "someone"}}
            names = {"id": "bucket", "name": variables["name"], "displayName": variables["displayName"]}
            bucket = {**names, "config": "{}", "project": project, "historyLineCount": 0}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}}
        if operation == "ArtifactType":
            return {"data": {"project": None}}
        if operation == "NotifyScriptableRunAlert":
            self.server.alerts.append(variables)
            return {"data": {"notifyScriptableRunAlert": {"success": True}}}
        if operation == "CreateArtifact":  # as if it had been uploaded before
            self.server.artifacts.append(variables["input"])
            artifact = {"id": "artifact", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"data": {"createArtifact": {"artifact": artifact}}}
        return {"data": {}}

    def answer(self, content: Any, *, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

"""The web server of the app, for this machine only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitexp.app.layout import STYLE
from vitexp.app.page import Page
from vitexp.app.port import HOST, refuse_taken_port
from vitexp.app.views import Views
from vitexp.errors import ConfigError
from vitexp.runs.explained import load_explainer, note_changed_data

_LARGEST_UPLOAD = "64mb"
# Gradio's page may request fonts or scripts from other hosts; the browser must not fetch them.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)


def serve(run: Path, *, data: Sequence[str] = (), folder: Path, port: int | None) -> None:
    """Serve the page of `run` until Ctrl-C or SIGTERM.

    data: overrides for the location of its data set. folder: where figures are written.
    port: None for the first free port from 7860 on. Raises UserError if the run or its data cannot be loaded,
    ConfigError if no port is free.
    """
    views = Views(load_explainer(run, data), data)
    views.warm_up()
    if views.has_data:
        note_changed_data(views.run)
    blocks = Page(views, folder=folder).build()
    try:
        _, url, _ = _launch(blocks, port)
        print(f"{url} shows {run}; press Ctrl-C to stop.", flush=True)
        while True:
            time.sleep(3600)  # unlike waiting for an event, it can be interrupted on Windows
    except KeyboardInterrupt:
        print()
    finally:
        blocks.close(verbose=False)


def _launch(blocks: gr.Blocks, port: int | None) -> tuple[Any, str, str]:
    """Start the server; return (app, local URL, share URL). Raises ConfigError if the port is taken."""
    try:
        return blocks.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=_LARGEST_UPLOAD,
            ssr_mode=False,
            footer_links=[],
            enable_monitoring=False,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
            app_kwargs={
                "middleware": [
                    # Against DNS rebinding: refuse requests for another site's name that resolves to this address.
                    Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
                    Middleware(_ContentSecurityPolicy),
                ]
            },
        )
    except OSError as error:
        if port is not None:
            refuse_taken_port(port)
        raise ConfigError("no free port was found; choose one, such as port=8080.") from error


class _ContentSecurityPolicy:
    """Middleware that forbids the browser from loading anything from another host."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)

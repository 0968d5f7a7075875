"""The server behind the page: for this machine alone."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitexp.app.layout import STYLE
from vitexp.app.page import Page
from vitexp.app.views import Views
from vitexp.errors import ConfigError
from vitexp.runs.explained import load_explainer

_HERE = "127.0.0.1"
_LARGEST_UPLOAD = "64mb"
# Whatever Gradio's page may ask for, the browser fetches from this server or not at all.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)


def serve(run: Path, *, data: Sequence[str] = (), folder: Path, port: int | None) -> None:
    """Show `run` until Ctrl-C. data: where its data set is, as typed. folder: for figures.

    port: None for the first free one from 7860 on. Raises UserError where the run, or the data that were typed, cannot
    be loaded, ConfigError where the port is taken.
    """
    views = Views(load_explainer(run, data), data)
    views.warm_up()
    blocks = Page(views, folder=folder).build()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        _, url, _ = _launch(blocks, port)
        print(f"{url} shows {run}; Ctrl-C ends it.", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        blocks.close(verbose=False)


def _launch(blocks: gr.Blocks, port: int | None) -> tuple[Any, str, str]:
    try:
        return blocks.launch(
            server_name=_HERE,
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
                    # another host's name for this address is what a page elsewhere would come with
                    Middleware(TrustedHostMiddleware, allowed_hosts=[_HERE, "localhost"]),
                    Middleware(_OnlyFromHere),
                ]
            },
        )
    except OSError as error:
        raise ConfigError(f"port={port or '7860 to 7959'} is taken; give another one, such as port=8080.") from error


class _OnlyFromHere:
    """Tells the browser with every answer where it may load from."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)

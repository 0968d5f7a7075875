"""The port of the app. Imports neither torch nor Gradio."""

from __future__ import annotations

import socket

from vitexp.errors import ConfigError

HOST = "127.0.0.1"


def refuse_taken_port(port: int) -> None:
    """Raise ConfigError if another program uses `port` of this machine."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise ConfigError(f"port={port} is already in use; choose another, such as port=8080.") from error

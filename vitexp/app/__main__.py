"""Step inside a finished run, in the browser.

    python -m vitexp.app [run=FOLDER] [port=NUMBER]

run: the newest finished one under logs/ where it is not given. port: the first free one from 7860 on. The page is
served to this machine alone, at 127.0.0.1, and neither it nor the server talks to any other; Ctrl-C ends it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vitexp.errors import ConfigError, nearest, plain_errors


def main(words: Sequence[str]) -> None:
    if any(word in ("-h", "--help", "help") for word in words):
        print(__doc__)
        return
    run, port = read_arguments(words)
    from vitexp.finished_run import newest_run  # imports torch: only once the arguments stand

    run = run or newest_run()
    with tempfile.TemporaryDirectory(prefix="vitexp-app-") as folder:
        # Before Gradio is imported, which else tells its makers of every start, asks for newer versions, and keeps
        # uploads and figures longer than the server runs.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", GRADIO_TEMP_DIR=folder)
        from vitexp.app.server import serve

        serve(run, folder=Path(folder), port=port)


def read_arguments(words: Sequence[str]) -> tuple[Path | None, int | None]:
    """The folder of the run and the port, None where not given. Raises ConfigError."""
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"cannot read {word!r}: write key=value, such as run=logs/signs-vit_tiny/<run id>.")
        if key not in ("run", "port"):
            raise ConfigError(f"there is no key {key!r}; {nearest(key, ['run', 'port'])}")
        if key in given:
            raise ConfigError(f"{key} is given twice; leave one away.")
        given[key] = value
    folder = Path(given["run"]).expanduser() if "run" in given else None
    if folder and not folder.is_dir():
        raise ConfigError(f"run={folder} is no folder; give that of a finished run, logs/<name>/<run id>.")
    port = given.get("port")
    if port is not None and not (port.isascii() and port.isdigit() and 1024 <= int(port) <= 65535):
        raise ConfigError(f"port={port} must be an integer from 1024 to 65535.")
    return folder, None if port is None else int(port)


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])

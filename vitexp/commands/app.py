"""Step inside a finished run, in the browser.

    python -m vitexp app [run=FOLDER] [port=NUMBER] [data.root=PATH] [data.download=true]

run: the newest finished one under logs/ where it is not given; run=pretrained is a net for GTSRB that comes along.
port: the first free one from 7860 on. data.root: where the data set of the run lies now. The page is served to this
machine alone, at 127.0.0.1, and neither it nor the server talks to any other; Ctrl-C ends it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vitexp.commands.explain_arguments import of_the_data
from vitexp.config.plain_errors import plain_errors
from vitexp.errors import ConfigError, nearest
from vitexp.runs.shipped import run_folder


def main(words: Sequence[str]) -> None:
    if any(word in ("-h", "--help", "help") for word in words):
        print(__doc__)
        return
    data, own = of_the_data(words)
    run, port = read_arguments(own)
    from vitexp.runs.finished import newest_run  # imports torch: only once the arguments stand

    run = run or newest_run()
    with tempfile.TemporaryDirectory(prefix="vitexp-app-") as folder:
        # Before Gradio is imported, which else tells its makers of every start, asks for newer versions, and keeps
        # uploads and figures longer than the server runs.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", GRADIO_TEMP_DIR=folder)
        from vitexp.app.server import serve

        serve(run, data=data, folder=Path(folder), port=port)


def read_arguments(words: Sequence[str]) -> tuple[Path | None, int | None]:
    """The folder of the run and the port, None where not given. Raises ConfigError."""
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"cannot read {word!r}: write key=value, such as run=logs/signs-vit_tiny/<run id>.")
        if key not in ("run", "port"):
            raise ConfigError(f"there is no key {key!r}; {nearest(key, ['run', 'port', 'data.root'])}")
        if key in given:
            raise ConfigError(f"{key} is given twice; leave one away.")
        given[key] = value
    port = given.get("port")
    if port is not None and not (port.isascii() and port.isdigit() and 1024 <= int(port) <= 65535):
        raise ConfigError(f"port={port} must be an integer from 1024 to 65535.")
    return run_folder(given["run"]) if "run" in given else None, None if port is None else int(port)


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])

"""Explore a finished run in the browser.

    vitexp app [run=RUN] [port=NUMBER] [data.root=PATH] [data.download=true]

run             folder of a finished run, or pretrained, the bundled GTSRB network (default: the newest finished run)
port            default: the first free port from 7860 on
data.root       where the data set of the run is now
data.download   true downloads it if it is missing

The page is served to this machine only, at 127.0.0.1; neither the page nor the server contacts any other host. Ctrl-C
stops it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vitexp.commands.words import help_requested, read_words, split_data_location, whole_number
from vitexp.config.plain_errors import plain_errors
from vitexp.errors import require
from vitexp.runs.find import requested_run


def main(words: Sequence[str]) -> None:
    if help_requested(words, __doc__):
        return
    data, words = split_data_location(words)
    given, port = read_arguments(words)
    require("gradio", needed_by="the app")
    run = requested_run(given.get("run"))
    print(f"run  {run}")
    with tempfile.TemporaryDirectory(prefix="vitexp-app-") as folder:
        # Before Gradio is imported, which otherwise reports every start to its makers, looks for newer versions, and
        # keeps uploads and figures longer than the server runs.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", GRADIO_TEMP_DIR=folder)
        from vitexp.app.server import serve

        serve(run, data=data, folder=Path(folder), port=port)


def read_arguments(words: Sequence[str]) -> tuple[dict[str, str], int | None]:
    """Return the given values and the port, None if it is not given. Raises ConfigError."""
    given, _ = read_words(words, keys=("run", "port"))
    return given, whole_number("port", given["port"], least=1024, most=65535) if "port" in given else None


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])

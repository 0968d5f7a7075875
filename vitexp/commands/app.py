"""Explore a finished run in the browser.

    vitexp app [run=RUN] [port=NUMBER] [data.root=PATH] [data.download=true]

run             a finished run: its folder, or NAME/RUN_ID as `vitexp runs` lists it; or "pretrained": the bundled GTSRB
                network (default: the newest in logs/)
port            port of the page (default: the first free one, starting at 7860)
data.root       folder of the run's data set, if it has moved (data.path with data=huggingface)
data.download   true downloads the data set if it is missing

The page is served to this machine only, at 127.0.0.1; neither the page nor the server contacts any other host. Ctrl-C
or SIGTERM stops it.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vitexp.app.port import refuse_taken_port
from vitexp.commands.words import opened, read_words, run_command
from vitexp.config.compose import plain_of
from vitexp.errors import require
from vitexp.runs.data_config import data_config
from vitexp.runs.find import requested_run
from vitexp.runs.inputs import refuse_unusable_data


def main(words: Sequence[str]) -> None:
    run, port, data = parse(words)
    require("gradio", needed_by="the app")
    if port is not None:
        refuse_taken_port(port)
    files = opened(run, width=5)
    if data:  # without it, the app also opens a run whose data are missing
        refuse_unusable_data(plain_of(data_config(files.config, data, image_size=files.image_size))["data"]["source"])
    with _exits_at_sigterm(), tempfile.TemporaryDirectory(prefix="vitexp-app-") as folder:
        # Gradio reads these when it is imported: no telemetry, no version check, uploads deleted with this folder.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", GRADIO_TEMP_DIR=folder)
        # Gradio also requests its own page, which a proxy would not reach.
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        direct = f"{direct},127.0.0.1,localhost" if direct else "127.0.0.1,localhost"
        os.environ.update(no_proxy=direct, NO_PROXY=direct)
        from vitexp.app.server import serve

        serve(run, data=data, folder=Path(folder), port=port)


@contextmanager
def _exits_at_sigterm() -> Iterator[None]:
    """Raise SystemExit at SIGTERM, so that the temporary folder is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(words: Sequence[str]) -> tuple[Path, int | None, tuple[str, ...]]:
    """Return the folder of the run, the port (None: any) and the location of its data. Raises ConfigError."""
    given = read_words(words, keys=("run", "port"), data=("data.root", "data.path", "data.download"))
    port = given.integer("port", 0, least=1024, most=65535) or None
    return requested_run(given.get("run")), port, given.data


if __name__ == "__main__":
    run_command(main, __doc__)

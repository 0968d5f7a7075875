"""Predict the classes of a folder of images, which need no labels.

    vitexp predict images=FOLDER [run=RUN] [out=FILE] [device=auto]

images     folder of the images, at any depth and of any size; they are prepared exactly as the run prepared its own
run        folder of a finished run, or pretrained, the bundled GTSRB network (default: the newest finished run)
out        CSV file to write: file, class, probability and the classes of ranks 2 to 5 (default: predictions.csv)
device     auto | cpu | gpu | mps
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitexp.commands.words import help_requested, read_words
from vitexp.config.plain_errors import plain_errors
from vitexp.errors import ConfigError
from vitexp.runs.find import requested_run


def main(words: Sequence[str]) -> None:
    if help_requested(words, __doc__):
        return
    given, _ = read_words(words, keys=("run", "images", "out", "device"))
    if "images" not in given:
        raise ConfigError("images=FOLDER is missing: the folder of the images to predict.")
    folder, out = Path(given["images"]).expanduser(), Path(given.get("out", "predictions.csv")).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"images={folder} is not a folder.")
    path = requested_run(given.get("run"))
    # Imports torch: only once the words are valid.
    from vitexp.runs.finished import load_run
    from vitexp.runs.predictions import predict_folder
    from vitexp.system.hardware import choose_device

    run = load_run(path, device=choose_device(given.get("device", "auto")))
    print(f"run          {run.folder}")
    count, broken = predict_folder(run, folder, out)
    print(f"predictions  {count} images: {out}")
    for path in broken:
        print(f"skipped      {path} cannot be decoded")


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])

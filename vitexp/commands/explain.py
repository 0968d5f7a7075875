"""Draw every explanation of a finished run, and measure how faithful each is.

    vitexp explain [run=RUN] [run2=RUN] [image=FILE] [key=value ...]

run             a finished run: its folder, or NAME/RUN_ID as `vitexp runs` lists it; or "pretrained": the bundled GTSRB
                network (default: the newest in logs/)
run2            another run with the same classes, to compare
image           one image file instead of test images
images          test images for the faithfulness table and curves (default: 100)
shown           test images in the figures (default: 5)
embedded        training images in the embedding maps (default: 2000)
layer, head     attention to draw, counted from 1 (default: the last layer, the mean of all heads)
class           name or number of the class to explain (default: the predicted one)
data.root       folder of the run's data set, if it has moved (data.path with data=huggingface)
data.download   true downloads the data set if it is missing

Writes figures into RUN/figures/explain/; for an image, into RUN/figures/explain/<its name>/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitexp.commands.words import opened, read_words, run_command
from vitexp.config.compose import plain_of
from vitexp.data.imagefile import read_image
from vitexp.errors import ConfigError
from vitexp.runs.data_config import data_config
from vitexp.runs.find import read_finished, requested_run
from vitexp.runs.inputs import refuse_unusable_data

_KEYS = ("run", "run2", "image", "images", "shown", "embedded", "layer", "head", "class")


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    run = opened(arguments["folder"], width=5)
    if arguments["other"]:
        read_finished(arguments["other"])
    if not arguments["image"]:
        data = data_config(run.config, arguments["data"], image_size=run.image_size)
        refuse_unusable_data(plain_of(data)["data"]["source"])
    from vitexp.runs.explained import explain_run  # imports torch, so only once the command line is valid

    explain_run(**arguments)


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of vitexp.runs.explained.explain_run. Raises ConfigError for the first invalid word."""
    given = read_words(words, keys=_KEYS, data=("data.root", "data.path", "data.download"))
    image = Path(given.get("image")).expanduser() if given.get("image") else None
    if image and not image.is_file():
        raise ConfigError(f"image={image} is not a file.")
    if image and given.get("run2"):
        raise ConfigError("run2 compares two runs on test images; remove image=.")
    if image:
        read_image(image)  # an error is reported before torch is imported
    return {
        "image": image,
        "data": given.data,
        "images": given.integer("images", 100, least=2),
        "shown": given.integer("shown", 5, least=1),
        "embedded": given.integer("embedded", 2000, least=3),
        "layer": given.integer("layer", 0, least=1),
        "head": given.integer("head", 0, least=1),
        "label": given.get("class"),
        "other": requested_run(given.get("run2")) if given.get("run2") else None,
        "folder": requested_run(given.get("run")),
    }


if __name__ == "__main__":
    run_command(main, __doc__)

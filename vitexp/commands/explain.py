"""Draw every explanation of a finished run, as figures and as a table of their faithfulness.

    vitexp explain [run=RUN] [run2=RUN] [image=FILE] [key=value ...]

run             folder of a finished run, or pretrained, the bundled GTSRB network (default: the newest finished run)
run2            another run with the same classes, to compare
image           one picture instead of test images
images          test images for the faithfulness table and curves (100)
shown           test images in the figures (5)
embedded        training images for the maps of embeddings (2000)
layer, head     whose attention to show, from 1
class           name or number of the class to explain (default: the predicted one)
data.root       where the data set of the run is now; data.download=true downloads it if it is missing

Writes into RUN/figures/explain/, or for a picture into RUN/figures/explain/<its name>/.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from vitexp.commands.words import help_requested, read_words, split_data_location, whole_number
from vitexp.config.plain_errors import plain_errors
from vitexp.errors import ConfigError, UserError
from vitexp.runs.find import run_folder

if TYPE_CHECKING:
    from vitexp.explain.explainer import Explainer, Images
    from vitexp.runs.finished import FinishedRun


_NUMBERS = {"images": (2, 100), "shown": (1, 5), "embedded": (3, 2000), "layer": (1, 0), "head": (1, 0)}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The values of the command's keys; layer and head are 0 and label is "" if they are not given."""

    run: Path | None = None
    run2: Path | None = None
    image: Path | None = None
    label: str = ""
    data: tuple[str, ...] = ()
    images: int = 100
    shown: int = 5
    embedded: int = 2000
    layer: int = 0
    head: int = 0


def main(words: Sequence[str]) -> None:
    if not help_requested(words, __doc__):
        explain(read_arguments(words))


def read_arguments(words: Sequence[str]) -> Arguments:
    """Return what the words of a command line give. Raises ConfigError for the first that is wrong."""
    data, words = split_data_location(words)
    given, _ = read_words(words, keys=("run", "run2", "image", "class", *_NUMBERS))
    if "image" in given and not Path(given["image"]).expanduser().is_file():
        raise ConfigError(f"image={given['image']} is not a file.")
    if "run2" in given and "image" in given:
        raise ConfigError("run2 compares two runs on test images; remove image.")
    return Arguments(
        run=run_folder(given["run"]) if "run" in given else None,
        run2=run_folder(given["run2"]) if "run2" in given else None,
        image=Path(given["image"]).expanduser() if "image" in given else None,
        label=given.get("class", ""),
        data=data,
        **{
            key: whole_number(key, given[key], least=least) if key in given else default
            for key, (least, default) in _NUMBERS.items()
        },
    )


def explain(arguments: Arguments) -> None:
    """Draw, write and print what is asked for. Raises UserError."""
    # Imports torch: only once the words are valid.
    from vitexp.evaluate import two_runs
    from vitexp.explain import drawing
    from vitexp.explain.methods.embedding import available_methods
    from vitexp.explain.pick import drawn_at_random, right_and_wrong
    from vitexp.runs.explained import load_explainer
    from vitexp.runs.find import newest_run
    from vitexp.runs.finished import read_prepared

    explainer = load_explainer(arguments.run or newest_run(), arguments.data)
    run, vit = explainer.run, explainer.vit
    other = load_explainer(arguments.run2, arguments.data, beside=explainer) if arguments.run2 else None
    if other:
        two_runs.check_same_test((explainer, other))
    layers, heads = (vit.depth, vit.num_heads) if vit else (0, 0)
    layer, head = within("layer", arguments.layer, layers), within("head", arguments.head, heads)
    label = find_class(arguments.label, run.classes) if arguments.label else None
    folder = run.folder / "figures" / "explain"

    if arguments.image:
        folder, chosen = folder / arguments.image.stem, np.zeros(0, np.int64)
        about = drawing.shown(explainer, read_prepared(run, arguments.image), [None], explained=label)
    else:
        chosen = right_and_wrong(explainer, run.data.test, count=arguments.shown)
        truth = run.data.test.labels[chosen].tolist()
        about = drawing.shown(explainer, run.data.test.images(chosen), truth, explained=label)
    _write(folder, drawing.draw_images(explainer, about, layer=-1 if layer is None else layer, head=head))

    try:
        train, test = run.data.train, run.data.test
    except UserError as error:
        print(f"without heads and neighbours, which need the data set: {error}")  # of a picture of one's own
        return
    sample = drawn_at_random(len(test), arguments.images)
    _write(folder, drawing.draw_heads(explainer, test.images(sample)))
    among = drawing.embed(explainer, train, sample=arguments.embedded)
    for method in available_methods():
        _write(folder, [(f"embedding_{method}", drawing.draw_embedding(explainer, about, among, method=method))])
    if other:
        _write(folder, [("confusions", two_runs.draw_confusions((explainer, other)))])
        others = drawing.shown(other, other.run.data.test.images(chosen), about.truth, explained=label)
        _write(folder, [("comparison", two_runs.draw_side_by_side((explainer, other), (about, others)))])
    if not arguments.image:  # last, because it takes longest
        print(f"covering and uncovering {len(sample):,} test images cell by cell …", flush=True)
        _write_faithfulness(explainer, test.images(sample), folder)


def _write_faithfulness(explainer: Explainer[FinishedRun], images: Images, folder: Path) -> None:
    from vitexp.explain.figures import faithfulness_curves
    from vitexp.explain.ranking import measure_faithfulness

    measured = measure_faithfulness(explainer, images)
    figure = faithfulness_curves(deletion=measured.deletion, insertion=measured.insertion)
    _write(folder, [("faithfulness", figure)])
    (folder / "faithfulness.csv").write_text(measured.as_csv())
    (folder / "faithfulness.md").write_text(measured.as_markdown())
    print(measured.as_markdown(), end="")


def _write(folder: Path, drawn: Iterable[tuple[str, Figure]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn:
            path = folder / f"{name}.png"
            figure.savefig(path, format="png")
            print(path)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}.") from error


def find_class(word: str, classes: Sequence[str]) -> int:
    """Return the label of a class given by name, in any letter case, or by number. Raises ConfigError."""
    names = [name.casefold() for name in classes]
    if word.casefold() in names:
        return names.index(word.casefold())
    if word.isascii() and word.isdigit() and int(word) < len(classes):
        return int(word)
    near = (get_close_matches(word, classes, n=1, cutoff=0.0) or list(classes))[0]
    raise ConfigError(f"class={word} is neither a number from 0 to {len(classes) - 1} nor a class; nearest is {near}.")


def within(key: str, number: int, count: int) -> int | None:
    """Return the index of layer or head `number`, None if it is 0 (not given). Raises ConfigError."""
    if number and not count:
        raise ConfigError(f"{key}={number} asks for attention, which this network does not have; remove {key}.")
    if number > count:
        raise ConfigError(f"{key}={number} exceeds the {count} of this network; use 1 to {count}.")
    return number - 1 if number else None


if __name__ == "__main__":
    with plain_errors():
        main(sys.argv[1:])

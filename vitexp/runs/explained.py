"""Explain finished runs: load one, draw every explanation of it, compare two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich import table as rich_table
from rich.text import Text
from torch import Tensor

from vitexp.data.imagefile import read_image
from vitexp.errors import ConfigError, UserError
from vitexp.explain import drawing, figures
from vitexp.explain.captions import CAPTIONS
from vitexp.explain.drawing import Shown
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.explain.methods.embedding import available_methods
from vitexp.explain.pick import drawn_at_random, right_and_wrong
from vitexp.explain.ranking import Faithfulness, measure_faithfulness
from vitexp.models.vit import ViT
from vitexp.runs.build import build_net
from vitexp.runs.classes import is_number
from vitexp.runs.comparison import compare, effort, history
from vitexp.runs.find import read_finished
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.gallery import Rows, write_gallery
from vitexp.runs.inputs import weights_file
from vitexp.runs.record import data_set, read_result
from vitexp.runs.test_set import relocated
from vitexp.runs.weights import read_weights
from vitexp.system.disk import typed
from vitexp.system.terminal import plain_console
from vitexp.text import markdown_table, plural, shortened

Pair = tuple[Explainer[FinishedRun], Explainer[FinishedRun]]


def load_explainer(
    folder: Path | str, data: Sequence[str] = (), *, other: Explainer[FinishedRun] | None = None
) -> Explainer[FinishedRun]:
    """Load a run for explanations.

    data: overrides for the location of its data set (data.root=..., data.download=true).
    other: the run to compare with; `data` then applies only to a run on the same data set.
    Raises ConfigError if the two runs have different classes, UserError if the run or its data cannot be loaded.
    """
    run = load_run(folder)
    if other and run.classes != other.run.classes:
        raise ConfigError(
            f"{run.folder} and {other.run.folder} have different classes; only runs with the same classes can be "
            "compared."
        )
    if data and (not other or run.config.data.name == other.run.config.data.name):
        run = relocated(run, data)
        _ = run.data  # if it is not there, say so now
    return Explainer[FinishedRun](run)


def explain_run(
    folder: Path | str,
    *,
    other: Path | str | None = None,
    image: Path | None = None,
    data: Sequence[str] = (),
    images: int = 100,
    shown: int = 5,
    embedded: int = 2000,
    layer: int = 0,
    head: int = 0,
    label: str = "",
) -> None:
    """Draw every explanation of a run into its folder; print the file names and the faithfulness of each method.

    other: a run to compare. image: a file to explain instead of test images. data: overrides for the location of the
    data set. images: number of test images to measure faithfulness on. shown: number of test images in the figures.
    embedded: number of training images in the maps of embeddings. layer, head: number, from 1, of the layer and head
    whose attention is drawn; 0 for the last layer and the mean of all heads. label: name or number of the class to
    explain; "" for the predicted one.
    Raises ConfigError for arguments that do not fit the run, UserError if something cannot be read or written.
    """
    explainer = load_explainer(folder, data)
    run, vit = explainer.run, explainer.vit
    compared = load_explainer(other, data, other=explainer) if other else None
    if compared:
        check_same_test((explainer, compared))
        note_changed_data(compared.run)
    layer_index = index_of("layer", layer, vit.depth if vit else 0)
    head_index = index_of("head", head, vit.num_heads if vit else 0)
    explained = find_class(label, run.classes) if label else None
    out = run.folder / "figures" / "explain"

    if image:
        out, chosen = out / image.stem, np.zeros(0, np.int64)
        about = drawing.shown(explainer, run.prepare_image(read_image(image))[None], [None], explained=explained)
    else:
        chosen = right_and_wrong(explainer, run.data.test, count=shown)
        truth = run.data.test.labels[chosen].tolist()
        about = drawing.shown(explainer, run.data.test.images(chosen), truth, explained=explained)
    print(f"drawing into {typed(out)}:", flush=True)
    shown_layer = -1 if layer_index is None else layer_index
    page = _Page(out)
    page.add(drawing.draw_images(explainer, about, head=head_index, before=positions_before(run)))
    if image:
        page.add(_explanations(explainer, about, layer=shown_layer))
    try:
        train, test = run.data.train, run.data.test
        note_changed_data(run)
    except UserError as error:  # an image file can be explained without the data set
        print(f"heads and embeddings are not drawn because the data set is missing: {error}")
        page.write(run)
        return
    sample = drawn_at_random(len(test), images)
    page.add(drawing.draw_heads(explainer, test.images(sample)))
    neighbors = drawing.embed(explainer, train, sample=embedded)
    for method in available_methods():
        page.add([(f"embedding_{method}", drawing.draw_embedding(explainer, about, neighbors, method=method))])
    if compared:
        pair = explainer, compared
        page.add([("confusions", draw_confusions(pair))])
        theirs = drawing.shown(compared, compared.run.data.test.images(chosen), about.truth, explained=explained)
        page.add([("comparison", draw_side_by_side(pair, (about, theirs)))])
        _compare(page, pair)
    if not image:  # last, because it takes longest
        print(f"measuring faithfulness on {len(sample):,} test images ...", flush=True)
        measured = measure_faithfulness(explainer, test.images(sample))
        curves = figures.faithfulness_curves(deletion=measured.deletion, insertion=measured.insertion)
        page.add([("faithfulness", curves)])
        page.add(_explanations(explainer, about, layer=shown_layer, measured=measured))
        page.add_table("faithfulness", measured.rows(), text=measured.as_markdown(), csv=measured.as_csv())
    page.write(run)


class _Page:
    """The figures and tables in `folder`, and explain.html with all of them.

    Raises UserError if something cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: list[str] = []
        self.tables: dict[str, Rows] = {}
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, drawn: Iterable[tuple[str, Figure]]) -> None:
        """Write figures, given with their names, and print the names."""
        for name, figure in drawn:
            with self._writing():
                figure.savefig(self.folder / f"{name}.png", format="png")
            self.figures.append(name)
            print(f"{name}.png", flush=True)

    def add_table(self, name: str, rows: list[dict[str, str]], *, text: str, **others: str) -> None:
        """Print the table that belongs to a figure; write it as Markdown, `text`, and in other formats by endings."""
        self.tables[name] = Rows(list(rows[0]), [list(row.values()) for row in rows])
        with self._writing():
            for ending, content in {"md": text, **others}.items():
                (self.folder / f"{name}.{ending}").write_text(content, encoding="utf-8")
        heading, *lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        if len(lines) < len(heading) / 2:  # two runs: one column each, so that 80 columns are enough
            heading, *lines = map(list, zip(heading, *lines, strict=True))
        table = rich_table.Table(padding=0)
        table.add_column(heading[0])
        for place, name in enumerate(heading[1:], start=1):  # in a narrow terminal, only the heading is broken
            table.add_column(name, justify="right", min_width=max(len(line[place]) for line in lines))
        for line in lines:
            table.add_row(*map(Text, line))
        plain_console().print(table)

    def write(self, run: FinishedRun) -> None:
        """Write explain.html and print its path."""
        path = self.folder / "explain.html"
        with self._writing():
            write_gallery(
                path,
                title=f"Explanations of {run.result['name']}",
                about=[str(run.folder), read_finished(run.folder).describe()],
                captions=CAPTIONS,
                figures=self.figures,
                tables=self.tables,
            )
        print(f"page  {typed(path)}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}.") from error


def _explanations(
    explainer: Explainer, about: Shown, *, layer: int, measured: Faithfulness | None = None
) -> Iterator[tuple[str, Figure]]:
    for ending, overlay in (("", True), ("_raw", False)):
        figure = drawing.draw_explanations(explainer, about, layer=layer, measured=measured, overlay=overlay)
        yield f"explanations{ending}", figure


def _compare(page: _Page, pair: Pair) -> None:
    """Add the learning curves of two runs, a table, and all their numbers in one file."""
    runs = dict(zip(_run_names(pair), (explainer.run.folder for explainer in pair), strict=True))
    histories = {name: [history(folder)] for name, folder in runs.items()}
    with suppress(ValueError):  # neither has a metrics.csv
        efforts = "; ".join(f"{name}: {effort(folder)}" for name, folder in runs.items())
        if len({read_result(folder)["epochs"] for folder in runs.values()}) > 1:
            efforts += ". They were not trained for the same number of epochs: do not compare their final values."
        curves = figures.model_comparison(histories=histories, title=" and ".join(runs), subtitle=efforts)
        page.add([("model_comparison", curves)])
    rows, everything = compare(runs)
    heading = list(rows[0])
    align: Any = ["left", *["right"] * (len(heading) - 1)]
    text = markdown_table(heading, [list(row.values()) for row in rows], align)
    page.add_table("model_comparison", rows, text=text, json=everything)


def positions_before(run: FinishedRun) -> Tensor | None:
    """Return the position embeddings of a ViT before its training, built again from seed and weights.

    None if it has none, or if it started from weights that are no longer there.
    """
    if not isinstance(run.net, ViT):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config.seed)  # as in the run, which builds its network first
        net = build_net(run.config, num_classes=len(run.classes))
    if recorded := run.result["model"].get("weights"):
        try:
            file = weights_file(recorded["from"], run.config.log_dir)
            weights = read_weights(file, name=recorded["from"])
            if weights.sha256 != recorded["sha256"]:
                return None
            weights.load_into(net, classes=run.classes)
        except ConfigError:  # published weights have no file, and others may be gone
            return None
    return cast(ViT, net).pos_embed


def note_changed_data(run: FinishedRun) -> None:
    """Say so if the data set of a run does not contain the images that it was trained and tested on."""
    if run.data_changed:
        print(
            f"note  the images of {data_set(run.config.data)} are not those that {run.folder} was trained and tested on"
        )


def find_class(word: str, classes: Sequence[str]) -> int:
    """Return the label of a class given by name, in any letter case, or by number. Raises ConfigError."""
    names = [name.casefold() for name in classes]
    if word in classes:
        return classes.index(word)
    if word.casefold() in names:
        return names.index(word.casefold())
    near = get_close_matches(word, classes, n=1)
    hint = f"the nearest is {near[0]}" if near else f"the classes are {shortened(list(classes))}"
    if all(map(is_number, classes)):  # the number of a class would be mistaken for the name of another
        raise ConfigError(f"class={word} is not a class name; {hint}.")
    if is_number(word) and int(word) < len(classes):
        return int(word)
    raise ConfigError(f"class={word} is neither a number from 0 to {len(classes) - 1} nor a class name; {hint}.")


def index_of(key: str, number: int, count: int) -> int | None:
    """Return the index of layer or head `number`, which counts from 1; None for 0. Raises ConfigError."""
    if number and not count:
        raise ConfigError(
            f"{key}={number} selects a part of the attention of a ViT, which this network is not; remove {key}."
        )
    if number > count:
        raise ConfigError(f"{key}={number} is too large: this network has {count}; use 1 to {count}.")
    return number - 1 if number else None


def check_same_test(pair: Pair) -> None:
    """Raise ConfigError if two runs have different test images, as far as their labels, files and pixels tell."""
    first, second = (explainer.run.data.test for explainer in pair)
    is_same = np.array_equal(first.labels, second.labels) and np.array_equal(first.paths, second.paths)  # type: ignore[arg-type]
    if pair[0].run.config.data.prepare == pair[1].run.config.data.prepare:  # otherwise pixels differ in any case
        is_same = is_same and np.array_equal(first.moments, second.moments)
    if not is_same:
        raise ConfigError(
            f"{pair[1].run.folder} has a different test set; only runs with the same test set can be compared."
        )


def draw_confusions(pair: Pair) -> Figure:
    """Compare the confusions of two runs on all test images. Raises ConfigError if their test sets differ."""
    check_same_test(pair)
    first, second = (each.run.all_logits(each.run.data.test).argmax(dim=1).numpy() for each in pair)
    return figures.paired_confusions(
        truth=pair[0].run.data.test.labels,
        predicted=(first, second),
        class_names=pair[0].run.classes,
        runs=_run_names(pair),
        epochs=(pair[0].run.result["epochs"], pair[1].run.result["epochs"]),
    )


def draw_side_by_side(pair: Pair, about: tuple[Shown, Shown]) -> Figure:
    """Draw the predictions and class-specific explanations of two runs for the same images."""
    first, classes = about[0], pair[0].run.classes
    columns: list[str] = []
    maps: list[NDArray[np.float32]] = []
    captions: list[list[str]] = [[] for _ in first.images]
    for explainer, seen, name in zip(pair, about, _run_names(pair), strict=True):
        predictions = seen.captions(classes, with_truth=False)
        for method in (each for each in explainer.methods if each not in ("attention", "rollout")):
            maps.append(np.maximum(explainer.maps(method, seen.images, seen.explained), 0))
            columns.append(f"{name}: {NAMES[method]}")
            for row, text in zip(captions, predictions, strict=True):
                row.append(text)
    explained = "the predicted class" if first.explained == first.predicted else f"“{classes[first.explained[0]]}”"
    return figures.map_grid(
        title=f"Two runs: explanations of {explained}",
        images=first.images,
        maps=[[each[index] for each in maps] for index in range(len(first.images))],
        columns=columns,
        rows=["" if truth is None else f"true: {classes[truth]}" for truth in first.truth],
        captions=captions,
        note=_note(pair, first),
    )


def _note(pair: Pair, first: Shown) -> str:
    """Return the accuracy of each run, and that the images, which were chosen, do not show which run is better."""
    names = _run_names(pair)
    said = []
    for explainer, name in zip(pair, names, strict=True):
        result = explainer.run.result
        accuracy, epochs = result["metrics"]["test"]["accuracy"], plural(result["epochs"], "epoch")
        said.append(f"{name} {accuracy:.2%} ({epochs})")
    note = f"Test accuracy: {', '.join(said)}"
    if len(first.images) == 1:
        return f"{note}."
    right = sum(truth == label for truth, label in zip(first.truth, first.predicted, strict=True))
    wrong = len(first.images) - right
    chosen = f"{right} that {names[0]} predicts correctly and {wrong} that it does not"
    return f"{note}. The images were chosen, {chosen}, so they do not show which run is better."


def _run_names(pair: Pair) -> tuple[str, str]:
    """Return the model names; if they are equal, the run names or the folder names."""
    models = [str(explainer.run.config.model.name) for explainer in pair]
    runs = [str(explainer.run.config.name or explainer.run.folder.parent.name) for explainer in pair]
    folders = [explainer.run.folder.name for explainer in pair]
    first, second = next((names for names in (models, runs) if names[0] != names[1]), folders)
    return first, second

"""Every explanation of a finished run, as pictures and as a table.

    python -m vitexp explain [run=FOLDER] [run2=FOLDER] [image=FILE] [images=100] [shown=5] [embedded=2000]
                             [layer=L] [head=H] [class=NAME] [data.root=PATH] [data.download=true]

run: the newest run under logs/ where it is not given; run=pretrained is a net for GTSRB that comes along. run2: another
run with the same classes, to be laid beside it. image: one picture instead of `shown` test images. images: test images
for the faithfulness table and curves; embedded: training images for the maps of embeddings. layer and head, from 1:
whose attention to show; class, a name or number: what to explain instead of the predicted class. data.root: where the
data set of the run lies now. Writes into <run>/figures/explain/, or, of a picture, <run>/figures/explain/<its name>/.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from vitexp.commands.explain_arguments import Arguments, find_class, read_arguments, within
from vitexp.config.plain_errors import plain_errors
from vitexp.errors import UserError

if TYPE_CHECKING:
    from vitexp.explain.explainer import Explainer, Images
    from vitexp.runs.finished import FinishedRun


def main() -> None:
    words = sys.argv[1:]
    if any(word in ("-h", "--help", "help") for word in words):
        print(__doc__)
        return
    with plain_errors():
        explain(read_arguments(words))


def explain(arguments: Arguments) -> None:
    """Draw, write and print what is asked for. Raises UserError."""
    # all that imports torch comes only once the arguments stand
    from vitexp.evaluate import two_runs
    from vitexp.explain import drawing
    from vitexp.explain.methods.embedding import available_methods
    from vitexp.explain.pick import drawn_at_random, right_and_wrong
    from vitexp.runs.explained import load_explainer
    from vitexp.runs.finished import newest_run, read_prepared

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
        path = Path(arguments.image).expanduser()
        folder, chosen = folder / path.stem, np.zeros(0, np.int64)
        about = drawing.shown(explainer, read_prepared(run, path), [None], explained=label)
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


if __name__ == "__main__":
    main()

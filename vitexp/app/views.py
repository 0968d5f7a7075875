"""What the app can show of a picture: figures of one run, and beside another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.app.picture import Picture
from vitexp.errors import UserError
from vitexp.evaluate import two_runs
from vitexp.explain import drawing
from vitexp.explain.drawing import Embedded, Shown
from vitexp.explain.explainer import Explainer
from vitexp.explain.figures import faithfulness_curves
from vitexp.explain.methods.embedding import in_plane
from vitexp.explain.pick import drawn_at_random
from vitexp.explain.ranking import measure_faithfulness
from vitexp.runs.explained import load_explainer
from vitexp.runs.find import completed_runs
from vitexp.runs.finished import FinishedRun

_EMBEDDED = 2000  # training images
_FOR_HEADS = 16  # test images
_SEARCHED = 2000  # test images among which mistakes are found
_REACH = 25  # pixels from a click to the point that is meant


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the controls say.

    label: the class to explain, the predicted one if None. layer, head: from 0; the mean of all heads if None.
    other: the folder of the run beside this one, "" for none.
    """

    label: int | None = None
    layer: int = -1
    head: int | None = None
    overlay: bool = True
    other: str = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """A tab: its name, what is to be seen, and its figures, by the name of the file that saves each."""

    name: str
    words: str
    figures: dict[str, Callable[[Picture, Choice], Figure | None]]


class Views:
    """Figures of the run of `explainer`. Raises UserError where a picture cannot be read, or the data set is gone.

    data: where its data set is, as typed; another run on the same data set is shown on these images, too.
    """

    def __init__(self, explainer: Explainer[FinishedRun], data: Sequence[str] = ()) -> None:
        self.explainer = explainer
        self.data = data
        self.run = explainer.run
        self._loaded: dict[str, Explainer[FinishedRun]] = {}  # those that stood beside it

    @cached_property
    def views(self) -> list[View]:
        """Those that apply to the net."""
        explainer, about = self.explainer, self.about
        of_any = [
            View(
                name="Explanations",
                words="What speaks for the class, by every method that this net allows. Each map has its own scale: "
                "compare where, not how much. Attention, of the chosen layer, and rollout know no class.",
                figures={
                    "explanations": lambda picture, choice: drawing.draw_explanations(
                        explainer, about(picture, choice), layer=choice.layer, overlay=choice.overlay
                    )
                },
            ),
            View(
                name="Classes",
                words="What speaks for each of the most probable classes.",
                figures={
                    "classes": lambda picture, choice: drawing.draw_classes(
                        explainer, about(picture, choice), overlay=choice.overlay
                    )
                },
            ),
            View(
                name="Faithfulness",
                words="Which explanation to believe, on this picture: where cells are covered in its order, the "
                "probability should fall at once (deletion); where they appear in it, rise at once (insertion). "
                "One picture says little; `python -m vitexp explain` measures many.",
                figures={"faithfulness": self._faithfulness},
            ),
            View(
                name="Embeddings",
                words="Training images where the net puts them just before it decides, the picture as a star, and its "
                "nearest neighbours. **Click a point to load that training image.**",
                figures={
                    "embedding": lambda picture, choice: drawing.draw_embedding(
                        explainer, about(picture, choice), self.embedded
                    )
                },
            ),
            View(
                name="Weights",
                words="What the first layer looks for and, of a ViT, how alike the embeddings of its positions are.",
                figures={
                    "filters": lambda *_: drawing.draw_filters(explainer),
                    "position_embedding": lambda *_: drawing.draw_position(explainer.vit),
                },
            ),
            View(
                name="Two runs",
                words="Another finished run on the same picture: choose it below.",
                figures={"comparison": self.side_by_side},
            ),
        ]
        if not explainer.vit:
            return of_any
        of_vit = [
            View(
                name="Patches",
                words="The picture as the net receives it: every patch becomes a token.",
                figures={"patches": lambda picture, choice: drawing.draw_patches(explainer, about(picture, choice))},
            ),
            View(
                name="Attention",
                words="Where tokens look: the chosen head through the layers, and below it every head of every layer.",
                figures={
                    "attention_layers": lambda picture, choice: drawing.draw_layers(
                        explainer, about(picture, choice), head=choice.head, overlay=choice.overlay
                    ),
                    "attention_heads": lambda picture, choice: drawing.draw_every_head(
                        explainer, about(picture, choice), overlay=choice.overlay
                    ),
                },
            ),
            View(
                name="Heads",
                words=f"How far, how widely and how differently the heads look, over {_FOR_HEADS} test images.",
                figures={"head_diversity": lambda *_: self._heads()},
            ),
        ]
        return [of_any[0], *of_vit[:2], *of_any[1:4], of_vit[2], *of_any[4:]]

    def about(self, picture: Picture, choice: Choice) -> Shown:
        return drawing.shown(
            self.explainer, picture.image(self.run)[None], [picture.truth(self.run)], explained=choice.label
        )

    def probabilities(self, picture: Picture) -> NDArray[np.float32]:
        """float32 [classes]."""
        return np.asarray(self.explainer.probabilities(picture.image(self.run)[None])[0])

    @cached_property
    def test_rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows of the test set in random order: all, and the mistakes among some of them. Empty without the data."""
        try:
            test = self.run.data.test
        except UserError:
            return {"all": np.zeros(0, np.int64), "mistakes": np.zeros(0, np.int64)}
        order = drawn_at_random(len(test), len(test))
        searched = order[:_SEARCHED]
        predicted = self.explainer.probabilities(test.images(searched)).argmax(axis=1)
        return {"all": order, "mistakes": searched[predicted != test.labels[searched]]}

    def warm_up(self) -> None:
        """Compute now what would keep the first visitor waiting, where the data set is there."""
        if len(self.test_rows["all"]):
            _ = self.embedded

    @cached_property
    def embedded(self) -> Embedded:
        return drawing.embed(self.explainer, self.run.data.train, sample=_EMBEDDED)

    def nearest_point(self, picture: Picture, choice: Choice, *, x: float, y: float) -> Picture | None:
        """The training image whose point in the figure of embeddings lies at these pixels, from the upper left."""
        about = self.about(picture, choice)
        figure = drawing.draw_embedding(self.explainer, about, self.embedded)
        points, _ = in_plane(self.embedded.vectors, self.explainer.embeddings(about.images))
        plane = figure.axes[0]
        plane.autoscale_view()  # else it is done when the figure is saved
        across, up = plane.transData.transform(points).T
        apart = np.hypot(across - x, figure.bbox.height - up - y)
        closest = int(apart.argmin())
        return Picture(kind="train", row=int(self.embedded.rows[closest])) if apart[closest] <= _REACH else None

    def _faithfulness(self, picture: Picture, choice: Choice) -> Figure:
        measured = measure_faithfulness(self.explainer, self.about(picture, choice).images)
        return faithfulness_curves(deletion=measured.deletion, insertion=measured.insertion)

    def _heads(self) -> Figure:
        test = self.run.data.test
        images = test.images(drawn_at_random(len(test), _FOR_HEADS))
        return dict(drawing.draw_heads(self.explainer, images))["head_diversity"]

    # two runs side by side

    def others(self) -> list[Path]:
        """Other completed runs beside this one, the last first; whether their classes are the same is seen later."""
        return [folder for folder in completed_runs(self.run.folder.parents[1]) if folder != self.run.folder]

    def side_by_side(self, picture: Picture, choice: Choice) -> Figure | None:
        """Both nets on the picture, each with the image as it was prepared for it. None where no other is chosen."""
        if not choice.other:
            return None
        other = self._load(choice.other)
        seen = drawing.shown(other, picture.image(other.run)[None], [picture.truth(self.run)], explained=choice.label)
        return two_runs.draw_side_by_side((self.explainer, other), (self.about(picture, choice), seen))

    def confusions(self, choice: Choice) -> Figure | None:
        """Both nets on all test images: takes a while. None where no other is chosen."""
        return two_runs.draw_confusions((self.explainer, self._load(choice.other))) if choice.other else None

    def _load(self, folder: str) -> Explainer[FinishedRun]:
        if folder not in self._loaded:
            self._loaded[folder] = load_explainer(folder, self.data, beside=self.explainer)
        return self._loaded[folder]

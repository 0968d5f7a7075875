"""The tabs of the app: figures of one run for an image, and a comparison with another run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vitexp.app.picture import Picture
from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.errors import UserError
from vitexp.explain import drawing
from vitexp.explain.drawing import Embedded, Shown
from vitexp.explain.explainer import Explainer
from vitexp.explain.figures import faithfulness_curves
from vitexp.explain.methods.embedding import in_plane
from vitexp.explain.pick import drawn_at_random
from vitexp.explain.ranking import measure_faithfulness
from vitexp.metrics import METRICS
from vitexp.runs.explained import draw_confusions, draw_side_by_side, load_explainer, positions_before
from vitexp.runs.find import completed_runs
from vitexp.runs.finished import FinishedRun, classes_of
from vitexp.runs.record import RunRecord, data_set

_EMBEDDED = 2000  # training images
_FOR_HEADS = 16  # test images
_SEARCHED = 2000  # test images that are searched for mistakes
_DRAWN = 4 * len(GTSRB_CLASSES)  # signs, if the data set is missing
_REACH = 25  # maximum distance in pixels from a click to its point


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The values of the controls.

    label: the class to explain; None for the predicted one. layer, head: from 0; head None for the mean of all heads.
    other: the folder of the run to compare; "" for none.
    """

    label: int | None = None
    layer: int = -1
    head: int | None = None
    overlay: bool = True
    other: str = ""


Draw = Callable[[Picture, Choice], Figure | None]


@dataclass(frozen=True, kw_only=True)
class View:
    """A tab: its name, its description in Markdown, and its figures by file name."""

    name: str
    description: str
    figures: dict[str, Draw]


class Views:
    """The tabs for the run of `explainer`.

    data: overrides for the location of its data set; another run on the same data set uses them too. The methods raise
    UserError if an image cannot be read or the data set is missing.
    """

    def __init__(self, explainer: Explainer[FinishedRun], data: Sequence[str] = ()) -> None:
        self.explainer = explainer
        self.data = data
        self.run = explainer.run
        self._loaded: dict[str, Explainer[FinishedRun]] = {}  # runs it was compared with, by folder

    @cached_property
    def views(self) -> list[View]:
        """The tabs that apply to the network."""
        net, vit = self.explainer, self.explainer.vit is not None

        def of_image(draw: Callable[[Shown, Choice], Figure | None]) -> Draw:
            return lambda picture, choice: draw(self.about(picture, choice), choice)

        views = [
            View(
                name="Explanations",
                description="Evidence for the class, by every method that applies to this network. Each map has its "
                "own scale: compare locations, not strengths. Attention and rollout do not depend on the class.",
                figures={
                    "explanations": of_image(
                        lambda seen, choice: drawing.draw_explanations(
                            net, seen, layer=choice.layer, overlay=choice.overlay
                        )
                    )
                },
            ),
            View(
                name="Patches",
                description="The image as the network receives it: each patch becomes a token.",
                figures={"patches": of_image(lambda seen, _: drawing.draw_patches(net, seen))},
            ),
            self._attention(),
            View(
                name="Classes",
                description="Evidence for each of the most probable classes.",
                figures={
                    "classes": of_image(lambda seen, choice: drawing.draw_classes(net, seen, overlay=choice.overlay))
                },
            ),
            View(
                name="Faithfulness",
                description="Which explanation to trust on this image. When cells are covered, most important first, "
                "the probability should drop early (deletion); when they are revealed in this order, it should rise "
                "early (insertion). One image says little; `vitexp explain` measures many.",
                figures={"faithfulness": of_image(self._faithfulness)},
            ),
            View(
                name="Embeddings",
                description="A map of the training images by the features that the classification head receives. The "
                "star is this image, shown with its nearest neighbors. **Point at a training image to read its class; "
                "click to open it.**"
                + ("" if self.has_data else " This needs the data set, which is not on this machine."),
                figures={"embedding": of_image(self._embedding)},
            ),
            View(
                name="Heads",
                description=f"How far, how widely and how differently the heads attend, over {_FOR_HEADS} images.",
                figures={"head_diversity": lambda *_: self._heads()},
            ),
            View(
                name="Weights",
                description="The filters of the first layer and, for a ViT, its position embeddings before and after "
                "training.",
                figures={
                    "filters": lambda *_: drawing.draw_filters(net),
                    "position_embedding": lambda *_: drawing.draw_position(net.vit, self._positions_before),
                },
            ),
            View(
                name="Two runs",
                description="Another finished run on the same image; choose it below.",
                figures={"comparison": self.side_by_side},
            ),
        ]
        return [view for view in views if view.figures and (vit or view.name not in ("Patches", "Heads"))]

    def _attention(self) -> View:
        """Return the tab of the attention; without figures if the network has none, or none with a choice."""
        net = self.explainer

        def layers(picture: Picture, choice: Choice) -> Figure:
            return drawing.draw_layers(net, self.about(picture, choice), head=choice.head, overlay=choice.overlay)

        def heads(picture: Picture, choice: Choice) -> Figure:
            return drawing.draw_every_head(net, self.about(picture, choice), overlay=choice.overlay)

        def stages(picture: Picture, choice: Choice) -> Figure | None:
            return drawing.draw_stages(net, self.about(picture, choice), overlay=choice.overlay)

        if net.vit:
            return View(
                name="Attention",
                description="Where the tokens attend: the chosen head through the layers, then every head of every "
                "layer.",
                figures={"attention_layers": layers, "attention_heads": heads},
            )
        side = self.run.image_size
        has_choice = net.staged and net.received(np.zeros((1, side, side, 3), np.uint8))
        return View(
            name="Attention",
            description="How much attention each position of a map receives, block by block, in the mean of the heads.",
            figures={"attention_stages": stages} if has_choice else {},
        )

    def about(self, picture: Picture, choice: Choice) -> Shown:
        """Return the image with its prediction."""
        return self._about(self.explainer, picture, choice)

    def _about(self, explainer: Explainer[FinishedRun], picture: Picture, choice: Choice) -> Shown:
        images = picture.image(explainer.run)[None]
        return drawing.shown(explainer, images, [picture.truth(self.run)], explained=choice.label)

    def probabilities(self, picture: Picture) -> NDArray[np.float32]:
        """Return the probability of each class: float32 [C]."""
        return np.asarray(self.explainer.probabilities(picture.image(self.run)[None])[0])

    @cached_property
    def has_data(self) -> bool:
        """Whether the data set of the run is there."""
        try:
            return len(self.run.data.test) > 0
        except UserError:
            return False

    def sample(self, row: int) -> Picture:
        """Return test image `row`; without the data set, drawn sign `row`."""
        return Picture(kind="test" if self.has_data else "drawn", row=row)

    def samples(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of samples: uint8 [N, S, S, 3]."""
        if self.has_data:
            return np.asarray(self.run.data.test.images(np.asarray(rows)))
        return np.stack([self.sample(int(row)).bare(self.run) for row in rows])

    @cached_property
    def sample_rows(self) -> dict[str, NDArray[np.int64]]:
        """Samples in random order: "all", and "mistakes" among the first 2,000.

        Without the data set, these are drawn signs if the run knows them, and otherwise none.
        """
        if self.has_data:
            labels = self.run.data.test.labels
        elif self.run.classes == list(GTSRB_CLASSES):
            labels = np.arange(_DRAWN) % len(GTSRB_CLASSES)
        else:
            return {"all": np.zeros(0, np.int64), "mistakes": np.zeros(0, np.int64)}
        order = drawn_at_random(len(labels), len(labels))
        searched = order[:_SEARCHED]
        predicted = self.explainer.probabilities(self.samples(searched)).argmax(axis=1)
        return {"all": order, "mistakes": searched[predicted != labels[searched]]}

    @property
    def note(self) -> str:
        """What is missing without the data set, and how to add it; empty with it."""
        if self.has_data:
            return ""
        can_download = "download" in (self.run.config.data.source or {})
        name = data_set(self.run.config.data)
        shown = "These signs are drawn" if len(self.sample_rows["all"]) else "Upload a picture"
        how = "`data.download=true` (or `data.root=PATH`)" if can_download else "`data.root=PATH`"
        return (
            f"{shown}: the data set {name} is not on this machine. {how} adds its test images, the map of training "
            "images (Embeddings) and the confusions of two runs."
        )

    def warm_up(self) -> None:
        """Compute now what the first visitor would wait for."""
        _ = self.sample_rows
        if self.has_data:
            _ = self.embedded

    @cached_property
    def embedded(self) -> Embedded:
        """Embeddings of training images."""
        return drawing.embed(self.explainer, self.run.data.train, sample=_EMBEDDED)

    def nearest_point(self, picture: Picture, choice: Choice, *, x: float, y: float) -> Picture | None:
        """Return the training image whose point is nearest to pixel (x, y) of the figure, from the upper left."""
        about = self.about(picture, choice)
        pixels = self._points(drawing.draw_embedding(self.explainer, about, self.embedded), about)
        distances = np.hypot(*(pixels - (x, y)).T)
        nearest = int(distances.argmin())
        return Picture(kind="train", row=int(self.embedded.rows[nearest])) if distances[nearest] <= _REACH else None

    def named_points(self, figure: Figure, picture: Picture, choice: Choice) -> dict[str, list[Any]]:
        """Return what the page shows when the mouse is over a point of the map of training images.

        points: x and y in pixels from the upper left, and the label; names: of the classes.
        """
        pixels = self._points(figure, self.about(picture, choice)).round().astype(int)
        points = np.column_stack([pixels, self.embedded.labels]).tolist()
        return {"points": points, "names": self.run.classes}

    def _points(self, figure: Figure, about: Shown) -> NDArray[np.float64]:
        """Return the positions of the training images in the map: pixels [N, 2] from the upper left."""
        points = in_plane(self.embedded.vectors, self.explainer.embeddings(about.images)).training
        across, up = figure.axes[0].transData.transform(points).T
        return np.column_stack([across, figure.bbox.height - up])

    @cached_property
    def _positions_before(self) -> Tensor | None:
        return positions_before(self.run)

    def _embedding(self, about: Shown, choice: Choice) -> Figure | None:
        return drawing.draw_embedding(self.explainer, about, self.embedded) if self.has_data else None

    def _faithfulness(self, about: Shown, choice: Choice) -> Figure:
        measured = measure_faithfulness(self.explainer, about.images)
        return faithfulness_curves(deletion=measured.deletion, insertion=measured.insertion)

    def _heads(self) -> Figure | None:
        if not len(self.sample_rows["all"]):
            return None
        images = self.samples(self.sample_rows["all"][:_FOR_HEADS])
        return dict(drawing.draw_heads(self.explainer, images))["head_diversity"]

    def others(self) -> dict[Path, str]:
        """Return the other completed runs in the same log folder that have the same classes, the newest first.

        Each with its name and test accuracy.
        """
        found = {}
        for folder in completed_runs(self.run.folder.parents[1]):
            if folder != self.run.folder and classes_of(folder) == self.run.classes:
                test = (RunRecord.read(folder).result.get("metrics") or {}).get("test") or {}
                accuracy = METRICS["accuracy"].format(test.get("accuracy"))
                found[folder] = f"{folder.parent.name} / {folder.name}, {accuracy}"
        return found

    def side_by_side(self, picture: Picture, choice: Choice) -> Figure | None:
        """Draw the explanations of both runs; each prepares the image in its own way. None without another run."""
        if not choice.other:
            return None
        pair = self.explainer, self._load(choice.other)
        return draw_side_by_side(pair, (self.about(picture, choice), self._about(pair[1], picture, choice)))

    def confusions(self, choice: Choice) -> Figure | None:
        """Compare the confusions of both runs on all test images; slow. None without another run."""
        return draw_confusions((self.explainer, self._load(choice.other))) if choice.other else None

    def _load(self, folder: str) -> Explainer[FinishedRun]:
        if folder not in self._loaded:
            self._loaded[folder] = load_explainer(folder, self.data, other=self.explainer)
        return self._loaded[folder]

"""The page: what stands where, and what happens on a click."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from matplotlib.figure import Figure

from vitexp.app.picture import Picture, enlarged, read_strokes
from vitexp.app.views import Choice, Views
from vitexp.errors import UserError

_SIDE = 320  # pixels of the picture that is drawn on, or more
_THUMBNAIL = 96
_THUMBNAILS = 12
_CHOICES = 5  # classes in the prediction
_PREDICTED = "the predicted one"
_COVERS: list[str | tuple[str, float]] = ["#808080", "#000000", "#ffffff", "#d03020", "#2050c0", "#e0c020"]

Updates = Any  # new values by component in a dict, or gr.skip() for none


class Page:
    """Builds the page of `views`. `folder`: where figures are written, for the server to send and to delete.

    All that belongs to one visitor is in the components and in gr.State, which Gradio keeps apart by session.
    """

    def __init__(self, views: Views, *, folder: Path) -> None:
        self.views, self.run, self.folder = views, views.run, folder
        self.vit = views.explainer.vit

    def build(self) -> gr.Blocks:
        blocks: gr.Blocks
        with gr.Blocks(title=f"vitexp: {self._name()}", fill_width=True, delete_cache=(600, 3600)) as blocks:
            gr.Markdown(self._heading())
            self.picture, self.rows = gr.State(None), gr.State([])
            self.tab = gr.State(self.views.views[0].name)
            with gr.Row():
                with gr.Column(scale=2, min_width=340):
                    self._build_choice_of_pictures()
                with gr.Column(scale=5, min_width=480):
                    self._build_controls()
                    self._build_tabs()
            self._connect(blocks)
        return blocks

    # what stands where

    def _name(self) -> str:
        return f"{self.run.result.get('name') or self.run.folder.parent.name}"

    def _heading(self) -> str:
        result = self.run.result
        trained = [(result.get(part) or {}).get("name") for part in ("model", "data")]
        parts = [f"{trained[0]} on {trained[1]}" if all(trained) else f"{len(self.run.classes)} classes"]
        if parameters := (result.get("model") or {}).get("parameters"):
            parts.append(f"{parameters:,} parameters")
        if accuracy := ((result.get("metrics") or {}).get("test") or {}).get("accuracy"):
            parts.append(f"test accuracy {accuracy:.2%}")
        return f"## {self._name()}\n{' · '.join([*parts, f'run {self.run.folder.name}'])}"

    def _build_choice_of_pictures(self) -> None:
        have_test = len(self.views.test_rows["all"]) > 0
        with gr.Row(elem_id="which", equal_height=True):
            self.which = gr.Radio(
                [("all", "all"), ("mistakes", "mistakes")],
                value="all",
                show_label=False,
                container=False,
                min_width=170,
                visible=have_test,
            )
            self.others = gr.Button("Others", size="sm", min_width=60, visible=have_test, elem_id="others")
            self.file = gr.UploadButton("Your picture…", size="sm", min_width=104, elem_id="file")
        self.gallery = gr.Gallery(
            visible=have_test,
            show_label=False,
            columns=_THUMBNAILS // 2,
            object_fit="contain",
            height="auto",
            allow_preview=False,
            format="png",
            buttons=[],
            elem_id="gallery",
        )
        self.about = gr.Markdown("", elem_id="about")
        self.editor = gr.ImageEditor(
            show_label=False,
            type="numpy",
            format="png",
            sources=(),
            transforms=(),
            layers=False,
            canvas_size=(_SIDE, _SIDE),
            height=_SIDE + 60,
            brush=gr.Brush(default_size=_SIDE // 8, colors=_COVERS, default_color=_COVERS[0], color_mode="fixed"),
            elem_id="editor",
            buttons=[],
        )
        self.prediction = gr.Label(
            label="Prediction", num_top_classes=_CHOICES, show_heading=False, elem_id="prediction"
        )

    def _build_controls(self) -> None:
        with gr.Row(equal_height=True):
            classes = [
                (_PREDICTED, -1),
                *((f"{number} {name}", number) for number, name in enumerate(self.run.classes)),
            ]
            self.label = gr.Dropdown(classes, value=-1, label="Class to explain", min_width=150, elem_id="class")
            depth, heads = (self.vit.depth, self.vit.num_heads) if self.vit else (0, 0)
            # a slider needs two ends, also where there is nothing to choose
            self.layer = gr.Slider(
                1,
                max(depth, 2),
                value=depth or 1,
                step=1,
                label="Layer",
                info="of attention",
                visible=depth > 1,
                elem_id="layer",
            )
            self.head = gr.Slider(
                0,
                max(heads, 1),
                value=0,
                step=1,
                label="Head",
                info="0: mean of all",
                visible=heads > 1,
                elem_id="head",
            )
            self.overlay = gr.Checkbox(True, label="Maps over the picture", elem_id="overlay")

    def _build_tabs(self) -> None:
        self.tabs: dict[str, gr.Tab] = {}
        self.shown: dict[tuple[str, str], gr.Image] = {}
        with gr.Tabs(overflow_behavior="wrap"):
            for view in self.views.views:
                with gr.Tab(view.name) as self.tabs[view.name]:
                    gr.Markdown(view.words)
                    if view.name == "Two runs":
                        self._build_other()
                    for name in view.figures:
                        self.shown[view.name, name] = _figure(name)
                    if view.name == "Two runs":
                        self.compare = gr.Button("Confusions of both, over all test images (takes a while)", size="sm")
                        self.confusions = _figure("confusions")

    def _build_other(self) -> None:
        runs = [(f"{folder.parent.name} / {folder.name}", str(folder)) for folder in self.views.others()]
        self.other = gr.Dropdown(
            [("none", ""), *runs], value="", label="Other run", elem_id="other", interactive=bool(runs)
        )

    # what happens on a click

    def _connect(self, blocks: gr.Blocks) -> None:
        controls = [self.tab, self.label, self.layer, self.head, self.overlay, self.other]
        figures = [*self.shown.values()]
        answer = [self.picture, self.about, self.prediction, *figures]
        whole = [*answer, self.editor]
        # The net answers one question after the other; two at once would both take twice as long.
        common: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "net", "show_progress": "minimal"}

        blocks.load(self._first, [self.which, *controls], [self.gallery, self.rows, *whole], **common)
        gr.on(
            [self.others.click, self.which.change],
            lambda which: dict(zip((self.gallery, self.rows), self._thumbnails(which), strict=True)),
            self.which,
            [self.gallery, self.rows],
            **common,
        )
        self.gallery.select(self._pick, [self.rows, *controls], whole, **common)
        self.file.upload(self._open, [self.file, *controls], whole, **common)
        self.editor.clear(self._start_again, [self.picture, *controls], whole, **common)
        self.editor.input(self._draw_on, [self.editor, self.picture, *controls], answer, **common)
        again = [control.change for control in (self.label, self.layer, self.head, self.overlay, self.other)]
        # of a slider's way only the last step is drawn
        gr.on(again, self._show, [self.picture, *controls], figures, trigger_mode="always_last", **common)
        for name, tab in self.tabs.items():
            tab.select(self._turn_to(name), [self.picture, *controls], [self.tab, *figures], **common)
        self.shown["Embeddings", "embedding"].select(self._go_to, [self.picture, *controls], whole, **common)
        self.compare.click(self._confuse, controls, self.confusions, **common)

    def _first(self, which: str, *controls: Any) -> Updates:
        """The page of a new visitor: a test image, where there are any."""
        gallery, rows = self._thumbnails(which)
        updates: Updates = {self.gallery: gallery, self.rows: rows}
        if rows:
            updates |= self._look_at(Picture(kind="test", row=rows[0]), *controls)
        return updates

    def _thumbnails(self, which: str) -> tuple[Any, list[int]]:
        rows = self.views.test_rows[which]
        chosen = np.random.default_rng(secrets.randbits(32)).permutation(rows)[:_THUMBNAILS]
        if not len(chosen):
            return [], []
        images = self.run.data.test.images(chosen)
        return [enlarged(image, side=_THUMBNAIL) for image in images], chosen.tolist()

    def _pick(self, event: gr.SelectData, rows: list[int], *controls: Any) -> Updates:
        return self._look_at(Picture(kind="test", row=rows[event.index]), *controls)

    def _open(self, file: str | None, *controls: Any) -> Updates:
        return self._look_at(Picture(kind="file", file=file), *controls) if file else gr.skip()

    def _go_to(self, event: gr.SelectData, picture: Picture | None, *controls: Any) -> Updates:
        """To the training image whose point was clicked."""
        if picture is None:
            return gr.skip()
        with _sentence():
            x, y = event.index
            if found := self.views.nearest_point(picture, self._choice(*controls)[1], x=x, y=y):
                return self._look_at(found, *controls)
        return gr.skip()

    def _look_at(self, picture: Picture, *controls: Any) -> Updates:
        """At another picture than before."""
        with _sentence():
            image = enlarged(picture.bare(self.run), side=_SIDE)
            return {self.editor: image, **self._answer(picture, *controls)}
        return gr.skip()

    def _draw_on(self, drawn: dict[str, Any] | None, picture: Picture | None, *controls: Any) -> Updates:
        """What is drawn over the picture changed."""
        if picture is None or drawn is None:
            return gr.skip()
        return self._answer(replace(picture, strokes=read_strokes(drawn["layers"])), *controls)

    def _start_again(self, picture: Picture | None, *controls: Any) -> Updates:
        """The picture without what was drawn on it."""
        return gr.skip() if picture is None else self._look_at(replace(picture, strokes=None), *controls)

    def _answer(self, picture: Picture, *controls: Any) -> Updates:
        probabilities = self.views.probabilities(picture)
        names = _distinct(self.run.classes)
        return {
            self.picture: picture,
            self.about: _sentence_case(picture.describe(self.run))
            + (", partly covered." if picture.strokes is not None else ". Draw on it to cover a part."),
            self.prediction: {name: float(each) for name, each in zip(names, probabilities, strict=True)},
            **self._show(picture, *controls),
        }

    def _turn_to(self, tab: str) -> Callable[..., Updates]:
        def turn(picture: Picture | None, _: str, *controls: Any) -> Updates:
            return {self.tab: tab, **self._show(picture, tab, *controls)}

        return turn

    def _show(self, picture: Picture | None, *controls: Any) -> Updates:
        """The figures of the tab that is open; the others wait until they are looked at."""
        tab, choice = self._choice(*controls)
        view = next(view for view in self.views.views if view.name == tab)
        updates: Updates = {self.shown[tab, name]: gr.update(value=None, visible=False) for name in view.figures}
        if picture is not None:
            with _sentence():
                for name, draw in view.figures.items():
                    updates[self.shown[tab, name]] = self._save(draw(picture, choice), name)
        return updates

    def _confuse(self, *controls: Any) -> Any:
        with _sentence():
            return self._save(self.views.confusions(self._choice(*controls)[1]), "confusions")
        return gr.skip()

    @staticmethod
    def _choice(tab: str, label: int, layer: int, head: int, overlay: bool, other: str) -> tuple[str, Choice]:
        return tab, Choice(
            label=None if label < 0 else label,
            layer=int(layer) - 1,
            head=int(head) - 1 if head else None,
            overlay=overlay,
            other=other,
        )

    def _save(self, figure: Figure | None, name: str) -> Any:
        """As a file of this name, which is what the visitor gets who saves it."""
        if figure is None:
            return gr.update(value=None, visible=False)
        path = self.folder / secrets.token_hex(8) / f"{name}.png"
        path.parent.mkdir()
        figure.savefig(path, format="png")
        return gr.update(value=str(path), visible=True)


def _figure(name: str) -> gr.Image:
    """An empty place for a figure, with buttons to save it and to see it large."""
    return gr.Image(
        show_label=False,
        container=False,
        interactive=False,
        type="filepath",
        format="png",
        buttons=["download", "fullscreen"],
        visible=False,
        elem_id=f"figure-{name}",
        elem_classes="figure",
        alt_text=name.replace("_", " "),
    )


def _sentence_case(words: str) -> str:
    return words[:1].upper() + words[1:]


def _distinct(names: Sequence[str]) -> list[str]:
    """Class names, with their numbers where two are alike."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{number} {name}" for number, name in enumerate(names)]


@contextmanager
def _sentence() -> Iterator[None]:
    """What a visitor can mend is told in a corner of the page, and nothing else happens."""
    try:
        yield
    except UserError as error:
        gr.Warning(str(error))

"""The event handlers of the page."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.app.layout import SIDE, THUMBNAILS, Layout
from vitexp.app.picture import Picture, enlarged, read_strokes
from vitexp.app.views import Choice, Views
from vitexp.errors import UserError
from vitexp.text import percent

_THUMBNAIL = 96  # minimum size in pixels
_LISTED_CLASSES = 5

Updates = dict[Any, Any]  # new values by component


class Page(Layout):
    """The page with its event handlers.

    folder: where figures are written; the server sends and deletes them. The state of a visitor is in the components
    and in gr.State, which Gradio keeps per session.
    """

    def __init__(self, views: Views, *, folder: Path) -> None:
        super().__init__(views)
        self.folder = folder

    def build(self) -> gr.Blocks:
        """Create the components and connect their events."""
        blocks = super().build()
        with blocks:
            self._connect(blocks)
        return blocks

    def _connect(self, blocks: gr.Blocks) -> None:
        controls = [self.tab, self.label, self.layer, self.head, self.overlay, self.other]
        figures = [*self.figures.values(), self.points]
        answer = [self.picture, self.about, self.prediction, *figures]
        whole = [*answer, self.editor]
        # One request at a time uses the network; two at once would each take twice as long.
        common: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "net", "show_progress": "minimal"}

        blocks.load(self._load, [self.which, *controls], [self.gallery, self.rows, *whole], **common)
        gr.on(
            [self.shuffle.click, self.which.change], self._thumbnails, self.which, [self.gallery, self.rows], **common
        )
        self.gallery.select(self._select, [self.rows, *controls], whole, **common)
        self.file.upload(self._upload, [self.file, *controls], whole, **common)
        self.editor.clear(self._clear, [self.picture, *controls], whole, **common)
        self.editor.input(self._draw, [self.editor, self.picture, *controls], answer, **common)
        changes = [control.change for control in (self.label, self.layer, self.head, self.overlay, self.other)]
        # While a slider moves, only its last position is drawn.
        gr.on(changes, self._show, [self.picture, *controls], figures, trigger_mode="always_last", **common)
        for name, tab in self.tabs.items():
            tab.select(self._open_tab(name), [self.picture, *controls], [self.tab, *figures], **common)
        embedding = self.figures["Embeddings", "embedding"]
        embedding.select(self._select_point, [self.picture, *controls], whole, **common)
        self.compare.click(self._compare, controls, self.confusions, **common)
        self.other.change(lambda: gr.update(value=None, visible=False), None, self.confusions, **common)

    def _load(self, which: str, *controls: Any) -> Updates:
        """Show a new visitor the first test image, if there is one."""
        updates = self._thumbnails(which)
        if rows := updates[self.rows]:
            updates |= self._look_at(self.views.sample(rows[0]), *controls)
        return updates

    def _thumbnails(self, which: str) -> Updates:
        """Draw other test images at random."""
        rows = self.views.sample_rows[which]
        chosen = np.random.default_rng(secrets.randbits(32)).permutation(rows)[:THUMBNAILS]
        images = [enlarged(each, side=_THUMBNAIL) for each in self.views.samples(chosen)] if len(chosen) else []
        return {self.gallery: images, self.rows: chosen.tolist()}

    def _select(self, event: gr.SelectData, rows: list[int], *controls: Any) -> Updates:
        return self._look_at(self.views.sample(rows[event.index]), *controls)

    def _upload(self, file: str | None, *controls: Any) -> Updates:
        return self._look_at(Picture(kind="file", file=file), *controls) if file else self._unchanged()

    def _select_point(self, event: gr.SelectData, picture: Picture | None, *controls: Any) -> Updates:
        """Open the training image whose point was clicked."""
        if picture is not None:
            with _warning():
                x, y = event.index
                if found := self.views.nearest_point(picture, self._choice(*controls)[1], x=x, y=y):
                    return self._look_at(found, *controls)
        return self._unchanged()

    def _look_at(self, picture: Picture, *controls: Any) -> Updates:
        """Open another image."""
        with _warning():
            image = enlarged(picture.bare(self.run), side=SIDE)
            return {self.editor: image, **self._answer(picture, *controls)}
        return self._unchanged()

    def _draw(self, drawing: dict[str, Any] | None, picture: Picture | None, *controls: Any) -> Updates:
        """Show the prediction and explanations for the image with the strokes drawn on it."""
        if picture is not None and drawing is not None:
            with _warning():
                return self._answer(replace(picture, strokes=read_strokes(drawing["layers"])), *controls)
        return self._unchanged()

    def _clear(self, picture: Picture | None, *controls: Any) -> Updates:
        """Remove the strokes drawn on the image."""
        return self._unchanged() if picture is None else self._look_at(replace(picture, strokes=None), *controls)

    def _unchanged(self) -> Updates:
        return {self.about: gr.update()}

    def _answer(self, picture: Picture, *controls: Any) -> Updates:
        probabilities = self.views.probabilities(picture)
        hint = ". Draw on it to cover parts." if picture.strokes is None else ", partly covered."
        return {
            self.picture: picture,
            self.about: picture.describe(self.run) + hint,
            self.prediction: _ranking(self.run.classes, probabilities),
            **self._show(picture, *controls),
        }

    def _open_tab(self, tab: str) -> Callable[..., Updates]:
        def select(picture: Picture | None, _: str, *controls: Any) -> Updates:
            return {self.tab: tab, **self._show(picture, tab, *controls)}

        return select

    def _show(self, picture: Picture | None, *controls: Any) -> Updates:
        """Draw the figures of the open tab only."""
        tab, choice = self._choice(*controls)
        view = next(view for view in self.views.views if view.name == tab)
        updates: Updates = {self.figures[tab, name]: gr.update(value=None, visible=False) for name in view.figures}
        if picture is not None:
            with _warning():
                for name, draw in view.figures.items():
                    figure = draw(picture, choice)
                    updates[self.figures[tab, name]] = self._save(figure, name)
                    if name == "embedding" and figure is not None:
                        updates[self.points] = json.dumps(self.views.named_points(figure, picture, choice))
        return updates

    def _compare(self, *controls: Any) -> Any:
        with _warning():
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
        """Write a figure to a file that is downloaded as NAME.png."""
        if figure is None:
            return gr.update(value=None, visible=False)
        path = self.folder / secrets.token_hex(8) / f"{name}.png"
        path.parent.mkdir()
        figure.savefig(path, format="png")
        return gr.update(value=str(path), visible=True)


def _ranking(classes: Sequence[str], probabilities: NDArray[np.float32]) -> str:
    """Return the most probable classes, their probabilities and bars, as HTML."""
    lines = [
        f'<div class="bar" style="--share: {probabilities[label]:.4f}"><span>{escape(classes[label])}</span>'
        f"<b>{percent(float(probabilities[label]))}</b></div>"
        for label in probabilities.argsort()[::-1][:_LISTED_CLASSES]
    ]
    return "".join(lines)


@contextmanager
def _warning() -> Iterator[None]:
    """Show a user error in a corner of the page and continue after the block."""
    try:
        yield
    except UserError as error:
        gr.Warning(str(error))

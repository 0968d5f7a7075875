"""What happens on a click."""

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

from vitexp.app.layout import SIDE, THUMBNAILS, Layout
from vitexp.app.picture import Picture, enlarged, read_strokes
from vitexp.app.views import Choice, Views
from vitexp.errors import UserError

_THUMBNAIL = 96  # pixels a side, or more

Updates = dict[Any, Any]  # new values by component


class Page(Layout):
    """Answers what a visitor does. `folder`: where figures are written, for the server to send and to delete.

    All that belongs to one visitor is in the components and in gr.State, which Gradio keeps apart by session.
    """

    def __init__(self, views: Views, *, folder: Path) -> None:
        super().__init__(views)
        self.folder = folder

    def build(self) -> gr.Blocks:
        blocks = super().build()
        with blocks:
            self._connect(blocks)
        return blocks

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
        self.other.change(lambda: gr.update(value=None, visible=False), None, self.confusions, **common)

    def _first(self, which: str, *controls: Any) -> Updates:
        """The page of a new visitor: a test image, where there are any."""
        gallery, rows = self._thumbnails(which)
        updates: Updates = {self.gallery: gallery, self.rows: rows}
        if rows:
            updates |= self._look_at(Picture(kind="test", row=rows[0]), *controls)
        return updates

    def _thumbnails(self, which: str) -> tuple[Any, list[int]]:
        rows = self.views.test_rows[which]
        chosen = np.random.default_rng(secrets.randbits(32)).permutation(rows)[:THUMBNAILS]
        if not len(chosen):
            return [], []
        images = self.run.data.test.images(chosen)
        return [enlarged(image, side=_THUMBNAIL) for image in images], chosen.tolist()

    def _pick(self, event: gr.SelectData, rows: list[int], *controls: Any) -> Updates:
        return self._look_at(Picture(kind="test", row=rows[event.index]), *controls)

    def _open(self, file: str | None, *controls: Any) -> Updates:
        return self._look_at(Picture(kind="file", file=file), *controls) if file else self._nothing()

    def _go_to(self, event: gr.SelectData, picture: Picture | None, *controls: Any) -> Updates:
        """To the training image whose point was clicked."""
        if picture is None:
            return self._nothing()
        with _sentence():
            x, y = event.index
            if found := self.views.nearest_point(picture, self._choice(*controls)[1], x=x, y=y):
                return self._look_at(found, *controls)
        return self._nothing()

    def _look_at(self, picture: Picture, *controls: Any) -> Updates:
        """At another picture than before."""
        with _sentence():
            image = enlarged(picture.bare(self.run), side=SIDE)
            return {self.editor: image, **self._answer(picture, *controls)}
        return self._nothing()

    def _draw_on(self, drawn: dict[str, Any] | None, picture: Picture | None, *controls: Any) -> Updates:
        """What is drawn over the picture changed."""
        with _sentence():
            if picture is not None and drawn is not None:
                return self._answer(replace(picture, strokes=read_strokes(drawn["layers"])), *controls)
        return self._nothing()

    def _start_again(self, picture: Picture | None, *controls: Any) -> Updates:
        """The picture without what was drawn on it."""
        return self._nothing() if picture is None else self._look_at(replace(picture, strokes=None), *controls)

    def _nothing(self) -> Updates:
        """All stays as it is."""
        return {self.about: gr.update()}

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

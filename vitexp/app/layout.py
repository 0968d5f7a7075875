"""What stands where on the page."""

from __future__ import annotations

import gradio as gr

from vitexp.app.views import Views

SIDE = 320  # pixels of the picture that is drawn on, or more
THUMBNAILS = 12
_CHOICES = 5  # classes in the prediction
_PREDICTED = "the predicted one"
_COVERS: list[str | tuple[str, float]] = ["#808080", "#000000", "#ffffff", "#d03020", "#2050c0", "#e0c020"]
STYLE = """
.figure img { width: 100%; max-width: 1080px; height: auto; object-fit: contain; object-position: left top; }
#gallery .grid-wrap { min-height: 0; max-height: none; overflow: visible; padding: 4px; }
#gallery .grid-container { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 4px; }
#gallery img, #editor canvas { image-rendering: pixelated; }
#gallery .grid-container { grid-auto-rows: auto; grid-template-rows: none; }
#gallery .grid-container > * { aspect-ratio: 1; height: auto; }
#which { align-items: center; flex-wrap: nowrap; }
#which .wrap { flex-wrap: nowrap; gap: 4px; }
#which label { padding: 4px 8px; }
#editor { overflow: hidden; }
"""


class Layout:
    """The components of the page of `views`."""

    def __init__(self, views: Views) -> None:
        self.views, self.run = views, views.run
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
        return blocks

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
            self.file = gr.UploadButton("Upload…", size="sm", min_width=70, elem_id="file")
        self.gallery = gr.Gallery(
            visible=have_test,
            show_label=False,
            columns=THUMBNAILS // 2,
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
            canvas_size=(SIDE, SIDE),
            height=SIDE + 60,
            brush=gr.Brush(default_size=SIDE // 8, colors=_COVERS, default_color=_COVERS[0], color_mode="fixed"),
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

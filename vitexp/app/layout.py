"""The components of the page and their arrangement."""

from __future__ import annotations

import gradio as gr

from vitexp.app.views import Views
from vitexp.metrics import METRICS

SIDE = 320  # minimum size in pixels of the image that is drawn on
THUMBNAILS = 12
_COLORS: list[str | tuple[str, float]] = ["#808080", "#000000", "#ffffff", "#d03020", "#2050c0", "#e0c020"]
STYLE = """
.figure img { width: 100%; max-width: 1080px; height: auto; object-fit: contain; object-position: left top; }
#gallery .grid-wrap { min-height: 0; max-height: none; overflow: visible; padding: 4px; }
#gallery .grid-container { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 4px; }
#gallery img, #editor canvas { image-rendering: pixelated; }
#gallery .grid-container { grid-auto-rows: auto; grid-template-rows: none; }
#gallery .grid-container > * { aspect-ratio: 1; height: auto; }
#tip { position: fixed; pointer-events: none; z-index: 9999; padding: 2px 8px; border-radius: 4px; font-size: 14px;
  background: #22272e; color: #fff; }
#which { align-items: center; flex-wrap: nowrap; }
#which .wrap { flex-wrap: nowrap; gap: 4px; }
#which label { padding: 4px 8px; }
#editor { overflow: hidden; }
#prediction .bar { display: flex; justify-content: space-between; gap: 8px; padding: 3px 6px; margin-bottom: 3px;
  background: linear-gradient(var(--primary-200, #fed7aa) 0 0) 0 0 / calc(100% * var(--share)) 100% no-repeat; }
.dark #prediction .bar { background-image: linear-gradient(var(--primary-800, #9a3412) 0 0); }
@media (max-width: 720px) {  /* on a phone, figures keep a legible size and scroll sideways */
  .figure .image-frame { overflow-x: auto; justify-content: flex-start !important; }
  .figure img { width: 900px; max-width: none; flex: none; }
  #which { flex-wrap: wrap; }
}
"""
# Show the class of the point below the mouse; `props.value` is `Views.named_points` as JSON.
_TIP = """
const tip = Object.assign(document.createElement("div"), {id: "tip", hidden: true});
document.body.append(tip);
document.addEventListener("mousemove", (event) => {
  const image = document.querySelector("#figure-embedding img");
  const box = image?.getBoundingClientRect();
  const scale = box && Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  let nearest = null;
  if (scale && props.value && image.contains(document.elementFromPoint(event.clientX, event.clientY))) {
    const {points, names} = JSON.parse(props.value);
    const [x, y] = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    let reach = 12;
    for (const [across, down, label] of points) {
      const distance = Math.hypot(across - x, down - y);
      if (distance < reach) [reach, nearest] = [distance, names[label]];
    }
  }
  tip.hidden = nearest === null;
  tip.textContent = nearest;
  tip.style.left = `${event.clientX + 14}px`;
  tip.style.top = `${event.clientY + 14}px`;
});
"""


class Layout:
    """The components of the page that shows `views`."""

    def __init__(self, views: Views) -> None:
        self.views, self.run = views, views.run
        self.vit = views.explainer.vit
        self.name = str(self.run.result.get("name") or self.run.folder.parent.name)

    def build(self) -> gr.Blocks:
        """Create the components."""
        blocks: gr.Blocks
        with gr.Blocks(title=f"vitexp: {self.name}", fill_width=True, delete_cache=(600, 3600)) as blocks:
            gr.Markdown(self._heading())
            self.picture, self.rows = gr.State(None), gr.State([])
            self.tab = gr.State(self.views.views[0].name)
            with gr.Row():
                with gr.Column(scale=2, min_width=340):
                    self._build_images()
                with gr.Column(scale=5, min_width=480):
                    self._build_controls()
                    self._build_tabs()
        return blocks

    def _heading(self) -> str:
        result = self.run.result
        model, data, metrics = (result.get(part) or {} for part in ("model", "data", "metrics"))
        parts = [f"{model.get('name', 'model')} on {data.get('name', f'{len(self.run.classes)} classes')}"]
        if parameters := model.get("parameters"):
            parts.append(f"{parameters:,} parameters")
        if accuracy := (metrics.get("test") or {}).get("accuracy"):
            parts.append(f"test accuracy {METRICS['accuracy'].format(accuracy)}")
        return f"## {self.name}\n{' · '.join([*parts, f'run {self.run.folder.name}'])}"

    def _build_images(self) -> None:
        has_samples = len(self.views.sample_rows["all"]) > 0
        with gr.Row(elem_id="which", equal_height=True):
            self.which = gr.Radio(
                ["all", "mistakes"], value="all", show_label=False, container=False, min_width=170, visible=has_samples
            )
            self.shuffle = gr.Button("Shuffle", size="sm", min_width=60, visible=has_samples, elem_id="shuffle")
            self.file = gr.UploadButton("Upload…", size="sm", min_width=70, elem_id="file")
        self.gallery = gr.Gallery(
            visible=has_samples,
            show_label=False,
            columns=THUMBNAILS // 2,
            object_fit="contain",
            height="auto",
            allow_preview=False,
            format="png",
            buttons=[],
            elem_id="gallery",
        )
        if self.views.note:
            gr.Markdown(self.views.note, elem_id="note")
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
            brush=gr.Brush(default_size=SIDE // 8, colors=_COLORS, default_color=_COLORS[0], color_mode="fixed"),
            elem_id="editor",
            buttons=[],
        )
        self.prediction = gr.HTML("", elem_id="prediction")

    def _build_controls(self) -> None:
        classes = [(f"{number} {name}", number) for number, name in enumerate(self.run.classes)]
        depth, heads = (self.vit.depth, self.vit.num_heads) if self.vit else (0, 0)
        with gr.Row(equal_height=True):
            self.label = gr.Dropdown(
                [("predicted class", -1), *classes], value=-1, label="Class to explain", min_width=150, elem_id="class"
            )
            # A slider needs two different ends, even if it is hidden.
            self.layer = gr.Slider(
                1, max(depth, 2), value=depth or 1, step=1, label="Attention layer", visible=depth > 1, elem_id="layer"
            )
            self.head = gr.Slider(
                0, max(heads, 1), value=0, step=1, label="Head (0: mean)", visible=heads > 1, elem_id="head"
            )
            self.overlay = gr.Checkbox(True, label="Overlay maps on the image", elem_id="overlay")

    def _build_tabs(self) -> None:
        self.tabs: dict[str, gr.Tab] = {}
        self.figures: dict[tuple[str, str], gr.Image] = {}
        with gr.Tabs(overflow_behavior="wrap"):
            for view in self.views.views:
                with gr.Tab(view.name) as self.tabs[view.name]:
                    gr.Markdown(view.description)
                    if view.name == "Two runs":
                        self._build_other()
                    for name in view.figures:
                        self.figures[view.name, name] = _figure(name)
                    if view.name == "Embeddings":
                        self.points = gr.HTML("", elem_id="points", html_template="", js_on_load=_TIP)
                    if view.name == "Two runs":
                        self.compare = gr.Button("Compare confusions on all test images (slow)", size="sm")
                        self.confusions = _figure("confusions")

    def _build_other(self) -> None:
        runs = [(name, str(folder)) for folder, name in self.views.others().items()]
        label = "Other run with the same classes, and its test accuracy"
        none = "none" if runs else "there is none in this log folder"
        self.other = gr.Dropdown([(none, ""), *runs], value="", label=label, elem_id="other", interactive=bool(runs))


def _figure(name: str) -> gr.Image:
    """Create a hidden image component, with buttons to download and enlarge its figure."""
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

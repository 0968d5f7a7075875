"""The model card of a run for the Hugging Face Hub, made from its record."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from vitexp.config.components import facts
from vitexp.config.renames import section_defaults
from vitexp.data.source import printable
from vitexp.metrics import metric
from vitexp.runs.finished import FinishedRun
from vitexp.runs.record import data_set
from vitexp.runs.summary import accuracy_interval
from vitexp.text import duration, markdown, markdown_table, plural

# The Hub's names of metrics, where they differ from ours.
_ON_THE_HUB = {"precision_macro": "precision", "recall_macro": "recall", "f1_macro": "f1"}
_LIBRARIES = ("vitexp.", "albumentations.", "torch.", "torchvision.")


def model_card(
    run: FinishedRun, config: DictConfig, result: dict[str, Any], *, repository: str, not_in_timm: str
) -> str:
    """Return README.md, with the YAML header that the Hub reads.

    config, result: as they are published. repository: OWNER/NAME; may be empty. not_in_timm: why timm cannot read the
    weights, as a sentence; "" if it can.
    """
    import jinja2  # imported only when a card is written

    environment = jinja2.Environment(  # noqa: S701 - Markdown, whose texts are escaped by `markdown`
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["markdown"] = lambda text: markdown(printable(str(text)))
    name = data_set(config.data)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    repository = repository or "OWNER/NAME"
    template = Path(__file__).with_name("model_card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        header=_header(run, config, result, name=name, in_timm=not not_in_timm),
        title=config.name,
        kind=_kind(run, config),
        parameters=result["model"]["parameters"],
        flops=result["model"].get("flops_per_image"),
        size=run.image_size,
        classes=run.classes,
        repository=repository,
        folder=repository.rpartition("/")[2],
        others=sorted(set(_classes_elsewhere([plain["model"], plain["data"]["prepare"]]))),
        not_in_timm=not_in_timm,
        mean=[round(value, 4) for value in run.mean.tolist()],
        std=[round(value, 4) for value in run.std.tolist()],
        preparation=[described(step) for step in plain["data"]["prepare"]],
        interval=accuracy_interval(result),
        metrics=_metric_table(result),
        counts=result["data"],
        data=name,
        training=list(_training(run, plain, result)),
        command=shlex.join(["vitexp", "train", *result.get("options", []), *result.get("overrides", [])]),
        limitations=list(_limitations(run, config, result, name)),
    )


def described(node: Any) -> str:
    """Return a component as a call: {"_target_": "torch.optim.AdamW", "lr": 0.001} is "AdamW(lr=0.001)"."""
    if isinstance(node, Mapping) and "_target_" in node:
        arguments = (f"{key}={described(value)}" for key, value in node.items() if not key.startswith("_"))
        return f"{str(node['_target_']).rpartition('.')[2]}({', '.join(arguments)})"
    if isinstance(node, Mapping):
        return f"{{{', '.join(f'{key}: {described(value)}' for key, value in node.items())}}}"
    if isinstance(node, list | tuple):
        return f"[{', '.join(map(described, node))}]"
    return f"{node:g}" if isinstance(node, float) else str(node)


def _kind(run: FinishedRun, config: DictConfig) -> str:
    family = facts(config.model).get("family") or config.model.get("timm_name") or type(run.net).__name__
    return f"{family}, {config.model.name}" if family != config.model.name else str(family)


def _header(run: FinishedRun, config: DictConfig, result: dict[str, Any], *, name: str, in_timm: bool) -> str:
    """Return the YAML that the Hub reads. The license is the user's to choose."""
    measured = {key: value for key, value in result["metrics"]["test"].items() if value is not None}
    values = [
        {"type": _ON_THE_HUB.get(key, key), "value": round(value, 6), "name": f"test {metric(key).label}"}
        for key, value in measured.items()
    ]
    dataset = {"name": name, "type": re.sub(r"[^\w.-]+", "-", name).strip("-").lower() or "images", "split": "test"}
    task = {"type": "image-classification", "name": "Image classification"}
    header: dict[str, Any] = {
        "library_name": "timm" if in_timm else "vitexp",
        "pipeline_tag": "image-classification",
        "tags": ["vitexp", "image-classification", *["timm"] * in_timm],
        **({"datasets": [on_hub]} if (on_hub := _data_on_hub(config, run.config)) else {}),
        "model-index": [{"name": str(config.name), "results": [{"task": task, "dataset": dataset, "metrics": values}]}],
    }
    return str(yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)).strip()


def _data_on_hub(published: DictConfig, own: DictConfig) -> str:
    """Return the name of the data set on the Hub; "" if its images come from elsewhere."""
    path = str(own.data.get("path") or "")
    if own.data.name != "huggingface" or path != published.data.get("path") or Path(path).exists():
        return ""
    return "/".join(path.split("/")[:2])


def _metric_table(result: dict[str, Any]) -> str:
    test, val = result["metrics"]["test"], result["metrics"].get("val") or {}
    rows = [
        [metric(name).label, metric(name).format(value), metric(name).format(val.get(name))]
        for name, value in test.items()
    ]
    counts = result["data"]
    heading = ["metric", f"test ({plural(counts['test'], 'image')})", f"validation ({counts['val']:,})"]
    return markdown_table(heading, rows, ("left", "right", "right"))


def _training(run: FinishedRun, plain: dict[str, Any], result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each part of the recipe."""
    yield "length", f"{plural(result['epochs'], 'epoch')}, {plural(result['steps'], 'step')}"
    yield "batch size", f"{run.batch_size:,}"
    yield "optimizer", described(plain["optim"])
    yield "schedule", described(plain["schedule"])
    yield "loss", described(plain["loss"])
    yield "augmentation", described(plain["augment"])
    usual = section_defaults()["training"]
    mixing = ("mixup_alpha", "cutmix_alpha")
    mixed = any(plain["training"].get(key) for key in mixing)
    changed = {key: value for key, value in plain["training"].items() if value != usual.get(key)}
    if not mixed:
        yield "mixing of images", "none"
    if changed:
        yield "options of training", ", ".join(f"{key}={described(value)}" for key, value in changed.items())
    yield "seed", str(result.get("seed", plain["seed"]))
    environment = result.get("environment") or {}
    versions = [f"{name} {environment[name]}" for name in ("torch", "lightning", "python") if environment.get(name)]
    yield "software", ", ".join(versions)
    fit = (result.get("timing") or {}).get("fit_s")
    if environment.get("device") and fit is not None:
        yield "hardware", f"{environment['device']}; trained for {duration(fit)}"


def _limitations(run: FinishedRun, config: DictConfig, result: dict[str, Any], name: str) -> Iterator[str]:
    counts, weights = result["data"], result["model"].get("weights")
    start = f"The weights started from {weights['from']}" if weights else "The weights started from random numbers"
    yield (
        f"{start}, and the network was trained on {plural(counts['train'], 'image')} of {name} at {run.image_size} x "
        f"{run.image_size} pixels: it cannot see details that are lost at this size."
    )
    yield f"It knows only {len(run.classes):,} classes, and assigns one of them to every image, whatever it shows."
    if config.data.name == "signs":
        yield "All of these images were drawn by a program; none is a photograph."
    ece = result["metrics"]["test"].get("ece")
    if ece is not None:
        yield (
            f"Its confidence and its share of correct predictions differ by {100 * ece:.1f} percentage points on "
            "average (calibration error on the test images)."
        )
    yield f"The numbers are those of one run with one seed on the test images of {name} and no other data."
    if folds := config.data.get("folds"):
        yield f"It is one fold of {folds} in a cross-validation: a part of the training images was left out."
    if config.data.get("test_fraction") is not None:
        yield "If the data had no folder of test images, these are a random part of the same folder."
    if result.get("debug"):
        yield "It comes from a debug run, which only tries things out."


def _classes_elsewhere(node: Any) -> Iterator[str]:
    """Yield the classes in a configuration that belong to none of the usual libraries."""
    if isinstance(node, Mapping):
        target = str(node.get("_target_", ""))
        if target and not target.startswith(_LIBRARIES):
            yield target
    for child in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _classes_elsewhere(child)

"""Find the key that an unknown word means: `lr` is optim.lr, `epochs` is trainer.max_epochs."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

# What other programs call a key. An entry counts only if the configuration has the key.
_NAMES = {
    "lr": "optim.lr",
    "learningrate": "optim.lr",
    "wd": "optim.weight_decay",
    "epoch": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "numepochs": "trainer.max_epochs",
    "nepochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "workers": "data.num_workers",
    "imgsize": "data.image_size",
    "size": "data.image_size",
    "dataset": "data",
    "datadir": "data.root",
    "datapath": "data.root",
    "dataroot": "data.root",
    "arch": "model",
    "net": "model",
    "optimizer": "optim",
    "scheduler": "schedule",
    "augmentation": "augment",
    "warmup": "schedule.warmup_epochs",
    "mixup": "training.mixup_alpha",
    "cutmix": "training.cutmix_alpha",
    "ema": "training.ema_decay",
    "weights": "model.weights",
    "pretrained": "model.weights",
    "heads": "model.num_heads",
    "embeddim": "model.dim",
    "gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "gradclip": "trainer.gradient_clip_val",
    "clipgrad": "trainer.gradient_clip_val",
    "output": "log_dir",
    "outputdir": "log_dir",
    "outdir": "log_dir",
    "logdir": "log_dir",
}


def likely_keys(word: str, known: Collection[str]) -> list[str]:
    """Return the keys of `known` that `word`, an unknown key, most likely means; empty if none is similar.

    known: dotted keys and groups of the selected options.
    """
    last = _plain(word.rpartition(".")[2])
    if (meant := _NAMES.get(last)) in known and meant != word:
        return [str(meant)]
    by_name = [key for key in known if _plain(key.rpartition(".")[2]) == last]
    if by_name:
        return _nearest(word, by_name) or by_name[:3]
    if "." in word:
        group = [key for key in known if key.startswith(f"{word.partition('.')[0]}.")]
        return _nearest(word, list(known), cutoff=0.8) or _nearest(last, group, cutoff=0.5)
    if near := _nearest(word, [key for key in known if "." not in key], cutoff=0.75):
        return near
    ends = {key.rpartition(".")[2]: key for key in reversed(list(known))}
    return [ends[end] for end in _nearest(word, list(ends), cutoff=0.75)]


def corrected(words: Sequence[str], known: Collection[str]) -> list[str] | None:
    """Return `words` as overrides where they are options of another program, such as `--lr 0.1` or `--lr=0.1`.

    Words that need no correction are kept. Returns None if a word means nothing.
    """
    fixed, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            fixed.append(word)
            continue
        key, equals, value = word.lstrip("-").partition("=")
        if not equals:
            if not rest or rest[0].startswith("-") or "=" in rest[0]:
                return None
            value = rest.pop(0)
        key = key.replace("-", "_")
        keys = [key] if key in known else likely_keys(key, known)
        if not keys:
            return None
        fixed.append(f"{keys[0]}={value}")
    return fixed


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _nearest(word: str, known: Sequence[str], *, cutoff: float = 0.5) -> list[str]:
    return difflib.get_close_matches(word[:100], known, n=3, cutoff=cutoff)

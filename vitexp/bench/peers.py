"""Other implementations: the Vision Transformers of timm and vit-pytorch, and a standard pipeline on image files."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from vitexp.config.components import facts
from vitexp.errors import ConfigError
from vitexp.runs.build import build_net


def peer_nets(config: DictConfig, *, num_classes: int) -> dict[str, nn.Module]:
    """Return nets with the dimensions of config.model, float [B, 3, S, S] to logits, by name.

    SimpleViT has no class token, fixed positions and no dropout; the others match config.model with its plain options.
    A network with stages has timm's as its only peer. Raises ConfigError if a package is missing, timm lacks the
    network, or config.model has no attention.
    """
    model, image_size = config.model, config.data.image_size
    if facts(model).get("family") not in (None, "ViT"):
        try:
            stated = build_net(config, num_classes=num_classes).timm_config()  # type: ignore[operator]
        except ValueError as error:
            raise ConfigError(f"peers=true: {error}") from error
        sizes = {**stated["model_args"], "num_classes": num_classes, "drop_path_rate": model.drop_path}
        net = _package("timm").create_model(stated["architecture"], **sizes)
        return {f"timm {type(net).__name__}": net}
    if not facts(model).get("has_attention"):
        raise ConfigError(
            f"peers=true compares Vision Transformers, but model={model.name} is not one; drop peers=true."
        )
    timm, vit_pytorch = _package("timm"), _package("vit_pytorch")
    sizes = {"image_size": image_size, "patch_size": model.patch_size, "num_classes": num_classes}
    sizes |= {"dim": model.dim, "depth": model.depth, "heads": model.num_heads}
    sizes |= {"dim_head": model.dim // model.num_heads, "mlp_dim": int(model.dim * model.mlp_ratio)}
    return {
        "timm VisionTransformer": timm.models.VisionTransformer(
            img_size=image_size,
            patch_size=model.patch_size,
            num_classes=num_classes,
            embed_dim=model.dim,
            depth=model.depth,
            num_heads=model.num_heads,
            mlp_ratio=model.mlp_ratio,
        ),
        "vit-pytorch ViT": vit_pytorch.ViT(**sizes),
        "vit-pytorch SimpleViT": vit_pytorch.SimpleViT(**sizes),
    }


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"peers=true needs {name}: pip install timm vit-pytorch.") from error


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """PPM files and their labels; an item is an augmented, normalized image, float32 [3, S, S], and its label."""

    def __init__(self, *, files: list[tuple[Path, int]], image_size: int, mean: ArrayLike, std: ArrayLike) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.RandomRotation(15),
                transforms.RandomCrop(image_size, padding=image_size // 8),
                transforms.ToTensor(),
                transforms.Normalize(np.asarray(mean).tolist(), np.asarray(std).tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        return self.transform(Image.fromarray(equalized(pixels))), label


def equalized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply CLAHE to the lightness of an image, uint8 [H, W, 3]; 4x4 tiles, clip limit 2."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def write_files(batches: Iterable[tuple[Tensor, Tensor]], folder: Path, *, count: int) -> list[tuple[Path, int]]:
    """Write the first `count` images of `batches` (uint8 [B, S, S, 3], int64 [B]) as PPM; return paths and labels."""
    files: list[tuple[Path, int]] = []
    for images, labels in batches:
        for image, label in zip(images.cpu().numpy(), labels.tolist(), strict=True):
            if len(files) == count:
                return files
            files.append((folder / f"{len(files):05}.ppm", label))
            Image.fromarray(image).save(files[-1][0])
    return files


def file_loader(
    dataset: ImageFiles, *, batch_size: int, workers: int, pin_memory: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of shuffled batches, float32 [B, 3, S, S] and labels, with persistent worker processes."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # collation makes batches of its items
        batch_size=min(batch_size, len(dataset)),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
    )


def _one_thread(worker_id: int) -> None:
    """Run OpenCV in one thread, because the workers already share the cores; torch does so by itself."""
    cv2.setNumThreads(0)

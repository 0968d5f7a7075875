"""The usual pipeline on image files: PIL, CLAHE at every access, torchvision's transforms, DataLoader workers.

It is spared what it can be: the files are uncompressed and of the right size, CLAHE is OpenCV's own, and the workers
stay alive between epochs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """PPM files and their labels; an item is float [3, S, S], augmented and normalized, and a label."""

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
    """CLAHE of the lightness, 4x4 tiles, clip limit 2: uint8 [H, W, 3] to the same."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def write_files(batches: Iterable[tuple[Tensor, Tensor]], folder: Path, *, count: int) -> list[tuple[Path, int]]:
    """The first `count` images of `batches` (uint8 [B, S, S, 3], int64 [B]) as PPM files; each with its label."""
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
    """Shuffled batches of float [B, 3, S, S] and labels, from `workers` processes that stay alive."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # collation turns its items into batches
        batch_size=min(batch_size, len(dataset)),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
    )


def _one_thread(worker_id: int) -> None:
    """The workers share the cores already (torch sees to its own threads)."""
    cv2.setNumThreads(0)

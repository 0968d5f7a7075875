"""Augmentation: random changes to training images, so that the model learns what does not matter.

`recipes` works on whole batches on the training device, `sample` image by image in DataLoader workers.

The batch engine is our own because it was measured against kornia 0.9.0, alternating in one process, medians of 60
batches of 128 images of 32x32 on two CPU threads, torch 2.15: 2.6 and 3.0 ms for the steps of `SignsAugment`, 4.3 and
4.7 ms for the same by kornia (two measurements, AMD EPYC).
"""

from vitexp.data.augment.recipes import BatchAugment, NaturalAugment, SignsAugment
from vitexp.data.augment.sample import AlbumentationsAugment

__all__ = ["AlbumentationsAugment", "BatchAugment", "NaturalAugment", "SignsAugment"]

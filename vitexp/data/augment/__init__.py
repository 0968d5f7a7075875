"""Augmentation: random changes to training images, so that the model learns what does not matter.

`recipes` works on whole batches on the training device, `sample` image by image in DataLoader workers.
"""

from vitexp.data.augment.recipes import BatchAugment, NaturalAugment, SignsAugment
from vitexp.data.augment.sample import AlbumentationsAugment

__all__ = ["AlbumentationsAugment", "BatchAugment", "NaturalAugment", "SignsAugment"]

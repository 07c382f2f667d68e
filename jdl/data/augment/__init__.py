"""Augmentation: pure functions ``augmentation(key, batch) -> batch``, to run inside the compiled step.

``jdl.augmented(objective, Crop(4), Flip())`` applies them in training, and never in evaluation.
"""

from jdl.data.augment.base import Augmentation, Compose, ImageAugmentation
from jdl.data.augment.binarise import Binarise
from jdl.data.augment.geometry import Crop, Flip, ResizedCrop, Rotate
from jdl.data.augment.mixing import CutMix, Mixup
from jdl.data.augment.values import Colour, Erase, Noise

__all__ = [
    "Augmentation",
    "Binarise",
    "Colour",
    "Compose",
    "Crop",
    "CutMix",
    "Erase",
    "Flip",
    "ImageAugmentation",
    "Mixup",
    "Noise",
    "ResizedCrop",
    "Rotate",
]

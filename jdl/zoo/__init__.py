"""Networks by name, built from the public layers of :mod:`jdl.nn`: to train, to change, and to read."""

from jdl.zoo.feedforward import BinaryClassifier, DeepFeedForward, FeedForward, SimpleNet, XORNet
from jdl.zoo.radial import RadialBasisNetwork
from jdl.zoo.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    ResNet18,
    ResNet20,
    ResNet50,
    padded_shortcut,
    projection_shortcut,
)
from jdl.zoo.unet import DoubleConvolution, UNet

__all__ = [
    "BasicBlock",
    "BinaryClassifier",
    "Bottleneck",
    "DeepFeedForward",
    "DoubleConvolution",
    "FeedForward",
    "RadialBasisNetwork",
    "ResNet",
    "ResNet18",
    "ResNet20",
    "ResNet50",
    "SimpleNet",
    "UNet",
    "XORNet",
    "padded_shortcut",
    "projection_shortcut",
]

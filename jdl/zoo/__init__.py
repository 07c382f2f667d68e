"""Networks by name, built from the public layers of :mod:`jdl.nn`: to train, to change, and to read."""

from jdl.zoo.autoencoders import (
    Autoencoder,
    Coded,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    DenseDecoder,
    DenseEncoder,
    SparseAutoencoder,
    Variational,
    VariationalAutoencoder,
)
from jdl.zoo.convolutional import ConvolutionalNet, LeNet5
from jdl.zoo.feedforward import BinaryClassifier, DeepFeedForward, FeedForward, SimpleNet, XORNet
from jdl.zoo.forecasting import Forecaster, FromLastValue, LinearForecaster
from jdl.zoo.gan import (
    GAN,
    Criticised,
    DCGANDiscriminator,
    DCGANGenerator,
    Judged,
    WassersteinGAN,
    resize_convolution,
    transposed_convolution,
)
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
from jdl.zoo.sequence_to_sequence import (
    Bridge,
    LuongAttention,
    RecurrentDecoder,
    RecurrentEncoder,
    SequenceToSequence,
)
from jdl.zoo.text import TextNet, both_ends, max_over_time, mean_over_time
from jdl.zoo.unet import DoubleConvolution, UNet
from jdl.zoo.vision_transformer import EncoderBlock, VisionTransformer, ViTBase

__all__ = [
    "GAN",
    "Autoencoder",
    "BasicBlock",
    "BinaryClassifier",
    "Bottleneck",
    "Bridge",
    "Coded",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalNet",
    "Criticised",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DeepFeedForward",
    "DenseDecoder",
    "DenseEncoder",
    "DoubleConvolution",
    "EncoderBlock",
    "FeedForward",
    "Forecaster",
    "FromLastValue",
    "Judged",
    "LeNet5",
    "LinearForecaster",
    "LuongAttention",
    "RadialBasisNetwork",
    "RecurrentDecoder",
    "RecurrentEncoder",
    "ResNet",
    "ResNet18",
    "ResNet20",
    "ResNet50",
    "SequenceToSequence",
    "SimpleNet",
    "SparseAutoencoder",
    "TextNet",
    "UNet",
    "Variational",
    "VariationalAutoencoder",
    "ViTBase",
    "VisionTransformer",
    "WassersteinGAN",
    "XORNet",
    "both_ends",
    "max_over_time",
    "mean_over_time",
    "padded_shortcut",
    "projection_shortcut",
    "resize_convolution",
    "transposed_convolution",
]

"""LeNet-5 and the handouts' network: PyTorch's values and gradients, their sizes, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jdl import nn, zoo
from tests.golden.networks import assert_as_pytorch
from tests.nn.toys import refused

MODELS = {"lenet": zoo.LeNet5(), "handout": zoo.ConvolutionalNet(3, flattened=None)}


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_pytorch(name: str):
    assert_as_pytorch("convolutional", name, MODELS[name])


def image(size: int, channels: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (zoo.LeNet5(), (28, 1), 61_706),
        (zoo.LeNet5(), (32, 1), 61_706),
        (zoo.ConvolutionalNet(), (30, 3), 127_242),
        (zoo.ConvolutionalNet(), (31, 3), 127_242),
        (zoo.ConvolutionalNet(flattened=None), (32, 3), 145_802),
    ],
)
def test_the_sizes(model: nn.Layer, shape: tuple[int, int], parameters: int):
    spec = model.spec(image(*shape))
    assert spec.parameters == parameters and f"{parameters:,}" in (type(model).__doc__ or "")
    assert spec.output.shape == (2, 10)


def test_the_handouts_network_does_not_fit_the_images_it_was_written_for():
    with refused(
        "float32[2, 32, 32, 3], of which 64·15·15 = 14400 numbers reach the last layer",
        "declared for 64·14·14 = 12544; ",
        "use 30×30 images, or ConvolutionalNet(flattened=None)",
    ):
        zoo.ConvolutionalNet().spec(image(32, 3))


def test_what_is_refused():
    with refused("float32[2, 8, 8, 1], wanted images of 32×32 or 28×28; put nn.Resize(32) before it"):
        zoo.LeNet5().spec(image(8, 1))
    with refused("64·3·3 = 576 numbers", "declared for 400; use ConvolutionalNet(flattened=None)"):
        zoo.ConvolutionalNet(flattened=400).spec(image(8, 1))
    with refused("float32[2, 3, 3, 1]", "wanted at least 4×4"):
        zoo.ConvolutionalNet(flattened=None).spec(image(3, 1))
    with refused("float32[2, 28, 28], wanted [B, H, W, C]; add a channel axis"):
        zoo.LeNet5().spec(jax.ShapeDtypeStruct((2, 28, 28), jnp.float32))
    for model, channels in ((zoo.LeNet5(), 1), (zoo.LeNet5(), 3), (zoo.ConvolutionalNet(), 1)):
        with refused(f"float32[2, {channels}, 28, 28], ", "channels come last: x.transpose(0, 2, 3, 1)"):
            model.spec(jax.ShapeDtypeStruct((2, channels, 28, 28), jnp.float32))
    assert nn.Chain(nn.Resize(32), zoo.LeNet5()).spec(image(8, 1)).output.shape == (2, 10)

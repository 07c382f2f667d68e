"""The U-Net: PyTorch's values and gradients, its published size, the sizes of images that it takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import nn, zoo
from tests.golden.networks import assert_as_pytorch, assert_values
from tests.nn.toys import refused


def test_values_and_gradients_are_those_of_pytorch():
    assert_as_pytorch("unet", "plain", zoo.UNet(2, depth=2, block=zoo.DoubleConvolution(2)))


def test_values_with_norms_are_those_of_pytorch():
    assert_values("unet", "norm", zoo.UNet(3, depth=1, block=zoo.DoubleConvolution(2, norm=nn.BatchNorm())))


def image(height: int, width: int, channels: int = 1) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)


def test_the_published_size():
    """Two 3×3 convolutions at 64 to 1,024 features down and at 512 to 64 up, 2×2 ones between, biases everywhere."""
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    double = sum(9 * a * b + b + 9 * b * b + b for a, b in [*down, *((2 * b, b) for b in (64, 128, 256, 512))])
    enlarge = sum(4 * 2 * b * b + b for b in (64, 128, 256, 512))
    spec = zoo.UNet(2).spec(image(64, 96))
    assert spec.parameters == double + enlarge + 2 * 64 + 2 == 31_030_658
    assert spec.output.shape == (2, 64, 96, 2)
    assert f"{spec.parameters:,}" in zoo.UNet.__doc__


def test_depth_zero_is_one_block():
    assert zoo.UNet(2, depth=0).spec(image(5, 7)).output.shape == (2, 5, 7, 2)


def test_what_is_refused():
    with refused("UNet.depth got -1, wanted an int of at least 0"):
        zoo.UNet(2, depth=-1)
    with refused("float32[2, 28, 28, 1], wanted sides that are multiples of 16", "crop to 16×16 or pad to 32×32"):
        zoo.UNet(2).spec(image(28, 28))
    with refused("multiples of 4, as depth=2", "crop to 8×12 or pad to 8×16"):
        zoo.UNet(2, depth=2).spec(image(8, 13))
    with refused("divides by 16: wanted at least 16×16"):
        zoo.UNet(2).spec(image(8, 64))
    with refused("float32[2, 32, 32], wanted [B, H, W, C]; add a channel axis"):
        zoo.UNet(2).spec(jax.ShapeDtypeStruct((2, 32, 32), jnp.float32))

"""Residual networks: PyTorch's values and gradients, the published sizes, the parts, what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn, zoo
from tests.golden.networks import assert_as_pytorch
from tests.nn.toys import KEY, refused


def conv(features: int, size: int, stride: int = 1) -> nn.Conv:
    return nn.Conv(features, size, stride=stride, padding=size // 2, bias=False)


PADDED = zoo.BasicBlock(8, shortcut=zoo.padded_shortcut)
MODELS = {
    "basic": zoo.ResNet((1, 1), 3, block=zoo.BasicBlock(4), stem=conv(4, 7, 2)),
    "padded": zoo.ResNet((2, 1), 3, block=PADDED, stem=conv(4, 3), pool=None),
    "bottleneck": zoo.ResNet((1, 1), 3, block=zoo.Bottleneck(2), stem=conv(4, 3), pool=None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_pytorch(name: str):
    assert_as_pytorch("resnet", name, MODELS[name])


def image(size: int, channels: int = 3) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)


@pytest.mark.parametrize(
    ("function", "size", "parameters"),
    [(zoo.ResNet18, 224, 11_689_512), (zoo.ResNet50, 224, 25_557_032), (zoo.ResNet20, 32, 269_722)],
)
def test_the_published_sizes(function, size: int, parameters: int):
    spec = function().spec(image(size))
    assert spec.parameters == parameters and f"{parameters:,}" in function.__doc__
    assert spec.output.shape == (2, 10 if size == 32 else 1000)


def test_the_sisters_of_resnet_20():
    """Table 6 of the paper: 0.46 M for 32 layers; option B adds the projections."""
    sister = dataclasses.replace(zoo.ResNet20(), stages=(5, 5, 5)).spec(image(32))
    assert sister.parameters == 464_154
    projected = zoo.ResNet20(shortcut=zoo.projection_shortcut).spec(image(32))
    assert projected.parameters - 269_722 == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


def test_the_norm_is_swapped_everywhere():
    spec = zoo.ResNet18(norm=nn.GroupNorm(32)).spec(image(64))
    assert not spec.state and spec.parameters == 11_689_512


def test_kernels_start_with_the_variance_of_their_fan_out():
    init = zoo.ResNet18().stem.kernel_init
    std = jax.jit(lambda: jnp.std(init(KEY, (3, 3, 16, 64))))()
    assert std == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)


def test_a_shortcut_keeps_every_second_cell_and_pads_channels_on_both_sides():
    layer, x = zoo.padded_shortcut(5, 2, nn.BatchNorm()), np.arange(18, dtype=np.float32).reshape(1, 3, 3, 2)
    y = np.asarray(layer(nn.Variables({}, {}), x))
    np.testing.assert_array_equal(y[..., 1:3], x[:, ::2, ::2])
    assert y.shape == (1, 2, 2, 5) and not y[..., [0, 3, 4]].any()


def test_what_is_refused():
    with refused("float32[2, 31, 31, 3], whose sides the network divides by 32", "wanted at least 32×32"):
        zoo.ResNet18().spec(image(31))
    with refused("divides by 4", "use larger images"):
        zoo.ResNet20().spec(image(3))
    with refused("channels come last: x.transpose(0, 2, 3, 1)"):
        zoo.ResNet18().spec(jax.ShapeDtypeStruct((2, 3, 64, 64), jnp.float32))
    with refused("float32[32, 32, 3], wanted [B, H, W, C]"):
        zoo.ResNet20().spec(jax.ShapeDtypeStruct((32, 32, 3), jnp.float32))
    with refused("uint8[2, 32, 32, 3], wanted a floating dtype", "/ 255"):
        zoo.ResNet20().spec(jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8))
    zoo.ResNet18().spec(image(32))
    with refused("float32[2, 4, 4, 8], wanted at most 5 channels", "use projection_shortcut"):
        zoo.padded_shortcut(5, 1, nn.BatchNorm()).spec(image(4, 8))
    for stages, message in (((2, 0), "ResNet.stages got (2, 0)"), ((), "got ()"), (3, "got 3, wanted how many blocks")):
        with refused(message):
            zoo.ResNet(stages, 3)  # pyright: ignore[reportArgumentType]
    with refused("PaddedIdentity.stride got 0"):
        zoo.padded_shortcut(5, 0, nn.BatchNorm())

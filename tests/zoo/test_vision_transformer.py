"""The vision transformer: PyTorch's values and gradients, its published size, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jdl import nn, zoo
from tests.golden.networks import assert_as_pytorch, assert_values
from tests.nn.toys import KEY, normal, refused


def small(class_token: bool = True, dropout: float = 0.0) -> zoo.VisionTransformer:
    block = zoo.EncoderBlock(2, dropout=dropout)
    return zoo.VisionTransformer(3, patch=4, width=8, depth=2, block=block, class_token=class_token)


@pytest.mark.slow
def test_values_and_gradients_are_those_of_pytorch():
    assert_as_pytorch("vision_transformer", "token", small())


def test_values_from_the_mean_of_patches_are_those_of_pytorch():
    assert_values("vision_transformer", "mean", small(class_token=False))


def image(height: int, width: int, channels: int = 3) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)


def test_the_published_size():
    spec = zoo.ViTBase().spec(image(224, 224))
    assert spec.parameters == 86_567_656 and "86,567,656" in zoo.ViTBase.__doc__
    assert spec.params["positions"].shape == (14 * 14 + 1, 768)
    assert spec.params["blocks"]["network"]["expand"]["kernel"].shape == (12, 768, 3072)


def test_dropout_is_for_training_alone():
    def output(train: bool) -> jax.Array:
        model = small(dropout=0.5)
        return model.apply(*model.init(KEY, image(8, 8)), normal(2, 8, 8, 3), train=train)[0]

    jax.eval_shape(lambda: output(train=False))
    with refused("in blocks/drop: Dropout(0.5)", "pass key="):
        jax.eval_shape(lambda: output(train=True))


@pytest.mark.parametrize("class_token", [True, False])
def test_no_images_give_no_logits(class_token: bool):
    assert small(class_token).spec(jax.ShapeDtypeStruct((0, 8, 8, 3), jnp.float32)).output.shape == (0, 3)


def test_what_is_refused():
    with refused("VisionTransformer.patch got 0, wanted a positive int"):
        zoo.VisionTransformer(3, patch=0, width=8, depth=2, block=zoo.EncoderBlock(2))
    with refused("EncoderBlock.hidden got 0"):
        zoo.EncoderBlock(2, hidden=0)
    with refused("float32[2, 30, 32, 3], wanted sides that are multiples of patch=4", "resize or crop"):
        small().spec(image(30, 32))
    with refused("float32[2, 3, 32, 3]", "wanted at least 4×4"):
        small().spec(image(3, 32))
    with refused("float32[2, 7, 8], wanted a last axis that 3 heads divide"):
        zoo.VisionTransformer(3, patch=4, width=8, depth=2, block=zoo.EncoderBlock(3)).spec(image(8, 12))
    with refused("for which positions is float32[5, 8], but it is float32[7, 8]"):
        model = small()
        variables = jax.eval_shape(model.init, KEY, image(8, 12))
        jax.eval_shape(model, variables, normal(2, 8, 8, 3))
    assert isinstance(small().norm, nn.LayerNorm)

"""The feed-forward networks: PyTorch's values and gradients, the parts that can be swapped, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn, zoo
from tests.golden.feedforward import assert_as_pytorch
from tests.nn.toys import KEY, apply_jitted, assert_close, normal, refused

MODELS = {
    "FeedForward": zoo.FeedForward(4, 3, activation=nn.tanh),
    "DeepFeedForward": zoo.DeepFeedForward((5, 4), 3, activation=nn.gelu, norm=nn.LayerNorm()),
    "XORNet": zoo.XORNet(),
    "BinaryClassifier": zoo.BinaryClassifier(),
    "SimpleNet": zoo.SimpleNet(),
}


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_pytorch(name: str):
    assert_as_pytorch(name, MODELS[name])


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (zoo.FeedForward(32, 10), (8, 8, 1), 2_410),
        (zoo.DeepFeedForward((256, 128, 64), 10), (8, 8, 1), 58_442),
        (zoo.XORNet(), (2,), 9),
        (zoo.BinaryClassifier(), (10,), 769),
        (zoo.SimpleNet(), (28, 28, 1), 101_770),
    ],
)
def test_the_standard_size(model: nn.Layer, shape: tuple[int, ...], parameters: int):
    spec = model.spec(jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    assert spec.parameters == parameters
    about = (getattr(zoo, name := type(model).__name__, None) or MODELS_BY_SHAPE[shape]).__doc__
    assert f"{parameters:,}" in about, name


MODELS_BY_SHAPE = {(2,): zoo.XORNet, (10,): zoo.BinaryClassifier, (28, 28, 1): zoo.SimpleNet}


def test_a_deep_one_of_one_layer_is_the_plain_one():
    x = normal(3, 5)
    deep, plain = zoo.DeepFeedForward((4,), 2), zoo.FeedForward(4, 2)
    params, _ = deep.init(KEY, x)
    renamed = {"hidden": params["hidden_0"], "output": params["output"]}
    assert_close(plain(nn.Variables(renamed, {}), x), deep(nn.Variables(params, {}), x))


def test_an_activation_with_parameters_has_its_own_in_each_layer():
    class Leak(nn.Layer):
        def params(self, x):
            return {"slope": nn.Param((), nn.init.constant(0.25))}

        def forward(self, net, x):
            return jnp.where(x > 0, x, net.slope * x)

    x = normal(3, 5)
    params = zoo.DeepFeedForward((4, 4), 2, activation=Leak()).init(KEY, x).params
    assert {"activation_0/slope", "activation_1/slope"} <= set(jdl.paths(params))
    assert "activation/slope" in jdl.paths(zoo.FeedForward(4, 2, activation=Leak()).init(KEY, x).params)


@pytest.mark.slow
def test_dropout_omits_in_training_only():
    model, x = zoo.DeepFeedForward((64, 64), 2, dropout=0.5), normal(3, 5)
    variables = model.init(KEY, x)
    still = apply_jitted(model, variables, x)[0]
    first, second = (apply_jitted(model, variables, x, key=jax.random.key(k), train=True)[0] for k in (0, 1))
    assert np.any(first != second) and np.any(first != still)
    assert_close(still, apply_jitted(zoo.DeepFeedForward((64, 64), 2), variables, x)[0])


def test_what_cannot_be_used_is_refused():
    with refused("DeepFeedForward.units got 64", "such as (256, 128)"):
        zoo.DeepFeedForward(64, 10)  # pyright: ignore[reportArgumentType]
    with refused("DeepFeedForward.units got ()"):
        zoo.DeepFeedForward((), 10)
    with refused("in FeedForward(0, 10): Dense.features got 0"):
        zoo.FeedForward(0, 10).spec(normal(2, 5))
    with refused("x.astype(jnp.float32) / 255"):
        zoo.SimpleNet().spec(np.zeros((2, 28, 28, 1), np.uint8))
    mnist = jax.eval_shape(zoo.SimpleNet().init, KEY, normal(2, 28, 28, 1))
    with refused("in 1: ", "float32[784, 128]", "float32[1024, 128]"):
        jax.eval_shape(zoo.SimpleNet(), mnist, normal(2, 32, 32, 1))
    with refused("wanted [B"):
        zoo.FeedForward(3, 2).spec(np.float32(1))

"""What every network of the zoo keeps to: one table, and the same questions to each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn, zoo
from tests.nn.toys import KEY, assert_equal, shapes


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at a small size, built anew at every call, and its inputs: an array, or a dict of arrays by name."""

    build: Callable[[], nn.Layer]
    inputs: Callable[[], Any]
    still: tuple[str, ...] = ()  # patterns of parameters that get no gradient from the sum of the outputs


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def images() -> np.ndarray:
    return normal(2, 8, 8, 2)


def pair() -> dict[str, np.ndarray]:
    """Real images, and the noise of as many made ones."""
    return {"real": normal(3, 4, 4, 1), "noise": normal(3, 4)}


def vision_transformer() -> nn.Layer:
    return zoo.VisionTransformer(2, patch=4, width=4, depth=2, block=zoo.EncoderBlock(2, hidden=4))


def ids(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(count, size=shape).astype(np.int32)


def memory() -> dict[str, np.ndarray]:
    """Steps that look at a memory."""
    return {"queries": normal(2, 3, 4), "memory": normal(2, 5, 6), "lengths": np.array([2, 5], np.int32)}


def text() -> dict[str, np.ndarray]:
    """Padded ids."""
    return {"tokens": ids(7, 2, 5), "lengths": np.array([2, 5], np.int32)}


def pixels() -> np.ndarray:
    return normal(2, 3, 3, 1)


def sentences() -> np.ndarray:
    """Ids of sources."""
    return ids(7, 2, 5)


def writing() -> dict[str, np.ndarray]:
    """A decoder's part of a translation."""
    return {"tokens": ids(7, 2, 3), "carry": normal(2, 4), "memory": normal(2, 5, 6)}


def translation() -> dict[str, np.ndarray]:
    """Ids of sources and targets."""
    lengths = np.array([2, 5], np.int32)
    return {"source": ids(7, 2, 5), "target": ids(6, 2, 4), "source_lengths": lengths}


def autoencoder(kind: type[zoo.Autoencoder]) -> nn.Layer:
    return kind(zoo.ConvolutionalEncoder(4, (2,)), zoo.ConvolutionalDecoder((8, 8, 2), (2,)))


# By class name, in alphabetical order; a second row of a class adds words: "ResNet with bottlenecks".
CASES: dict[str, Case] = {
    "Autoencoder": Case(lambda: autoencoder(zoo.Autoencoder), images),
    "BasicBlock": Case(lambda: zoo.BasicBlock(2), lambda: normal(2, 3, 3, 2)),
    "BinaryClassifier": Case(lambda: zoo.BinaryClassifier(), lambda: normal(2, 10)),
    "Bottleneck": Case(lambda: zoo.Bottleneck(2, 2, shortcut=zoo.padded_shortcut), lambda: normal(2, 4, 4, 2)),
    "Bridge": Case(lambda: zoo.Bridge(), lambda: {"carry": nn.BidirectionalCarry(normal(2, 3), normal(2, 2))}),
    "ConvolutionalNet": Case(lambda: zoo.ConvolutionalNet(2, flattened=None), lambda: normal(2, 4, 4, 1)),
    "DCGANDiscriminator": Case(lambda: zoo.DCGANDiscriminator(2), lambda: normal(3, 8, 8, 1)),
    "DCGANGenerator": Case(lambda: zoo.DCGANGenerator(2, size=1), lambda: normal(3, 4)),
    "DeepFeedForward": Case(lambda: zoo.DeepFeedForward((4, 3), 2, norm=nn.LayerNorm(), dropout=0.2), pixels),
    "DoubleConvolution": Case(lambda: zoo.DoubleConvolution(2), lambda: normal(2, 3, 3, 2)),
    "EncoderBlock": Case(lambda: zoo.EncoderBlock(2, hidden=4), lambda: normal(2, 3, 4), ("attention/keys/bias",)),
    "FeedForward": Case(lambda: zoo.FeedForward(4, 2, activation=nn.tanh), pixels),
    "Forecaster": Case(lambda: zoo.Forecaster(2, nn.Recurrent(nn.GRUCell(3))), lambda: normal(2, 4, 3)),
    "FromLastValue": Case(lambda: zoo.FromLastValue(zoo.LinearForecaster(2), 1), lambda: normal(2, 4, 3)),
    "GAN": Case(lambda: zoo.GAN(zoo.DCGANGenerator(4, 1), zoo.DCGANDiscriminator(2, depth=2)), pair),
    "LeNet5": Case(lambda: zoo.LeNet5(2), lambda: normal(1, 28, 28, 1)),
    "LinearForecaster": Case(lambda: zoo.LinearForecaster(2), lambda: normal(2, 4, 3)),
    "LuongAttention": Case(lambda: zoo.LuongAttention(), memory),
    "RadialBasisNetwork": Case(lambda: zoo.RadialBasisNetwork(4, 2), pixels),
    "RecurrentDecoder": Case(lambda: zoo.RecurrentDecoder(7, 3, recurrent=nn.Recurrent(nn.GRUCell(4))), writing),
    "RecurrentEncoder": Case(lambda: zoo.RecurrentEncoder(7, 3, recurrent=nn.Bidirectional(nn.LSTMCell(2))), sentences),
    "ResNet": Case(lambda: zoo.ResNet((1,), 2, block=zoo.BasicBlock(2), stem=nn.Conv(2, 3, bias=False)), images),
    "SequenceToSequence": Case(
        lambda: zoo.SequenceToSequence(
            zoo.RecurrentEncoder(7, 3, recurrent=nn.Bidirectional(nn.GRUCell(2)), dropout=0.1),
            zoo.RecurrentDecoder(6, 3, recurrent=nn.Recurrent(nn.GRUCell(2)), dropout=0.1),
        ),
        translation,
    ),
    "SimpleNet": Case(lambda: zoo.SimpleNet(), lambda: normal(2, 4, 4, 1)),
    "SparseAutoencoder": Case(lambda: autoencoder(zoo.SparseAutoencoder), images),
    "TextNet": Case(lambda: zoo.TextNet(7, 3, recurrent=nn.Recurrent(nn.LSTMCell(4))), text),
    "UNet": Case(lambda: zoo.UNet(2, depth=1, block=zoo.DoubleConvolution(2)), lambda: normal(2, 4, 6, 2)),
    "VariationalAutoencoder": Case(lambda: autoencoder(zoo.VariationalAutoencoder), images),
    "WassersteinGAN": Case(
        lambda: zoo.WassersteinGAN(zoo.DCGANGenerator(4, 1), zoo.DCGANDiscriminator(2, None, 2)), pair
    ),
    "VisionTransformer": Case(vision_transformer, images, ("blocks/attention/keys/bias",)),
    "XORNet": Case(lambda: zoo.XORNet(), lambda: normal(2, 2)),
}  # fmt: skip
SLOW = {"GAN", "SequenceToSequence", "VisionTransformer", "WassersteinGAN"}
ROWS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]


def test_no_network_is_missing():
    names = {
        name for name in zoo.__all__ if isinstance(value := getattr(zoo, name), type) and issubclass(value, nn.Layer)
    }
    assert names <= {name.partition(" ")[0] for name in CASES} <= set(zoo.__all__)


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})


def values(declared: nn.Variables) -> nn.Variables:
    """Arrays of these shapes, quicker than the initialisers compile: parameters at random, state of ones."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(leaf.dtype), declared.params)
    return nn.Variables(params, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), declared.state))


@pytest.mark.parametrize("name", ROWS)
def test_init_is_its_specification_and_values_and_gradients_are_finite(name: str):
    case = CASES[name]
    args, options = arguments(case.inputs())
    model = case.build()
    assert model == case.build() and hash(model) == hash(case.build())
    declared, spec = jax.eval_shape(model.init, KEY, *args, **options), model.spec(*args, **options)
    assert shapes(declared) == shapes(nn.Variables(spec.params, spec.state))
    variables = values(declared)
    traced = []

    @jax.jit
    def program(params: Any, state: Any, args: Any, options: Any) -> Any:
        traced.append(name)

        def loss(params: Any) -> Any:
            output, new = model.apply(params, state, *args, key=KEY, train=True, **options)
            weights = [
                jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape) for leaf in jax.tree.leaves(output)
            ]
            return sum(jnp.sum(w * leaf) for w, leaf in zip(weights, jax.tree.leaves(output), strict=True)), new

        grads, new = jax.grad(loss, has_aux=True)(params)
        return model.apply(params, state, *args, **options)[0], grads, new

    output, gradient, new = program(*variables, args, options)
    assert shapes(spec.output) == shapes(output) and shapes(new) == shapes(variables.state)
    assert_equal(program(*variables, args, options)[0], output)
    assert len(traced) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((output, gradient, new)))
    still = (
        jax.tree.leaves(jdl.select(*case.still)(gradient)) if case.still else [False] * len(jax.tree.leaves(gradient))
    )
    for path, leaf, is_still in zip(jdl.paths(gradient), jax.tree.leaves(gradient), still, strict=True):
        assert bool(np.max(np.abs(leaf)) < 1e-5) == is_still, f"{path}: the largest gradient is {np.max(np.abs(leaf))}"


@pytest.mark.parametrize("name", ROWS)
def test_bfloat16_inputs_give_bfloat16_outputs(name: str):
    case = CASES[name]
    args, options = arguments(case.inputs())
    variables = jax.eval_shape(case.build().init, KEY, *args, **options)

    def cast(x: Any) -> Any:
        return jnp.asarray(x, jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x

    inputs = jax.tree.map(cast, (args, options))
    if jax.tree.map(lambda x: x.dtype, inputs) == jax.tree.map(lambda x: x.dtype, (args, options)):
        pytest.skip("no floating input")
    output = jax.eval_shape(lambda v, a, o: case.build()(v, *a, **o), variables, *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {jnp.dtype(jnp.bfloat16)}

"""What every public layer and layer transformation keeps to: one table, and the same questions to each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.nn.core import Layer
from tests.nn.toys import KEY, Inside, OneStep, assert_close, assert_equal, normal, shapes


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, built anew at every call, and a sample input: 8 examples, numbers or ids below ``ids``."""

    build: Callable[[], Layer]
    shape: tuple[int, ...] = (6,)
    ids: int = 0
    draws: str = ""  # path of the first layer that draws in training
    keeps: str = ""  # path of the first that updates its state in training
    still: tuple[str, ...] = ()  # patterns of parameters that get no gradient

    def inputs(self, dtype: Any = jnp.float32) -> jax.Array:
        if self.ids:
            return jnp.asarray(np.random.default_rng(0).integers(self.ids, size=(8, *self.shape)), jnp.int32)
        return normal(8, *self.shape).astype(dtype)


IMAGE, SEQUENCE = (6, 6, 4), (6, 4)
CASES = {
    "Attention": Case(lambda: nn.Attention(2), SEQUENCE, still=("keys/bias",)),
    "Attention that is causal": Case(lambda: nn.Attention(2, causal=True, bias=False), SEQUENCE),
    "AveragePool": Case(lambda: nn.AveragePool(2), IMAGE),
    "BatchNorm": Case(lambda: nn.BatchNorm(), IMAGE, keeps="inner"),
    "Bidirectional": Case(lambda: nn.Bidirectional(nn.GRUCell(3), nn.LSTMCell(2)), SEQUENCE),
    "Chain": Case(lambda: nn.Chain(nn.Dense(5), jnp.tanh, nn.Dropout(0.0), out=nn.Dense(2))),
    "Chain that keeps": Case(lambda: nn.Chain(nn.Dense(5), b=nn.BatchNorm()), keeps="inner/b", still=("0/bias",)),
    "Conv": Case(lambda: nn.Conv(4, 3, stride=2), IMAGE),
    "Conv of a sequence": Case(lambda: nn.Conv(6, (3,), padding="VALID", dilation=2, groups=2), SEQUENCE),
    "ConvTranspose": Case(lambda: nn.ConvTranspose(3, 3, stride=2), IMAGE),
    "Dense": Case(lambda: nn.Dense(5), SEQUENCE),
    "Dropout": Case(lambda: nn.Dropout(0.5), draws="inner"),
    "Embedding": Case(lambda: nn.Embedding(7, 3), (5,), ids=7),
    "Ensemble": Case(lambda: nn.Ensemble(nn.Chain(nn.Dense(5), jnp.tanh), 3)),
    "Ensemble that draws": Case(lambda: nn.Ensemble(nn.Chain(nn.Dense(5), nn.Dropout(0.5)), 2), draws="inner/1"),
    "Flatten": Case(lambda: nn.Flatten(), IMAGE),
    "GRUCell": Case(lambda: OneStep(nn.GRUCell(3)), still=("cell/recurrent_kernel",)),
    "GlobalAveragePool": Case(lambda: nn.GlobalAveragePool(), IMAGE),
    "GlobalMaxPool": Case(lambda: nn.GlobalMaxPool(), IMAGE),
    "GroupNorm": Case(lambda: nn.GroupNorm(2), IMAGE),
    "InstanceNorm": Case(lambda: nn.InstanceNorm(), IMAGE),
    "LSTMCell": Case(lambda: OneStep(nn.LSTMCell(3)), still=("cell/recurrent_kernel",)),
    "LayerNorm": Case(lambda: nn.LayerNorm(), SEQUENCE),
    "MaxPool": Case(lambda: nn.MaxPool(2), IMAGE),
    "Neuron": Case(lambda: nn.Neuron()),
    "Parallel": Case(lambda: nn.Parallel(nn.Dense(5), skip=jnp.positive)),
    "Perceptron": Case(lambda: nn.Perceptron(), still=("**",)),
    "Perceptron with a threshold": Case(lambda: nn.Perceptron("threshold"), still=("**",)),
    "Precision": Case(lambda: nn.Precision(nn.Chain(nn.Embedding(7, 3), jnp.tanh, nn.Dense(3))), (5,), ids=7),
    "RMSNorm": Case(lambda: nn.RMSNorm(), SEQUENCE),
    "RNNCell": Case(lambda: OneStep(nn.RNNCell(3)), still=("cell/recurrent_kernel",)),
    "RadialBasis": Case(lambda: nn.RadialBasis(5)),
    "Recurrent": Case(lambda: nn.Recurrent(nn.LSTMCell(3)), SEQUENCE),
    "Recurrent that goes backwards": Case(lambda: nn.Recurrent(nn.RNNCell(3), reverse=True), SEQUENCE),
    "Remat": Case(lambda: nn.Remat(nn.Chain(nn.Dense(5), jnp.tanh))),
    "Remat that draws": Case(lambda: nn.Remat(nn.Chain(nn.Dense(5), nn.Dropout(0.5))), draws="inner/1"),
    "Repeat": Case(lambda: nn.Repeat(nn.Residual(nn.Chain(nn.Dense(6), jnp.tanh)), 3)),
    "Repeat that draws": Case(lambda: nn.Repeat(nn.Chain(nn.Dense(6), d=nn.Dropout(0.5)), 2), draws="inner/d"),
    "Repeat that keeps": Case(lambda: nn.Repeat(nn.Chain(b=nn.Residual(nn.BatchNorm())), 2), keeps="inner/b"),
    "Reshape": Case(lambda: nn.Reshape((3, -1)), IMAGE),
    "Residual": Case(lambda: nn.Residual(nn.Dense(6))),
    "Resize": Case(lambda: nn.Resize(5), IMAGE),
    "StackedRecurrent": Case(lambda: nn.StackedRecurrent(nn.GRUCell(3), nn.RNNCell(2)), SEQUENCE),
    "StackedRecurrent that draws": Case(
        lambda: nn.StackedRecurrent(nn.GRUCell(3), nn.GRUCell(2), dropout=0.5), SEQUENCE, draws="inner/dropout"
    ),
    "Upsample": Case(lambda: nn.Upsample(2), IMAGE),
}  # fmt: skip
NO_LAYERS = ("part", "probe", "with_carry", "with_centres", "zero_shifts")
FUNCTIONS = [
    name
    for name in nn.__all__
    if callable(getattr(nn, name)) and not isinstance(getattr(nn, name), type) and name not in NO_LAYERS
]
CASES |= {name: Case(lambda name=name: nn.Chain(getattr(nn, name))) for name in FUNCTIONS}
SLOW = {"Attention", "Bidirectional", "StackedRecurrent", "StackedRecurrent that draws"}
ROWS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]


def test_no_public_layer_is_missing():
    classes = {name: value for name, value in vars(nn).items() if name in nn.__all__ and isinstance(value, type)}
    layers = {name for name, value in classes.items() if issubclass(value, Layer) and value not in (Layer, nn.Cell)}
    assert {name.partition(" ")[0] for name in CASES} == layers | set(FUNCTIONS)
    assert "relu" in FUNCTIONS


# ── arrays ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ROWS)
def test_spec_equals_init_which_is_deterministic(name):
    case = CASES[name]
    x, model = case.inputs(), case.build()
    assert model == case.build() and hash(model) == hash(case.build())
    variables, spec = model.init(KEY, x), model.spec(x)
    assert shapes(variables) == shapes(nn.Variables(spec.params, spec.state))
    assert_equal(variables, case.build().init(KEY, jax.ShapeDtypeStruct(x.shape, x.dtype)))


@pytest.mark.parametrize("name", ROWS)
def test_the_dtype_of_the_input_is_kept(name):
    """That of floating inputs; parameters, their gradients and state keep their own."""
    case = CASES[name]
    model = case.build()
    params, state = jax.eval_shape(model.init, KEY, case.inputs())
    for dtype in (jnp.float32, jnp.bfloat16):
        for train in (False, True):

            def loss(params, state, x, train=train):
                output, state = model.apply(params, state, x, key=KEY, train=train)
                return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(output)), (output, state)

            gradient, (output, new) = jax.eval_shape(jax.grad(loss, has_aux=True), params, state, case.inputs(dtype))
            assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {jnp.dtype(jnp.float32 if case.ids else dtype)}
            assert (shapes(gradient), shapes(new)) == (shapes(params), shapes(state))
        spec = model.spec(case.inputs(dtype))
        assert shapes(spec.output) == shapes(jax.eval_shape(model, nn.Variables(params, state), case.inputs(dtype)))


# ── one program a row ─────────────────────────────────────────────────────────────────────────────────────────────


def halves(x: jax.Array) -> jax.Array:
    return x.reshape(2, 4, *x.shape[1:])


def total(f: Callable[[jax.Array], Any], x: jax.Array) -> jax.Array:
    """A number in which every output has a weight of its own."""
    leaves = jax.tree.leaves(f(x))
    return sum(jnp.sum(normal(*leaf.shape, seed=1) * leaf) for leaf in leaves)


USERS: dict[str, Callable[[Callable[..., Any], jax.Array], Any]] = {
    "scan": lambda f, x: jax.lax.scan(lambda carry, x: (carry, f(x)), None, halves(x))[1],
    "vmap": lambda f, x: jax.vmap(f)(halves(x)),
    "checkpoint": lambda f, x: jax.checkpoint(f)(x),
    "jit": lambda f, x: jax.jit(f)(x),
    "grad": lambda f, x: jax.grad(lambda x: total(f, x))(x),
}
traced: list[str] = []


def questions(name: str, model: Layer, two: nn.Variables, x: jax.Array) -> dict[str, Any]:
    """Everything that is asked of a row, on two sets of variables, as one program."""
    traced.append(name)
    case = CASES[name]
    params, state = jax.tree.map(lambda leaf: leaf[0], two)
    other = jax.tree.map(lambda leaf: leaf[1], two)
    train = not (case.draws or case.keeps)  # then it runs inside a user's transform in training too

    def loss(params: Any) -> Any:
        outputs = []
        value = total(lambda x: outputs.append(model.apply(params, state, x, key=KEY, train=True)) or outputs[0][0], x)
        return value, outputs[0][1]

    def inside(transform: Callable[..., Any]) -> Any:
        apply = Inside(model, transform).apply
        return apply({"inner": params}, {"inner": state}, x, train=train)[0]

    users = {user: transform for user, transform in USERS.items() if not (case.ids and user == "grad")}
    gradient, new_state = jax.grad(loss, has_aux=True)(params)
    return {
        "outputs": [model.apply(params, state, x)[0], model(other, x)],
        "vmap": jax.vmap(lambda variables: model(variables, x), axis_size=2)(two),
        "gradient": gradient,
        "state": (state, new_state),
        "inside": {user: inside(transform) for user, transform in users.items()},
        "outside": {
            user: transform(lambda x: model.apply(params, state, x)[0], x) for user, transform in users.items()
        },
    }


program = jax.jit(questions, static_argnums=(0, 1))


@pytest.mark.parametrize("name", ROWS)
def test_values_under_jit_vmap_grad_and_transforms_of_users(name):
    case = CASES[name]
    x, model = case.inputs(), case.build()
    two = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(model.init(jax.random.key(seed), x) for seed in (0, 1)))
    answers = program(name, model, two, x)

    again = program(name, case.build(), two, x)
    assert traced.count(name) == 1, "an equal model was traced again"
    assert_equal(again, answers)

    for leaf in jax.tree.leaves(answers):
        assert np.all(np.isfinite(leaf))
    assert_close(answers["vmap"], jax.tree.map(lambda *leaves: jnp.stack(leaves), *answers["outputs"]), 1e-5)
    assert_close(answers["inside"], answers["outside"], 1e-5)

    gradient = answers["gradient"]
    still = jax.tree.leaves(jdl.select(*case.still)(gradient))
    for path, leaf, is_still in zip(jdl.paths(gradient), jax.tree.leaves(gradient), still, strict=True):
        size = np.max(np.abs(leaf))
        assert size < 1e-4 if is_still else size > 1e-3, (path, size)
    old, new = (jax.tree.leaves(state) for state in answers["state"])
    assert bool(old) == bool(case.keeps)
    for before, after in zip(old, new, strict=True):
        assert np.any(before != after)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.draws or case.keeps])
def test_what_draws_or_keeps_state_in_a_transform_of_users_is_an_error_that_names_it(name):
    case = CASES[name]
    x, inner = case.inputs(), case.build()
    params, state = inner.init(KEY, x)
    where, does = (case.draws, "draws a key") if case.draws else (case.keeps, "updates its state")
    for transform in USERS.values():
        model = Inside(inner, transform)
        with pytest.raises(InputError, match=rf"in {where}: .*{does} inside a jax transform of your own"):
            model.init(KEY, x)
        with pytest.raises(InputError, match=rf"in {where}: .*{does} inside a jax transform of your own"):
            jax.eval_shape(lambda: model.apply({"inner": params}, {"inner": state}, x, key=KEY, train=True))  # noqa: B023
    if case.draws:
        with pytest.raises(InputError, match=rf"in {where.partition('/')[2]}.*got key=None; pass key="):
            inner.apply(params, state, x, train=True)

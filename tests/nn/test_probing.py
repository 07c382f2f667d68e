"""What a pass shows of its layers, against the same arithmetic written by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
from tests.networks import assert_close
from tests.nn.toys import KEY, Mean, Noise, normal

X = normal(4, 3)


class Twice(nn.Layer):
    """One dense layer used twice, with an index of the largest between, and a norm in a field."""

    norm: nn.Layer = nn.LayerNorm()

    def forward(self, net, x):
        dense = net.child("dense", nn.Dense(3))
        hidden = net.norm(dense(x))
        best = net.child("best", jax.nn.relu)(jnp.argmax(hidden, -1))
        return dense(hidden) + best[:, None].astype(x.dtype)


def start(model, x=X):
    return model.init(KEY, x)


def zeros_for(model, variables, x=X, **options):
    return nn.zero_shifts(jax.eval_shape(lambda: nn.probe(model, variables, x, **options)[2]))


def test_values_are_those_of_the_arithmetic_by_hand():
    model = nn.Chain(nn.Dense(5), jnp.tanh, out=nn.Dense(2))
    variables = start(model)
    output, state, seen = nn.probe(model, variables, X)
    first = X @ variables.params["0"]["kernel"] + variables.params["0"]["bias"]
    last = jnp.tanh(first) @ variables.params["out"]["kernel"] + variables.params["out"]["bias"]
    assert [(one.path, one.depth) for one in seen] == [("", 0), ("0", 1), ("1", 1), ("out", 1)]
    assert [one.layer for one in seen] == [model, *model]
    assert_close([one.output for one in seen], [last, first, jnp.tanh(first), last])
    assert_close([one.inputs for one in seen], [(X,), (X,), (first,), (jnp.tanh(first),)])
    assert_close(output, last)
    assert state == {}


def test_uses_of_one_layer_and_integers_between():
    model = Twice()
    variables = start(model)
    seen = nn.probe(model, variables, X)[2]
    assert [one.path for one in seen] == ["", "dense", "norm", "best", "dense"]
    assert_close(seen[4].inputs, (seen[2].output,))
    assert zeros_for(model, variables)[3] is None


@pytest.mark.parametrize(
    "around", [nn.Residual, nn.Remat, lambda layer: nn.Repeat(layer, 2), lambda x: nn.Ensemble(x, 2)]
)
def test_what_is_inside_a_transform_is_one_use(around):
    model = nn.Chain(around(nn.Chain(nn.Dense(3), jnp.tanh)))
    variables = start(model)
    output, _, seen = nn.probe(model, variables, X)
    inside = ["0", "0/0", "0/1"] if around is nn.Residual else []
    assert [one.path for one in seen] == ["", "0", *inside]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(seen))
    assert_close(seen[1].output, model(variables, X))
    assert_close(output, model(variables, X))


def test_a_scan_of_the_authors_own_is_left_out():
    class Turns(nn.Layer):
        def forward(self, net, x):
            y, _ = jax.lax.scan(lambda h, _: (net.child("inner", jnp.tanh)(h), None), x, length=3)
            return net.child("outer", jnp.tanh)(y)

    seen = nn.probe(Turns(), nn.Variables({}, {}), X)[2]
    assert [one.path for one in seen] == ["", "outer"]
    with jax.disable_jit():
        assert [one.path for one in nn.probe(Turns(), nn.Variables({}, {}), X)[2]] == ["", *["inner"] * 3, "outer"]


def test_state_and_masks_are_those_of_apply():
    model = nn.Chain(Mean(), nn.Dropout(0.5), Noise())
    variables = start(model)
    options = {"key": jax.random.key(3), "train": True}
    wanted = model.apply(*variables, X, **options)
    output, state, _ = nn.probe(model, variables, np.asarray(X), **options)
    assert_close((output, state), wanted, 0)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_under_transforms_around_the_call(transform):
    model = nn.Chain(nn.Dense(3), jnp.tanh)
    variables = start(model)
    seen = transform(lambda x: nn.probe(model, variables, x)[2])(X)
    assert [one.path for one in seen] == ["", "0", "1"]
    assert_close([one.output for one in seen], [one.output for one in nn.probe(model, variables, X)[2]])


@pytest.mark.parametrize("model", [nn.Chain(nn.Dense(4), jnp.tanh, nn.Dense(3)), Twice()], ids=repr)
def test_the_gradient_at_shifts_is_that_of_moving_an_output(model):
    variables = start(model)
    zeros = zeros_for(model, variables)

    def loss(shifts):
        return jnp.sum(jnp.square(nn.probe(model, variables, X, shifts=shifts)[0]))

    grads = jax.jit(jax.grad(loss))(zeros)
    epsilon = 1e-2
    for index, zero in enumerate(zeros):
        if zero is None:
            assert grads[index] is None
            continue
        up, down = ([*zeros[:index], zero.at[1, 2].set(s), *zeros[index + 1 :]] for s in (epsilon, -epsilon))
        slope = (loss(up) - loss(down)) / (2 * epsilon)
        assert abs(grads[index][1, 2] - slope) <= 2e-2 * max(abs(slope), 1)
    last = 2 * model(variables, X)
    assert_close(grads[0], last)


def test_a_shift_moves_what_comes_after():
    model = nn.Chain(nn.Dense(4), jnp.tanh)
    variables = start(model)
    seen = nn.probe(model, variables, X, shifts=[None, jnp.ones((4, 4)), None])[2]
    plain = nn.probe(model, variables, X)[2]
    assert_close(seen[1].output, plain[1].output + 1)
    assert_close(seen[2].output, jnp.tanh(plain[1].output + 1))
    assert_close(seen[2].inputs, (seen[1].output,))


def test_tuples_are_shifted_entry_by_entry():
    model = nn.Chain(nn.Parallel(jnp.tanh, jnp.sin), jnp.add)
    moved = nn.probe(model, start(model), X, shifts=[None, (None, jnp.ones_like(X)), None, None, None])[0]
    assert_close(moved, jnp.tanh(X) + jnp.sin(X) + 1)


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        ([None], r"shifts got 1 entries, wanted one for each of 3 uses"),
        ([None] * 4, r"shifts got 4 entries"),
        ([None, jnp.zeros((2, 2)), None], r"in shifts\[1\], 0: Dense\(4\): got float32\[2, 2\], wanted zeros like"),
        ([None, jnp.zeros((4, 4), jnp.bfloat16), None], r"got bfloat16\[4, 4\]"),
        ([None, (jnp.zeros((4, 4)),), None], r"in shifts\[1\], 0"),
    ],
)
def test_shifts_that_do_not_fit(shifts, message):
    model = nn.Chain(nn.Dense(4), jnp.tanh)
    with pytest.raises(InputError, match=message):
        nn.probe(model, start(model), X, shifts=shifts)


def test_variables_are_a_pair():
    with pytest.raises(InputError, match=r"wanted Variables\(params, state\)"):
        nn.probe(nn.Dense(2), {"kernel": X}, X)  # pyright: ignore[reportArgumentType]

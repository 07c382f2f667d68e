"""Layers made of layers, against loops and sums written in Python."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.nn.net import path_hash
from tests.nn.toys import (
    KEY,
    Linear,
    Masked,
    Mean,
    Noise,
    apply_jitted,
    assert_close,
    assert_equal,
    normal,
    refused,
    shapes,
)

X = normal(4, 3)


class Block(nn.Layer):
    """Parameters, state, a draw, another input and options in one layer that keeps the shape."""

    def params(self, x):
        return {"kernel": nn.Param((x.shape[-1], x.shape[-1]), nn.init.he_normal())}

    def state(self, x):
        return {"mean": nn.Param((x.shape[-1],), nn.init.ones()), "drawn": nn.Param(x.shape, nn.init.zeros())}

    def forward(self, net, x, context=None, *, mask=None, scale=1.0):
        y = scale * jnp.tanh((x - net.mean) @ net.kernel)
        if net.train:
            drawn = jax.random.normal(net.key(), x.shape, x.dtype)
            net.update(mean=0.5 * (net.mean + x.mean(0)), drawn=drawn)
            y = y + 0.1 * drawn
        if context is not None:
            y = y + context
        return x + (y if mask is None else y * mask[:, None])


def member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


# ── Chain, Parallel, Residual ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_chain_names_layers_by_place_or_keyword():
    model = nn.Chain(Linear(5), jnp.tanh, Linear(4, bias=False), head=nn.Chain(Linear(2), out=Linear(1)))
    variables = model.init(KEY, X)
    assert jdl.paths(variables.params) == (
        *("0/bias", "0/kernel", "2/kernel"),
        *("head/0/bias", "head/0/kernel", "head/out/bias", "head/out/kernel"),
    )
    p = variables.params
    h = jnp.tanh(X @ p["0"]["kernel"] + p["0"]["bias"]) @ p["2"]["kernel"]
    h = (h @ p["head"]["0"]["kernel"] + p["head"]["0"]["bias"]) @ p["head"]["out"]["kernel"] + p["head"]["out"]["bias"]
    assert_close(model(variables, X), h, 1e-5)
    assert len(model) == 4 and model[0] == Linear(5) and model["head"]["out"] == Linear(1)
    assert list(model) == [model[0], nn.Function(jnp.tanh), model[2], model["head"]]


def test_a_tuple_becomes_the_inputs_of_the_next_layer():
    model = nn.Chain(
        nn.Parallel(jnp.sin, double=lambda x: 2.0 * x), lambda a, b: (a, b, a * b), lambda a, b, c: a + b - c
    )
    empty = nn.Variables({}, {})
    assert_close(model(empty, X), jnp.sin(X) + 2.0 * X - 2.0 * X * jnp.sin(X), 1e-5)
    assert_close(nn.Chain(jnp.add)(empty, X, X), X + X)
    assert_equal(nn.Chain()(empty, X), X)
    assert_equal(nn.Chain()(empty, X, X), (X, X))
    assert_equal(nn.Parallel()(empty, X), ())


def test_parallel_gives_every_layer_the_same_inputs():
    model = nn.Parallel(Linear(2), sine=jnp.sin, centred=Mean())
    params, state = model.init(KEY, X)
    (a, b, c), new = apply_jitted(model, nn.Variables(params, state), X, train=True)
    assert_close(a, X @ params["0"]["kernel"] + params["0"]["bias"], 1e-5)
    assert_close((b, new["centred"]["mean"], c), (jnp.sin(X), 0.5 * X.mean(0), X - 0.5 * X.mean(0)), 1e-5)
    assert_close(nn.Parallel(jnp.add, jnp.subtract)(nn.Variables({}, {}), X, 2.0 * X), (3.0 * X, -X))


def test_names_are_used_once():
    for several in (nn.Chain, nn.Parallel):
        with refused(
            f"{several.__name__} got the name '0' twice; positional layers are named 0, 1, …: rename the keyword"
        ):
            several(Linear(1), **{"0": Linear(2)})


def test_residual_adds_and_passes_everything_on():
    model = nn.Residual(Masked())
    params, state = model.init(KEY, X)
    assert_equal(params, Masked().init(KEY, X).params)
    mask = jnp.asarray([1.0, 0.0, 1.0, 1.0])
    expected = X + 0.5 * jnp.tanh(X @ params["kernel"]) * mask[:, None]
    assert_close(model.apply(params, state, X, mask=mask, scale=0.5)[0], expected, 1e-5)


def test_residual_refuses_another_shape():
    with refused(
        "in 0: Residual(Linear(2)): input got float32[4, 3] and output got float32[4, 2]", "project the input"
    ):
        nn.Chain(nn.Residual(Linear(2))).init(KEY, X)


# ── Repeat ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_repeat_equals_a_loop_in_evaluation():
    model, n = nn.Repeat(Block(), 5), 5
    params, state = model.init(KEY, X)
    assert shapes(params) == {"kernel": ((5, 3, 3), jnp.dtype("float32"))}
    context, mask = normal(4, 3, seed=1), jnp.asarray([1.0, 0.0, 1.0, 1.0])

    def loop(params, x, context):
        for i in range(n):
            copy = nn.Variables(member(params, i), member(state, i))
            x = Block()(copy, x, context, mask=mask, scale=0.5)
        return x

    def ours(params, x, context):
        return model.apply(params, state, x, context, mask=mask, scale=0.5)[0]

    def results(f):
        value = lambda *arguments: jnp.sum(f(*arguments) ** 2)  # noqa: E731
        return jax.jit(lambda *a: (f(*a), jax.grad(value, (0, 1, 2))(*a)))(params, X, context)

    assert_close(results(ours), results(loop), 1e-5)


def test_copies_draw_their_own_keys_and_keep_their_own_state():
    n = 4
    model = nn.Repeat(Block(), n)
    params, state = model.init(KEY, X)
    output, new = apply_jitted(model, nn.Variables(params, state), X, key=KEY, train=True)
    x, means = X, []
    for i in range(n):
        means.append(0.5 * (1.0 + x.mean(0)))
        x = x + jnp.tanh((x - state["mean"][i]) @ params["kernel"][i]) + 0.1 * new["drawn"][i]
    assert_close(output, x, 1e-5)
    assert_close(new["mean"], jnp.stack(means), 1e-5)
    assert len(np.unique(np.asarray(new["drawn"]))) == new["drawn"].size
    again = apply_jitted(model, nn.Variables(params, state), X, key=jax.random.key(1), train=True)[1]["drawn"]
    assert np.all(again != new["drawn"])


@pytest.mark.slow
def test_two_uses_of_a_repeat_draw_differently_and_pass_the_state_on():
    class Twice(nn.Layer):
        inner: Any

        def forward(self, net, x):
            net.inner(x)
            return net.inner(x)

    for inner in (nn.Repeat(Block(), 2), nn.Ensemble(Block(), 2), nn.Remat(Block())):
        params, state = Twice(inner).init(KEY, X)
        once, twice = (
            apply_jitted(model, nn.Variables(params, state), X, key=KEY, train=True)[1]["inner"]
            for model in (nn.Chain(inner=inner), Twice(inner))
        )
        assert np.all(twice["drawn"] != once["drawn"])
        first = jax.tree.leaves(twice["mean"])[0].reshape(-1, 3)[0]
        assert_close(first, 0.5 * (0.5 * (1.0 + X.mean(0)) + X.mean(0)), 1e-5)


@pytest.mark.slow
def test_copies_are_initialised_one_by_one():
    params = nn.Repeat(Linear(3), 4).init(KEY, X).params
    keys = jax.random.split(jax.random.fold_in(KEY, path_hash("kernel")), 4)
    expected = jnp.stack([nn.init.he_normal()(key, (3, 3)) for key in keys])  # fan-in 3, whatever the number of copies
    assert_close(params["kernel"], expected)
    stacked = nn.Ensemble(nn.Repeat(nn.Repeat(Linear(3), 2), 3), 4).init(KEY, X).params["kernel"]
    assert stacked.shape == (4, 3, 2, 3, 3) and len(np.unique(np.asarray(stacked))) == stacked.size


class Heads(nn.Layer):
    def forward(self, net, x):
        net.child("training" if net.train else "evaluation", nn.Chain(a=nn.Chain(b=Linear(1))))(x)
        return net.child("both", Mean())(x)


@pytest.mark.parametrize(
    "wrap", [lambda layer: nn.Repeat(layer, 2), lambda layer: nn.Ensemble(layer, 2)], ids=["Repeat", "Ensemble"]
)
def test_heads_of_one_mode_exist_in_every_copy(wrap):
    plain, copies = nn.Chain(x=Heads()).init(KEY, X), nn.Chain(x=wrap(Heads())).init(KEY, X)
    assert shapes(jax.tree.map(lambda leaf: leaf[0], copies)) == shapes(plain)
    assert set(copies.params["x"]) == {"training", "evaluation"}


def test_a_shared_repeat_keeps_its_widths():
    class Shared(nn.Layer):
        def forward(self, net, x):
            net.child("a", nn.Repeat(Masked(), 2))(x)
            return net.child("a", nn.Repeat(Masked(), 2))(x[:, :2])

    with refused("is shared, and 'kernel' was declared float32[2, 3, 3], now float32[2, 2, 2]"):
        Shared().init(KEY, X)


REFUSED = [
    (nn.Repeat(Linear(2), 3), X, "in 0: Repeat(Linear(2), 3): got float32[4, 3] and returns float32[4, 2]"),
    (
        nn.Repeat(lambda x: x.astype(jnp.float32), 2),
        X.astype(jnp.bfloat16),
        "got bfloat16[4, 3] and returns float32[4, 3]",
    ),
    (nn.Repeat(lambda x: (x, x), 2), X, "got float32[4, 3] and returns (float32[4, 3], float32[4, 3])"),
]


@pytest.mark.parametrize(("layer", "x", "message"), REFUSED)
def test_repeat_refuses_a_layer_that_changes_shape_or_dtype(layer, x, message):
    with refused(message, "wanted the same shape and dtype"):
        nn.Chain(layer).init(KEY, x)


def test_repeat_says_so_when_the_shape_changes_only_now():
    with refused("got float32[4, 3] and returns float32[2, 3], wanted the same shape and dtype"):
        nn.Repeat(lambda x: x[:2], 2).apply({}, {}, X)


@pytest.mark.parametrize("wrap", [nn.Repeat, nn.Ensemble])
def test_copies_are_counted(wrap):
    for n in (0, -1, 2.0, "3", None):
        with refused(f"{wrap.__name__} got n={n!r}, wanted a whole number of copies, at least 1"):
            wrap(Linear(3), n)
    variables = wrap(Linear(3), 4).init(KEY, X)
    with refused("holds 3 copies, but bias is float32[4, 3], wanted a leading axis of 3", "another depth?"):
        wrap(Linear(3), 3)(variables, X)
    with refused("wanted a leading axis of 2"):
        wrap(Linear(3), 2)(Linear(3).init(KEY, X), X)


def equations(jaxpr: Any) -> int:
    inside = [sub for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params)]
    return len(jaxpr.eqns) + sum(map(equations, inside))


def test_the_program_of_a_repeat_does_not_grow_with_the_copies():
    def size(n: int) -> tuple[int, int]:
        model = nn.Repeat(nn.Chain(nn.Repeat(Block(), n), nn.Remat(Linear(3))), n)
        variables = jax.eval_shape(lambda: model.init(KEY, X))

        def loss(params, state, key):
            output, state = model.apply(params, state, X, key=key, train=True)
            return jnp.sum(output), state

        init = jax.make_jaxpr(lambda: model.init(KEY, X))()
        return equations(init.jaxpr), equations(jax.make_jaxpr(jax.grad(loss, has_aux=True))(*variables, KEY).jaxpr)

    assert size(2) == size(20)


@pytest.mark.slow
def test_frozen_parameters_of_copies_stay():
    model = nn.Chain(
        body=nn.Repeat(nn.Residual(Linear(3)), 3), ensemble=nn.Ensemble(Linear(2), 2), remat=nn.Remat(Linear(2))
    )
    variables = model.init(KEY, X)
    frozen = jdl.freeze(variables, ["body/kernel", "ensemble/bias", "remat/kernel"])

    @jax.jit
    def step(params, state):
        loss = lambda params: jnp.sum(model.apply(params, state, X)[0] ** 2)  # noqa: E731
        return jax.value_and_grad(loss)(params)

    (value, gradient), (same, whole) = step(*frozen), step(*variables)
    assert_close(value, same)
    assert jdl.paths(gradient) == ("body/bias", "ensemble/kernel", "remat/bias")
    assert_close(gradient["body"]["bias"], whole["body"]["bias"])
    assert_close(gradient["ensemble"]["kernel"], whole["ensemble"]["kernel"])


# ── Remat ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def run(model: nn.Layer, variables: nn.Variables, **options: Any) -> Any:
    """Output, new state and the gradients for parameters and inputs of a training step."""

    def loss(params, x, mask):
        output, state = model.apply(params, variables.state, x, x, mask=mask, key=KEY, train=True, **options)
        return jnp.sum(output**2), (output, state)

    gradient = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    return gradient(variables.params, X, jnp.asarray([1.0, 0.5, 1.0, 0.0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plain", "remat"),
    [
        (Block(), nn.Remat(Block())),
        (Block(), nn.Remat(Block(), policy=jax.checkpoint_policies.dots_saveable)),
        (nn.Residual(Block()), nn.Residual(nn.Remat(Block()))),
        (nn.Residual(Block()), nn.Remat(nn.Residual(nn.Remat(Block())))),
        (nn.Repeat(Block(), 3), nn.Remat(nn.Repeat(Block(), 3))),
        (nn.Repeat(Block(), 3), nn.Repeat(nn.Remat(Block()), 3)),
        (nn.Ensemble(Block(), 3), nn.Ensemble(nn.Remat(Block()), 3)),
        (nn.Ensemble(nn.Repeat(Block(), 2), 2), nn.Remat(nn.Ensemble(nn.Repeat(nn.Remat(Block()), 2), 2))),
    ],
    ids=repr,
)
def test_remat_changes_nothing_but_the_memory(plain, remat):
    variables = plain.init(KEY, X)
    assert_equal(variables, remat.init(KEY, X))
    assert_close(run(remat, variables, scale=0.5), run(plain, variables, scale=0.5), 2e-5)


def test_static_inputs_stay_static():
    class Causal(nn.Layer):
        def forward(self, net, x, causal, name):
            return -x if causal and name == "a" else x

    for wrap in (nn.Remat, lambda layer: nn.Repeat(layer, 1), nn.Residual, lambda layer: nn.Ensemble(layer, 1)):
        model = wrap(Causal())
        assert model.init(KEY, X, True, "a") == nn.Variables({}, {})
        flipped, kept = (model.apply({}, {}, X, causal, "a")[0] for causal in (True, False))
        assert np.any(flipped != kept)
        assert len(nn.Chain(nn.Remat(Causal())).spec(X, True, "a").rows) == 3


def saved(model: nn.Layer, x: jax.Array) -> int:
    """Numbers kept for the backward pass."""
    params, state = model.init(KEY, x)
    backward = jax.eval_shape(
        lambda params, x: jax.vjp(lambda p, x: model.apply(p, state, x)[0], params, x)[1], params, x
    )
    return sum(leaf.size for leaf in jax.tree.leaves(backward))


def test_remat_saves_inputs_alone_unless_its_policy_says_more():
    x = normal(100, 3)
    deep = nn.Chain(*[part for _ in range(6) for part in (Linear(3), jnp.tanh)])
    parameters = deep.spec(x).parameters
    assert saved(nn.Remat(deep), x) <= x.size + parameters
    assert saved(deep, x) >= 6 * x.size
    everything = nn.Remat(deep, policy=jax.checkpoint_policies.everything_saveable)
    assert saved(everything, x) >= 6 * x.size
    blocks = nn.Repeat(deep, 4)
    assert saved(nn.Repeat(nn.Remat(deep), 4), x) <= 5 * x.size + 4 * parameters < 24 * x.size <= saved(blocks, x)


# ── Ensemble ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_ensemble_equals_its_members_one_by_one():
    inner = nn.Chain(Linear(5), jnp.tanh, nn.Parallel(Linear(2), Mean()))
    model = nn.Ensemble(inner, 3)
    variables = model.init(KEY, X)
    assert shapes(member(variables, 0)) == shapes(inner.init(KEY, X))
    members = [apply_jitted(inner, member(variables, i), X, train=True) for i in range(3)]
    assert_close(apply_jitted(model, variables, X, train=True), stack(members), 1e-5)
    assert model.spec(X).output[0].shape == (3, 4, 2)


def test_members_draw_their_own_keys():
    noise = nn.Ensemble(nn.Chain(Noise()), 3).apply({}, {}, X, key=KEY, train=True)[0] - X
    assert noise.shape == (3, 4, 3) and len(np.unique(np.asarray(noise))) == noise.size
    assert_equal(nn.Ensemble(Noise(), 2).apply({}, {}, X)[0], jnp.stack([X, X]))


# ── one in another ────────────────────────────────────────────────────────────────────────────────────────────────


def nested(build: Any, params: Any, x: jax.Array) -> jax.Array:
    """What ``build``, nested tuples of kind, inner and number, computes on ``x`` by Python loops."""
    if build == "layer":
        return x + jnp.tanh(x @ params["kernel"] + params["bias"])
    kind, inner, n = build
    if kind == "repeat":
        for i in range(n):
            x = nested(inner, member(params, i), x)
        return x
    if kind == "ensemble":
        return jnp.stack([nested(inner, member(params, i), x) for i in range(n)])
    return nested(inner, params, x)


def layer_of(build: Any) -> nn.Layer:
    if build == "layer":
        return nn.Residual(nn.Chain(Affine(), jnp.tanh))
    kind, inner, n = build
    wrap = {"repeat": nn.Repeat, "ensemble": nn.Ensemble, "remat": nn.Remat}[kind]
    return wrap(layer_of(inner), n) if n else wrap(layer_of(inner))


class Affine(Linear):
    features: int = 3


NESTED = [
    ("repeat", ("repeat", "layer", 2), 2),
    ("repeat", ("remat", "layer", 0), 3),
    ("remat", ("repeat", "layer", 3), 0),
    ("ensemble", ("repeat", "layer", 2), 2),
    ("ensemble", ("ensemble", "layer", 1), 2),
    ("remat", ("ensemble", ("repeat", ("remat", ("repeat", "layer", 2), 0), 1), 2), 0),
]


@pytest.mark.slow
@pytest.mark.parametrize("build", NESTED, ids=str)
def test_transformations_nest(build):
    model = layer_of(build)
    params, state = model.init(KEY, X)
    assert set(params) == {"0"} and state == {}

    def results(f):
        return jax.jit(lambda p, x: (f(p, x), jax.grad(lambda *a: jnp.sum(f(*a) ** 2), (0, 1))(p, x)))(params, X)

    ours = results(lambda params, x: model.apply(params, {}, x, key=KEY, train=True)[0])
    assert_close(ours, results(lambda params, x: nested(build, params["0"], x)), 1e-5)


def test_nothing_leaks():
    model = nn.Chain(
        nn.Repeat(nn.Remat(nn.Chain(Block(), nn.Dropout(0.1))), 2),
        nn.Remat(nn.Repeat(Mean(), 2)),
        nn.Ensemble(Block(), 2),
    )
    with jax.checking_leaks():
        params, state = model.init(KEY, X)

        def loss(params, state, key):
            output, state = model.apply(params, state, X, key=key, train=True)
            return jnp.sum(output), state

        gradient, new = jax.eval_shape(jax.jit(jax.grad(loss, has_aux=True)), params, state, KEY)
        jax.eval_shape(loss, params, state, KEY)
        model.spec(X)
    assert shapes(gradient) == shapes(params) and shapes(new) == shapes(state)


def test_repeat_of_what_is_not_a_layer():
    with pytest.raises(InputError, match=r"in Repeat.layer: got 3, wanted a layer or a function of arrays"):
        nn.Repeat(3, Linear(3))

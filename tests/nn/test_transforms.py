"""jax transforms around a model, and a user's own inside a forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
from jdl.nn.core import Layer
from tests.nn.toys import (
    KEY,
    Inside,
    Linear,
    Mean,
    Noise,
    apply_jitted,
    assert_close,
    assert_equal,
    normal,
    shapes,
)

X = normal(4, 3)


def scanned(f, x):
    return jax.lax.scan(lambda carry, _: (f(carry), carry), x, length=3)[0]


def looped(f, x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(c[1])), (0, x))[1]


def branched(f, x):
    return jax.lax.cond(x[0, 0] > -1e9, f, lambda x: x, x)


def switched(f, x):
    return jax.lax.switch(x[0, 0].astype(jnp.int32), [f, lambda x: 2.0 * f(x), lambda x: x], x)


def differentiated(f, x):
    return jax.grad(lambda x: jnp.sum(f(x) ** 2))(x)


TRANSFORMS: dict[str, Callable[[Callable[..., Any], jax.Array], jax.Array]] = {
    "scan": scanned,
    "while_loop": looped,
    "fori_loop": lambda f, x: jax.lax.fori_loop(0, 3, lambda i, x: f(x), x),
    "cond": branched,
    "switch": switched,
    "map": lambda f, x: jax.lax.map(f, x),
    "vmap": lambda f, x: jax.vmap(f)(x),
    "vmap of columns": lambda f, x: jax.vmap(f, in_axes=2, out_axes=2)(jnp.stack([x, 2.0 * x], -1))[..., 1],
    "checkpoint": lambda f, x: jax.checkpoint(f)(x),
    "checkpoint in scan": lambda f, x: scanned(jax.checkpoint(f), x),
    "grad": differentiated,
    "grad of grad": lambda f, x: jax.grad(lambda x: jnp.sum(differentiated(f, x) ** 3))(x),
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,))[1],
    "vjp": lambda f, x: jax.vjp(f, x)[1](x)[0],
    "jacobian": lambda f, x: jax.jacobian(f)(x).sum((2, 3)),
    "jit": lambda f, x: jax.jit(f)(x),
    "jit twice": lambda f, x: (lambda jitted: jitted(jitted(x)))(jax.jit(f)),
}
LOOPS = ("while_loop", "fori_loop")  # without a derivative in reverse
INNER = nn.Chain(Linear(3), jnp.tanh)


def by_hand(params, x):
    return jnp.tanh(x @ params["0"]["kernel"] + params["0"]["bias"])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_stateless_sub_layers_run_in_a_transform_inside_forward(name):
    transform = TRANSFORMS[name]
    model = Inside(INNER, transform)
    with jax.checking_leaks():
        params = model.init(KEY, X).params
        assert shapes(params) == {"inner": shapes(INNER.init(KEY, X).params)}
        assert model.spec(X).output.shape == X.shape

    def loss(apply, params):
        return jnp.sum(apply(params) ** 2)

    def ours(params):
        return model.apply(params, {}, X, key=KEY, train=True)[0]

    def theirs(params):
        return transform(lambda x: by_hand(params["inner"], x), X)

    if name in LOOPS:
        programs = [jax.jit(lambda params, apply=apply: apply(params)) for apply in (ours, theirs)]
    else:
        programs = [
            jax.jit(lambda params, apply=apply: (apply(params), jax.grad(loss, 1)(apply, params)))
            for apply in (ours, theirs)
        ]
    assert_close(programs[0](params), programs[1](params), 1e-5)
    with jax.checking_leaks():
        jax.eval_shape(ours, params)


@pytest.mark.parametrize("name", ["scan", "cond", "vmap", "checkpoint", "grad", "jit"])
def test_layers_that_draw_or_keep_state_run_inside_a_transform_in_evaluation(name):
    inner = nn.Chain(Noise(), Mean(), nn.Repeat(Mean(), 2), nn.Remat(Noise()))
    state = inner.init(KEY, X).state
    state = jax.tree.map(lambda leaf: leaf + 1.0, state)
    model = Inside(inner, TRANSFORMS[name])
    expected = TRANSFORMS[name](lambda x: x - 3.0, X)
    assert_close(model.apply({}, {"inner": state}, X)[0], expected, 1e-5)


FORBIDDEN = {
    "draws a key": [
        (Noise(), "inner"),
        (nn.Chain(Noise()), "inner/0"),
        (nn.Remat(Noise()), "inner"),
        (nn.Repeat(nn.Chain(Noise()), 2), "inner/0"),
        (nn.Chain(a=nn.Repeat(nn.Remat(nn.Chain(b=Noise())), 2)), "inner/a/b"),
        (nn.Ensemble(Noise(), 1), "inner"),
        (nn.Residual(Noise()), "inner"),
        (nn.Dropout(0.5), "inner"),
    ],
    "updates its state": [
        (Mean(), "inner"),
        (nn.Remat(nn.Chain(Mean())), "inner/0"),
        (nn.Repeat(Mean(), 2), "inner"),
        (nn.Chain(a=nn.Repeat(nn.Remat(nn.Chain(b=Mean())), 2)), "inner/a/b"),
        (nn.Ensemble(Mean(), 1), "inner"),
    ],
}


@pytest.mark.parametrize("does", FORBIDDEN)
@pytest.mark.parametrize("name", ["scan", "while_loop", "cond", "vmap", "checkpoint", "grad", "jit"])
def test_drawing_or_updating_inside_a_transform_is_an_error_that_names_the_layer(name, does):
    def transform(f, x):
        return TRANSFORMS[name](lambda x: f(x).reshape(x.shape), x)

    for inner, path in FORBIDDEN[does]:
        model = Inside(inner, transform)
        _, state = inner.init(KEY, X)
        params = {"inner": inner.init(KEY, X).params}
        message = rf"in {path}: .*{does} inside a jax transform of your own .*wrap the layer in nn.Repeat, nn.Remat"
        with pytest.raises(InputError, match=message):
            model.init(KEY, X)
        for key in (KEY, None) if does == "draws a key" else (KEY,):
            with pytest.raises(InputError, match=message):
                model.apply(params, {"inner": state}, X, key=key, train=True)
        with pytest.raises(InputError, match=message):
            apply_jitted(model, nn.Variables(params, {"inner": state}), X, key=KEY, train=True)


class PerTurn(nn.Layer):
    """The same layer at every turn of a scan, with a key for each."""

    inner: Any

    def forward(self, net, x):
        if not net.train:
            return net.inner(x)[None]
        keys = jax.random.split(net.key(), 5)
        return jax.lax.scan(lambda _, key: (None, net.inner(x, key=key)), None, keys)[1]


@pytest.mark.parametrize(
    "inner", [Noise(), nn.Chain(nn.Residual(Noise())), nn.Repeat(Noise(), 2), nn.Remat(nn.Chain(Noise()))], ids=repr
)
def test_a_key_of_its_own_gives_every_turn_its_own_mask(inner):
    model = PerTurn(inner)
    with jax.checking_leaks():
        assert model.init(KEY, X) == nn.Variables({}, {})
    turns = jax.jit(lambda key: model.apply({}, {}, X, key=key, train=True)[0])(KEY)
    for i in range(5):
        for j in range(i):
            assert np.all(turns[i] != turns[j])
    assert_equal(turns, jax.jit(lambda key: model.apply({}, {}, X, key=key, train=True)[0])(KEY))


def test_vmap_over_keys_inside_a_forward():
    def transform(f, x):
        return jax.vmap(lambda key: f(x, key=key))(jax.random.split(jax.random.key(3), 6))

    noisy = Inside(Noise(), transform).apply({}, {}, X, train=True)[0] - X
    one = Noise().apply({}, {}, X, key=jax.random.split(jax.random.key(3), 6)[2], train=True)[0] - X
    assert noisy.shape == (6, 4, 3) and len(np.unique(np.asarray(noisy))) == noisy.size
    assert np.all(one != noisy[2])  # the path is part of what is folded in, also with a key of one's own
    again = Inside(Noise(), lambda f, x: f(x, key=jax.random.split(jax.random.key(3), 6)[2]))
    assert_close(again.apply({}, {}, X, train=True)[0] - X, noisy[2], 1e-5)


def test_state_may_be_updated_outside_the_transform_of_a_sibling():
    class Mixed(nn.Layer):
        def forward(self, net, x):
            y = scanned(net.child("linear", Linear(3)), x)
            return net.child("mean", Mean())(y) + jax.vmap(net.child("linear", Linear(3)))(x)

    model = Mixed()
    params, state = model.init(KEY, X)
    with jax.checking_leaks():
        output, new = jax.jit(lambda p, s: model.apply(p, s, X, train=True))(params, state)
    linear = lambda x: x @ params["linear"]["kernel"] + params["linear"]["bias"]  # noqa: E731
    y = linear(linear(linear(X)))
    assert_close(new, {"mean": {"mean": 0.5 * y.mean(0)}}, 1e-5)
    assert_close(output, y - new["mean"]["mean"] + linear(X), 1e-5)


# ── around a model ────────────────────────────────────────────────────────────────────────────────────────────────

MLP = nn.Chain(Linear(5), jnp.tanh, Linear(2))


def mlp(params, x):
    h = jnp.tanh(x @ params["0"]["kernel"] + params["0"]["bias"])
    return h @ params["2"]["kernel"] + params["2"]["bias"]


def test_apply_lowers_to_the_program_written_by_hand():
    params, state = MLP.init(KEY, X)

    def program(apply: Callable[..., Any]) -> str:
        def loss(params, x):
            return jnp.sum(apply(params, x) ** 2)

        def f(params, x):
            return apply(params, x), jax.grad(loss)(params, x)

        return jax.jit(f).lower(params, X).as_text()

    by_hand = program(mlp)
    assert program(lambda params, x: MLP.apply(params, state, x)[0]) == by_hand
    assert program(lambda params, x: MLP.apply(params, state, x, key=KEY, train=True)[0]) == by_hand
    assert "dot_general" in by_hand


def test_the_program_names_its_operations_by_layer():
    model = nn.Chain(encoder=nn.Chain(Linear(3), nn.Repeat(nn.Chain(inner=Linear(3)), 2)), head=nn.Remat(Linear(2)))
    variables = model.init(KEY, X)
    text = jax.jit(lambda variables: model(variables, X)).lower(variables).as_text(debug_info=True)
    for path in ("encoder/0/dot_general", "encoder/1/", "inner/dot_general", "head/"):
        assert path in text


@pytest.mark.slow
def test_transforms_around_apply_equal_those_around_the_function_by_hand():
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: MLP.init(key, X).params)(keys)

    def results(apply):
        loss = lambda params, x: jnp.sum(apply(params, x) ** 2)  # noqa: E731
        one = jax.tree.map(lambda leaf: leaf[0], many)
        return {
            "ensemble": jax.vmap(apply, (0, None))(many, X),
            "examples": jax.vmap(jax.grad(loss), (None, 0))(one, X),
            "grad": jax.grad(loss)(one, X),
            "hessian": jax.hessian(lambda b: loss(one | {"2": one["2"] | {"bias": b}}, X))(one["2"]["bias"]),
            "checkpoint": jax.grad(lambda p: loss(p, X) + jnp.sum(jax.checkpoint(apply)(p, X)))(one),
            "scan": jax.lax.scan(lambda total, x: (total + apply(one, x), None), jnp.zeros(2), X)[0],
        }

    ours = jax.jit(lambda: results(lambda params, x: MLP.apply(params, {}, x)[0]))()
    assert_close(ours, jax.jit(lambda: results(mlp))(), 1e-5)


def test_steps_of_a_stateful_model_in_a_scan_equal_steps_in_python():
    model = nn.Chain(Mean(), nn.Dropout(0.5), Linear(2))
    params, state = model.init(KEY, X)
    batches, keys = normal(5, 4, 3), jax.random.split(KEY, 5)

    def step(state, now):
        output, state = model.apply(params, state, now[0], key=now[1], train=True)
        return state, output

    with jax.checking_leaks():
        last, outputs = jax.jit(lambda state: jax.lax.scan(step, state, (batches, keys)))(state)
    for batch, key, output in zip(batches, keys, outputs, strict=True):
        state, expected = jax.jit(step)(state, (batch, key))
        assert_close(output, expected, 1e-5)
    assert_close(last, state, 1e-5)


def test_an_equal_model_built_again_is_not_traced_again():
    traces = []

    class Traced(nn.Layer):
        inner: Any
        sizes: Any = ()

        def forward(self, net, x):
            traces.append(net.train)
            return net.inner(x)

    def build() -> Layer:
        parts = (Linear(3), jax.nn.gelu, nn.functional.gelu, nn.Repeat(nn.Residual(Linear(3)), 2), nn.Dropout(0.1))
        return Traced(nn.Chain(*parts, last=nn.Remat(Linear(2))), [1, 2])

    variables = build().init(KEY, X)
    traces.clear()
    for _ in range(3):
        apply_jitted(build(), variables, X)
    assert traces == [False]
    method = jax.jit(type(build()).apply, static_argnums=0)
    for _ in range(2):
        method(build(), *variables, X)
    assert traces == [False, False]
    apply_jitted(Traced(Linear(3)), Traced(Linear(3)).init(KEY, X), X)
    assert len(traces) == 5  # another model: twice by init, once by apply

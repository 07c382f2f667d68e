"""Selecting arrays by path patterns, and moving parameters between what trains and what does not."""

from __future__ import annotations

from pathlib import PurePosixPath

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jdl
from jdl import nn
from jdl.nn.paths import matches
from tests.nn.toys import KEY, Linear, Mean, assert_close, assert_equal, normal, refused, shapes

X = normal(4, 3)
MODEL = nn.Chain(encoder=nn.Chain(Linear(3), Mean(), ln_1=nn.LayerNorm()), head=Linear(2))
PATHS = (
    "encoder/0/bias",
    "encoder/0/kernel",
    "encoder/ln_1/bias",
    "encoder/ln_1/scale",
    "head/bias",
    "head/kernel",
)

# pattern, path, whether it matches
MATCHES = [
    ("kernel", "kernel", True),
    ("kernel", "a/kernel", False),
    ("a/kernel", "kernel", False),
    ("*", "kernel", True),
    ("*", "a/kernel", False),
    ("*/kernel", "a/kernel", True),
    ("*/kernel", "a/b/kernel", False),
    ("*/*", "a/kernel", True),
    ("a/*/kernel", "a/kernel", False),
    ("**", "kernel", True),
    ("**", "a/b/kernel", True),
    ("**/kernel", "kernel", True),
    ("**/kernel", "a/b/kernel", True),
    ("**/kernel", "a/b/kernels", False),
    ("a/**", "a/b/kernel", True),
    ("a/**", "a", True),
    ("a/**", "ab/c", False),
    ("a/**/kernel", "a/kernel", True),
    ("a/**/kernel", "a/b/c/kernel", True),
    ("a/**/kernel", "b/a/kernel", False),
    ("**/a/**", "x/a/y/z", True),
    ("**/a/**", "x/b/y/z", False),
    ("**/*/kernel", "kernel", False),
    ("**/**/kernel", "kernel", True),
    ("**/a/**/b", "a/x/a/b", True),
    ("ln_*/scale", "ln_12/scale", True),
    ("ln_?/scale", "ln_12/scale", False),
    ("ln_[12]/scale", "ln_2/scale", True),
    ("a**/kernel", "a/b/kernel", False),  # two stars stand for segments only where they are one
    ("Kernel", "kernel", False),
    ("", "kernel", False),
    ("a//kernel", "a/kernel", False),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES)
def test_patterns(pattern, path, expected):
    assert matches(pattern, path) is expected


segments = st.text("ab", min_size=1, max_size=2)


@given(st.lists(st.one_of(segments, st.just("*")), min_size=1, max_size=4), st.lists(segments, min_size=1, max_size=4))
def test_patterns_of_single_segments_are_those_of_pathlib(pattern, path):
    expected = len(pattern) == len(path) and PurePosixPath(*path).match("/".join(pattern))
    assert matches("/".join(pattern), "/".join(path)) is expected


@given(st.lists(segments, max_size=3), st.lists(segments, max_size=3), st.lists(segments, min_size=1, max_size=3))
def test_two_stars_stand_for_any_number_of_segments(before, between, after):
    pattern = "/".join([*before, "**", *after])
    assert matches(pattern, "/".join([*before, *between, *after]))
    assert not matches(pattern, "/".join([*before, *between, *after, "c"]))


def test_many_stars_do_not_take_for_ever():
    assert not matches("/".join(["**", "a"] * 20), "/".join(["a"] * 60 + ["b"]))


def test_paths_are_those_of_the_leaves_in_their_order():
    variables = MODEL.init(KEY, X)
    assert jdl.paths(variables.params) == PATHS
    assert jdl.paths(variables.state) == ("encoder/1/mean",)
    assert jdl.paths({}) == ()
    assert jdl.paths({"a": [1, (2, 3)], "b": nn.Variables({}, {"c": 4})}) == ("a/0", "a/1/0", "a/1/1", "b/state/c")


def test_select_marks_what_any_pattern_matches():
    params = MODEL.init(KEY, X).params
    chosen = jdl.select("**/kernel", "encoder/ln_*/scale")(params)
    assert jax.tree.structure(chosen) == jax.tree.structure(params)
    assert jax.tree.leaves(chosen) == [False, True, False, True, False, True]
    assert jax.tree.leaves(jdl.select()(params)) == [False] * 6


def test_the_first_pattern_that_matches_labels():
    params = MODEL.init(KEY, X).params
    rules = {"head/kernel": "a", "**/kernel": "b", "head/*": "c", "**": "d"}
    assert jax.tree.leaves(jdl.label(rules)(params)) == ["d", "b", "d", "d", "c", "a"]
    turned = dict(reversed(rules.items()))
    assert jax.tree.leaves(jdl.label(turned)(params)) == ["d"] * 6
    assert jax.tree.leaves(jdl.label({"head/**": 1.0}, default=0.0)(params)) == [0.0] * 4 + [1.0] * 2


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda v: jdl.select("**/kernle")(v.params),
            ["pattern '**/kernle' matches none of 6 paths; near it:", "/kernel"],
        ),
        (lambda v: jdl.select("**/kernel", "heads/*")(v.params), ["pattern 'heads/*' matches none", "head/kernel"]),
        (
            lambda v: jdl.label({"**": 1, "zzz": 2})(v.params),
            ["'zzz' matches none of 6 paths; near it: encoder/0/bias"],
        ),
        (lambda v: jdl.label({"head/**": 1})(v.params), ["['head/**'] matches 'encoder/0/bias'; add '**' last"]),
        (lambda v: jdl.freeze(v, "head"), ["'head' matches none of 6 paths; did you mean 'head/**'?"]),
        (lambda v: jdl.freeze(v, "encoder/*"), ["did you mean 'encoder/**'?"]),
        (lambda v: jdl.freeze(v, "kernel"), ["did you mean '**/kernel'?"]),
        (lambda v: jdl.freeze(v, "ln_*"), ["did you mean '**/ln_*/**'?"]),
        (lambda v: jdl.select("**")({}), ["matches none of 0 paths; near it: the tree is empty"]),
        (lambda v: jdl.select(3)(v.params), ["pattern got 3, wanted a string such as '**/kernel'"]),
        (lambda v: jdl.freeze(v, "encoder/1/mean"), ["'encoder/1/mean' matches none of 6 paths"]),
        (lambda v: jdl.freeze(v, ["**/kernel", "body/**"]), ["'body/**' matches none of 6 paths"]),
        (lambda v: jdl.unfreeze(v, "**/kernel"), ["matches none of 1 paths; near it: encoder/1/mean"]),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_that_names_near_paths(call, parts):
    with refused(*parts):
        call(MODEL.init(KEY, X))


# ── freezing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("patterns", ["**", "encoder/**", ["head/kernel", "**/bias"], ["**/scale"], []])
def test_freeze_and_back(patterns):
    variables = MODEL.init(KEY, X)
    frozen = jdl.freeze(variables, patterns)
    chosen = jax.tree.leaves(jdl.select(*([patterns] if isinstance(patterns, str) else patterns))(variables.params))
    moved = {path for path, out in zip(PATHS, chosen, strict=True) if out}
    assert set(jdl.paths(frozen.params)) == set(PATHS) - moved
    assert set(jdl.paths(frozen.state)) == {"encoder/1/mean"} | moved
    assert_equal(MODEL(frozen, X), MODEL(variables, X))
    assert shapes(MODEL.apply(*frozen, X, train=True)[1]) == shapes(frozen.state)
    assert_equal(jdl.unfreeze(frozen, sorted(moved)), variables)
    assert_equal(variables, MODEL.init(KEY, X))  # neither call changes what it is given


def test_no_empty_branches_are_left():
    frozen = jdl.freeze(MODEL.init(KEY, X), "encoder/**")
    assert set(frozen.params) == {"head"}
    assert set(frozen.state["encoder"]) == {"0", "1", "ln_1"}
    assert jdl.freeze(frozen, "**").params == {}


def test_frozen_parameters_neither_learn_nor_decay_nor_keep_moments():
    variables = MODEL.init(KEY, X)
    frozen = jdl.freeze(variables, "encoder/**")
    optimizer = optax.adamw(0.1, weight_decay=0.5)

    @jax.jit
    def step(params, state, opt_state):
        def loss(params):
            output, new = MODEL.apply(params, state, X, train=True)
            return jnp.sum(output**2), new

        gradient, state = jax.grad(loss, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    params, state = frozen
    opt_state = optimizer.init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(opt_state)) == 2 * (3 * 2 + 2) + 1
    for _ in range(3):
        params, state, opt_state = step(params, state, opt_state)
    learned = jdl.unfreeze(nn.Variables(params, state), [path for path in PATHS if path.startswith("encoder")])
    assert_equal(learned.params["encoder"], variables.params["encoder"])
    assert np.all(learned.params["head"]["kernel"] != variables.params["head"]["kernel"])
    assert np.all(learned.state["encoder"]["1"]["mean"] != 0)


def test_a_running_statistic_is_not_to_be_unfrozen():
    variables = MODEL.init(KEY, X)
    with refused("in encoder/1: Mean(): 'mean' is state and stands in params; let unfreeze name parameters only"):
        MODEL(jdl.unfreeze(variables, "**/mean"), X)


# ── with optax ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_select_is_a_decay_mask():
    params = MODEL.init(KEY, X).params
    optimizer = optax.adamw(1.0, weight_decay=0.5, mask=jdl.select("**/kernel"))
    zero = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zero, optimizer.init(params), params)
    kernels = jdl.select("**/kernel")(params)
    assert_close(updates, jax.tree.map(lambda p, decays: -0.5 * p if decays else 0.0 * p, params, kernels))


def test_label_gives_every_part_an_optimizer_of_its_own():
    params = MODEL.init(KEY, X).params
    labels = jdl.label({"head/bias": "still", "encoder/**": "slow", "**": "fast"})
    optimizer = optax.multi_transform(
        {"slow": optax.sgd(0.1), "fast": optax.sgd(1.0), "still": optax.set_to_zero()}, labels
    )
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(ones, optimizer.init(params), params)
    rates = {"slow": -0.1, "fast": -1.0, "still": 0.0}
    assert_close(updates, jax.tree.map(lambda p, name: jnp.full_like(p, rates[name]), params, labels(params)))

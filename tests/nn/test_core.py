"""init and apply as pure functions of a layer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
from jdl.nn.core import _initialise
from tests.nn.toys import KEY, Linear, Mean, Noise, assert_close, assert_equal, normal, refused, shapes

X = normal(4, 3)


class Heads(nn.Layer):
    """One head for either mode, another below it, and one for both."""

    def forward(self, net, x):
        name = "training" if net.train else "evaluation"
        return net.child(name, nn.Chain(body=Linear(2), head=Linear(1)))(net.child("both", Linear(3))(x))


def test_init_is_deterministic_and_equals_spec():
    model = nn.Chain(Linear(5), jnp.tanh, stats=Mean(), heads=Heads())
    variables = model.init(KEY, X)
    assert_equal(variables, model.init(KEY, X))
    assert_equal(variables, model.init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype)))
    assert_equal(variables, model.init(KEY, np.asarray(X)))
    spec = model.spec(X)
    assert shapes(variables) == shapes(nn.Variables(spec.params, spec.state))
    other = model.init(jax.random.key(1), X)
    kernels = [v.params["0"]["kernel"] for v in (variables, other)]
    assert np.all(kernels[0] != kernels[1])


def test_init_makes_every_array_from_its_own_path():
    plain = nn.Chain(a=Linear(3), b=Linear(3)).init(KEY, X).params
    more = nn.Chain(z=Linear(3), a=Linear(3), extra=nn.Chain(Linear(3), Noise()), b=Linear(3)).init(KEY, X).params
    for name in ("a", "b"):
        assert_equal(plain[name], more[name])
    assert np.all(plain["a"]["kernel"] != plain["b"]["kernel"])
    # the rule itself, so that seeds keep their meaning from version to version
    kernel = nn.init.he_normal()(jax.random.fold_in(KEY, np.uint32(0xAC860D31)), (3, 3), jnp.float32)
    assert_close(plain["a"]["kernel"], kernel)


def test_heads_of_either_mode_exist():
    for model in (Heads(), nn.Remat(Heads())):
        params = model.init(KEY, X).params
        assert set(params) == {"both", "evaluation", "training"}
        assert shapes(params["training"]) == shapes(params["evaluation"])
        for train in (False, True):
            assert model.apply(params, {}, X, train=train)[0].shape == (4, 1)


@pytest.mark.slow
def test_init_under_jit_vmap_and_eval_shape():
    model = nn.Chain(Linear(3), stats=Mean())
    plain = model.init(KEY, X)
    assert_close(jax.jit(model.init)(KEY, X), plain)
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: model.init(key, X))(keys)
    assert_close(jax.tree.map(lambda leaf: leaf[1], many), model.init(keys[1], X))
    assert shapes(jax.eval_shape(model.init, KEY, X)) == shapes(plain)


@pytest.mark.parametrize(
    ("key", "came"),
    [
        (jax.random.PRNGKey(0), r"uint32\[2\]"),
        (0, "0"),
        (None, "None"),
        (jax.random.split(KEY, 2), r"key<fry>\[2\]"),
        (X, r"float32\[4, 3\]"),
    ],
)
def test_a_key_that_is_not_one_typed_key_is_refused(key, came):
    with pytest.raises(InputError, match=rf"key got {came}, wanted one typed key; make it with jax.random.key\(0\)"):
        Linear(3).init(key, X)
    if key is not None:
        with pytest.raises(InputError, match=rf"key got {came}"):
            Linear(3).apply({}, {}, X, key=key)


def test_an_initialiser_that_fails_or_makes_something_else_is_named():
    class Odd(nn.Layer):
        init_bias: Any

        def params(self, x):
            return {"bias": nn.Param((3,), self.init_bias)}

        def forward(self, net, x):
            return x + net.bias

    with pytest.raises(InputError, match=r"he_normal\(\) got shape \(3,\)") as error:
        nn.Chain(Odd(nn.init.he_normal())).init(KEY, X)
    assert any("while he_normal() made 0/bias: float32[3]" in note for note in error.value.__notes__)
    with pytest.raises(InputError, match=r"in 0/bias: .* made float32\[2\], wanted float32\[3\]"):
        nn.Chain(Odd(lambda key, shape, dtype: jnp.zeros(2, dtype))).init(KEY, X)


def test_a_lambda_written_inside_params_may_be_an_initialiser():
    class Odd(nn.Layer):
        def params(self, x):
            return {"bias": nn.Param((3,), lambda key, shape, dtype: jnp.full(shape, 2.0, dtype))}

        def forward(self, net, x):
            return x + net.bias

    assert_equal(Odd().init(KEY, X).params["bias"], jnp.full(3, 2.0))


def block(width: int) -> nn.Layer:
    attention = nn.Chain(nn.LayerNorm(), nn.Dense(3 * width), lambda_free_third, nn.Dense(width))
    return nn.Chain(nn.Residual(attention), nn.Residual(nn.Chain(nn.LayerNorm(), nn.Dense(4 * width), nn.Dense(width))))


def lambda_free_third(x):
    return x[..., : x.shape[-1] // 3]


@pytest.fixture
def compilations():
    """How many programs have been compiled since."""
    count = Counter()

    def listen(event: str, duration: float, **_: Any) -> None:
        count[event] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count["/jax/core/compile/backend_compile_duration"]
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("blocks", "width"),
    [(3, 24), pytest.param(12, 768, marks=pytest.mark.slow), pytest.param(48, 96, marks=pytest.mark.slow)],
)
def test_init_compiles_one_program_per_initialiser_shape_and_dtype(blocks, width, compilations):
    model = nn.Chain(*(block(width) for _ in range(blocks)))
    spec = model.spec(jax.ShapeDtypeStruct((1, 16, width), jnp.float32))
    params = jax.tree.leaves(spec.params, is_leaf=lambda leaf: isinstance(leaf, nn.Param))
    if (blocks, width) == (12, 768):
        assert 77e6 < spec.parameters < 90e6
    _initialise.clear_cache()
    jax.block_until_ready(jax.random.key(0))
    before = compilations()
    variables = model.init(KEY, jax.ShapeDtypeStruct((1, 16, width), jnp.float32))
    distinct = {(param.init, param.shape, param.dtype) for param in params}
    assert len(params) == 12 * blocks and len(distinct) <= 8
    assert 0 < compilations() - before <= len(distinct)
    assert len(jax.tree.leaves(variables.params)) == len(params)


# ── apply ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_apply_is_pure_and_returns_the_new_state():
    model = nn.Chain(Linear(3), stats=Mean(), plain=Linear(2))
    params, state = model.init(KEY, X)
    before = jax.tree.map(np.asarray, (params, state))
    output, new = model.apply(params, state, X, train=True)
    assert_equal((params, state), before)
    hidden = X @ params["0"]["kernel"] + params["0"]["bias"]
    assert_close(new, {"stats": {"mean": 0.5 * hidden.mean(0)}})
    assert_close(output, (hidden - new["stats"]["mean"]) @ params["plain"]["kernel"] + params["plain"]["bias"], 1e-5)
    assert_equal(model.apply(params, state, X, train=True), (output, new))
    assert_equal(model.apply(params, state, X)[1], state)
    assert_equal(model(nn.Variables(params, new), X), model.apply(params, new, X)[0])


def test_state_of_other_layers_is_kept_beside_what_is_updated():
    model = nn.Chain(a=Mean(), b=nn.Chain(c=Mean(), d=Linear(2)))
    params, state = model.init(KEY, X)
    frozen = nn.Variables({}, {"a": state["a"], "b": {"c": state["b"]["c"], "d": params["b"]["d"]}})
    _, new = model.apply(*frozen, X, train=True)
    assert_equal(new["b"]["d"], params["b"]["d"])
    assert shapes(new) == shapes(frozen.state) and np.any(new["b"]["c"]["mean"] != 0)


def with_kernel(kernel: Any):
    return lambda params: {"0": params["0"] | {"kernel": kernel}}


def without_bias(params: Any) -> Any:
    return {"0": {"kernel": params["0"]["kernel"]}}


APPLY_ERRORS = [
    (without_bias, ["in 0: Linear(5): has no array 'bias' (here stand ['kernel'] in params, [] in state)"]),
    (lambda params: {}, ["in 0: Linear(5): has no array 'kernel'", "did init reach this sub-layer"]),
    (lambda params: {"0": jnp.ones(3)}, ["has no array 'kernel'"]),
    (
        with_kernel(jnp.ones((7, 5))),
        [
            "in 0: Linear(5): got float32[4, 3], for which kernel is float32[3, 5], but it is float32[7, 5]",
            "do the variables belong to another model or another input width?",
        ],
    ),
    (with_kernel({"0": jnp.ones(3)}), ["wanted the array 'kernel' and found sub-layers ['0']"]),
    (
        lambda params: nn.Variables(params, {}),
        ["params got Variables, wanted a nested dict", "model(variables, inputs)"],
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), APPLY_ERRORS)
def test_apply_says_what_does_not_fit(change, message):
    model = nn.Chain(Linear(5), jnp.tanh)
    params = change(model.init(KEY, X).params)
    with refused(*message):
        model.apply(params, {}, X)


@pytest.mark.parametrize("train", [np.bool_(True), 1, None, "yes"])
def test_train_is_a_bool(train):
    with refused("train got", "wanted True or False; mark it static under jax.jit"):
        Linear(3).apply({}, {}, X, train=train)


def test_train_cannot_be_traced():
    with pytest.raises(InputError, match=r"train got bool\[\], wanted True or False; mark it static under jax.jit"):
        jax.jit(lambda train: Linear(3).apply({}, {}, X, train=train))(True)


def test_a_mismatch_suggests_flatten_where_that_would_fit():
    images = normal(2, 4, 5, 3)
    dense = Linear(2)
    params = nn.Chain(nn.Flatten(), out=dense).init(KEY, images).params
    with pytest.raises(InputError, match=r"in out: Linear\(2\): .*did you mean nn.Flatten\(\) before it\?"):
        nn.Chain(out=dense).apply(params, {}, images)
    with pytest.raises(InputError) as error:
        nn.Chain(out=dense).apply(params, {}, normal(2, 4, 5, 2))
    assert "Flatten" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            lambda net: {"n": net.n, "m": net.n},
            r"updates 'm', which state\(\) does not declare \(it declares \['n'\]\)",
        ),
        (lambda net: {"w": net.n}, r"updates 'w', which state\(\) does not declare"),
        (lambda net: {"n": jnp.zeros((2,))}, r"updates 'n' with float32\[2\], wanted float32\[3\]"),
        (lambda net: {"n": jnp.zeros((3,), jnp.bfloat16)}, r"updates 'n' with bfloat16\[3\], wanted float32\[3\]"),
        (lambda net: {"n": 0.0}, r"updates 'n' with 0.0, wanted float32\[3\]"),
    ],
)
def test_update_takes_declared_names_with_their_shape_and_dtype(values, message):
    class Odd(nn.Layer):
        def params(self, x):
            return {"w": nn.Param((3,), nn.init.ones())}

        def state(self, x):
            return {"n": nn.Param((3,), nn.init.zeros())}

        def forward(self, net, x):
            net.update(**values(net))
            return x

    with pytest.raises(InputError, match=r"in 0: Odd\(\): " + message):
        nn.Chain(Odd()).init(KEY, X)
    with pytest.raises(InputError, match=r"in 0: Odd\(\): " + message):
        nn.Chain(Odd()).apply({"0": {"w": jnp.ones(3)}}, {"0": {"n": jnp.zeros(3)}}, X)


def test_parameters_are_not_updated_and_names_not_declared_twice():
    class Both(nn.Layer):
        def params(self, x):
            return {"n": nn.Param((3,), nn.init.zeros())}

        state = params

    with pytest.raises(InputError, match=r"declares \['n'\] both as parameters and as state"):
        Both().init(KEY, X)

    class Clash(Linear):
        inner: Any = None

        def forward(self, net, x):
            return net.child("kernel", self.inner)(x)

    for inner in (Linear(2), jnp.tanh):
        with refused("'kernel' is both a parameter and a sub-layer; rename one"):
            Clash(2, inner=inner).init(KEY, X)

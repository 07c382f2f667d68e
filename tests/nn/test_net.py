"""What a forward sees: sub-layers by name, their arrays and methods, keys, options, and errors that say where."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
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


def test_a_layer_that_draws_needs_a_key_in_training_alone():
    model = nn.Chain(Linear(3), noise=nn.Chain(Noise()))
    params, state = model.init(KEY, X)
    model.apply(params, state, X)
    with pytest.raises(InputError, match=r"in noise/0: Noise\(\): draws random numbers and got key=None; pass key="):
        model.apply(params, state, X, train=True)


def noise_of(model: nn.Layer, key: jax.Array = KEY, x: jax.Array = X) -> jax.Array:
    """What ``model``, made of layers that draw, adds to ``x``."""
    return model.apply(*model.init(KEY, x), x, key=key, train=True)[0] - x


def test_draws_depend_on_the_key_the_path_and_how_often_the_path_has_drawn():
    class Twice(nn.Layer):
        def forward(self, net, x):
            return net.child("a", Noise())(x)[None] + net.child("a", Noise())(0.0 * x)[None]

    class Both(nn.Layer):
        def forward(self, net, x):
            return jnp.stack([net.child("a", Noise())(x), net.child("a", Noise())(x), net.child("b", Noise())(x)])

    draws = [noise_of(Both())[i] for i in range(3)] + [noise_of(Both(), jax.random.key(1))[0], noise_of(Noise())]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert np.all(np.abs(a - b) > 0)
    assert_equal(noise_of(Both()), noise_of(Both()))
    assert_close(noise_of(Twice())[0], draws[0] + draws[1], 1e-5)


def test_a_layer_that_draws_nothing_changes_no_mask():
    masks = [
        noise_of(nn.Chain(a=Noise())),
        noise_of(nn.Chain(first=jnp.positive, a=Noise(), last=nn.Dropout(0.0))),
        noise_of(nn.Chain(remat=nn.Remat(jnp.positive), a=Noise(), last=nn.Repeat(nn.Dropout(0.0), 2))),
        noise_of(nn.Residual(nn.Chain(a=Noise()))) - X,
        noise_of(nn.Remat(nn.Chain(a=Noise()))),
    ]
    for mask in masks[1:]:
        assert_close(mask, masks[0], 1e-5)


def test_a_call_with_its_own_key_draws_from_it_alone():
    class Given(nn.Layer):
        inner: Any

        def forward(self, net, x):
            first, again, other = (net.inner(x, key=jax.random.key(seed)) for seed in (5, 5, 6))
            return jnp.stack([first, again, other])

    model = Given(nn.Chain(Noise(), Noise()))
    first, again, other = model.apply({}, {}, X, train=True)[0]  # and needs no key of the run
    assert_equal(first, again)
    assert np.all(first != other)
    assert_equal(model.apply({}, {}, X, train=True, key=KEY)[0][0], first)
    assert shapes(Given(Linear(2)).init(KEY, X).params) == {"inner": shapes(Linear(2).init(KEY, X).params)}


class Tied(nn.Layer):
    """An embedding read, called by another method, and with its own key."""

    def forward(self, net, ids):
        embed = net.child("embed", nn.Embedding(7, 3))
        h = embed(ids, key=jax.random.key(0))
        return net.embed.attend(h), h @ embed.table.T, net.embed.table


def test_children_are_read_and_their_methods_called():
    ids = jnp.asarray([[1, 2], [6, 0]])
    variables = Tied().init(KEY, ids)
    assert set(variables.params) == {"embed"}
    table = variables.params["embed"]["table"]
    tied, by_hand, read = Tied()(variables, ids)
    assert_close(tied, table[ids] @ table.T, 1e-5)
    assert_close(by_hand, tied, 1e-5)
    assert_equal(read, table)


class Fields(nn.Layer):
    one: Any
    several: Any = ()
    setting: int = 3

    def forward(self, net, x):
        x = net.one(x)
        for part in net.several:
            x = part(x)
        return x * self.setting


def test_fields_that_hold_layers_are_sub_layers():
    model = Fields(Linear(3), [Linear(3), jnp.tanh, nn.Chain(Linear(2))])
    params = model.init(KEY, X).params
    assert shapes(params) == {
        "one": shapes(Linear(3).init(KEY, X).params),
        "several": {"0": shapes(Linear(3).init(KEY, X).params), "2": {"0": shapes(Linear(2).init(KEY, X).params)}},
    }
    one, first, last = params["one"], params["several"]["0"], params["several"]["2"]["0"]
    hidden = jnp.tanh((X @ one["kernel"] + one["bias"]) @ first["kernel"] + first["bias"])
    assert_close(model.apply(params, {}, X)[0], 3 * (hidden @ last["kernel"] + last["bias"]), 1e-5)
    assert set(Fields(jnp.tanh).init(KEY, X).params) == set()


def test_sharing_is_by_name_and_not_by_object():
    shared = Linear(3)

    class Shared(nn.Layer):
        def forward(self, net, x):
            return net.child("a", Linear(3))(net.child("a", shared)(x))

    params = Shared().init(KEY, X).params
    assert set(params) == {"a"}
    once = lambda x: x @ params["a"]["kernel"] + params["a"]["bias"]  # noqa: E731
    assert_close(Shared().apply(params, {}, X)[0], once(once(X)), 1e-5)
    assert set(Fields(shared, [shared]).init(KEY, X).params) == {"one", "several"}


def test_one_name_for_two_layers_or_widths_is_an_error():
    class Two(nn.Layer):
        a: Any
        b: Any

        def forward(self, net, x):
            x = net.child("a", self.a)(x)
            return net.child("a", self.b)(x)

    with refused("uses the name 'a' for two layers, Linear(3) and Linear(3, bias=False); rename one"):
        Two(Linear(3), Linear(3, bias=False)).init(KEY, X)
    with refused("in a: Linear(2): is shared, and 'kernel' was declared float32[3, 2], now float32[2, 2]"):
        Two(Linear(2), Linear(2)).init(KEY, X)


def test_shared_state_is_seen_by_the_next_use():
    class Shared(nn.Layer):
        inner: Any

        def forward(self, net, x):
            return net.inner(net.inner(x))

    for wrap in (lambda layer: layer, nn.Remat, lambda layer: nn.Chain(nn.Remat(nn.Chain(nn.Remat(layer))))):
        model = Shared(wrap(Mean()))
        params, state = model.init(KEY, X)
        _, new = model.apply(params, state, X, train=True)
        first = 0.5 * X.mean(0)
        second = 0.5 * (first + (X - first).mean(0))
        assert_close(jax.tree.leaves(new), [second], 1e-5)


def test_what_the_view_does_not_hold_is_said():
    def reading(name: str, run: bool = False) -> nn.Layer:
        def forward(self, net, x):
            net.one(x)
            return getattr(net if run else net.one, name)

        return type("Reader", (Fields,), {"forward": forward})(Linear(3), setting=4)

    for model, message in [
        (reading("setting", run=True), r"in Reader.*: 'setting' is a setting; read self.setting"),
        (reading("features"), r"in one: Linear\(3\): 'features' is a setting; read self.features"),
        (reading("weight"), r"in one: Linear\(3\): has no 'weight'; it holds \['bias', 'kernel'\]"),
        (reading("weight", run=True), r"in Reader.*: has no 'weight'; it holds \['one'\]"),
    ]:
        with pytest.raises(AttributeError, match=message):
            model.init(KEY, X)


def test_arrays_of_a_child_are_read_after_it_has_run():
    class Early(nn.Layer):
        def forward(self, net, x):
            return x @ net.child("a", Linear(3)).kernel

    with pytest.raises(AttributeError, match=r"has no 'kernel'.*Arrays can be read once the layer has run"):
        Early().init(KEY, X)


def test_options_masks_and_named_inputs():
    mask = jnp.asarray([1.0, 0.0, 1.0, 0.0])
    model = Masked()
    variables = model.init(KEY, X, mask=mask)
    plain = model(variables, X)
    assert_close(model(variables, X, mask=mask), plain * mask[:, None])
    assert_close(model(variables, X, scale=2.0), 2.0 * plain)
    assert_close(model(variables, x=X, mask=np.asarray(mask)), plain * mask[:, None])
    assert_equal(model.init(KEY, x=X), variables)
    assert_close(apply_jitted(model, variables, X, mask=mask)[0], plain * mask[:, None])

    class Several(nn.Layer):
        """Declares from an option, of which only the second is asked for."""

        def params(self, x, *, context):
            return {"kernel": nn.Param((context.shape[-1], x.shape[-1]), nn.init.ones())}

        def forward(self, net, x, mask=None, context=None):
            return x + context @ net.kernel

    variables = Several().init(KEY, X, context=normal(4, 7), mask=None)
    assert shapes(variables.params) == {"kernel": ((7, 3), jnp.dtype("float32"))}
    assert Several()(variables, X, context=normal(4, 7)).shape == (4, 3)


LENGTHS = jnp.array([1, 2])


@pytest.mark.parametrize(
    ("layer", "inputs", "options", "message"),
    [
        (Linear(3), (X, X), {}, "in Linear(3): takes 1 input (x), got 2: (float32[4, 3], float32[4, 3])"),
        (Linear(3), (X,), {"x": X}, "takes 1 input (x), got 2"),
        (nn.Remat(Linear(3)), (X,), {"mask": X}, "got mask, which Linear does not take (it takes x)"),
        (nn.Chain(nn.Parallel(jnp.tanh, nn.tanh), nn.tanh), (X,), {}, "in 1: tanh: takes 1 input (x), got 2"),
        (nn.Chain(nn.Recurrent(nn.GRUCell(3))), (X[None],), {"lengths": LENGTHS}, "got lengths, which Chain does not"),
        (
            nn.Chain(Linear(3)),
            (X,),
            {"return_carry": True},
            "which Chain does not take; stack recurrent layers by nn.S",
        ),
        (nn.GRUCell(3), (X, X), {"reset": True}, "got reset, which GRUCell does not take (it takes carry, x)"),
    ],
)
def test_what_a_layer_does_not_take_is_refused(layer, inputs, options, message):
    with refused(message):
        layer.init(KEY, *inputs, **options)


def test_a_type_error_of_a_layers_own_stays_one():
    with pytest.raises(TypeError, match="unsupported operand"):
        nn.Chain(lambda x: x + "one").init(KEY, X)


def test_numpy_inputs_and_parameters_are_taken():
    class Rows(nn.Layer):
        def params(self, ids):
            return {"table": nn.Param((7, 3), nn.init.zeros())}

        def forward(self, net, ids):
            return net.table[ids]

    ids = np.asarray([1, 2])
    table = np.arange(21, dtype=np.float32).reshape(7, 3)
    assert_equal(jax.jit(lambda ids: Rows().apply({"table": table}, {}, ids)[0])(ids), table[ids])
    assert isinstance(nn.Chain()(nn.Variables({}, {}), np.float64(3.0)), jax.Array)


def test_an_error_is_located_at_the_innermost_layer():
    def broken(x):
        raise RuntimeError("out of luck")

    model = nn.Chain(a=nn.Residual(nn.Chain(jnp.tanh, broken)), b=Linear(2))
    with pytest.raises(RuntimeError, match="out of luck") as error:
        model.init(KEY, X)
    assert [note for note in error.value.__notes__ if note.startswith("in ")] == ["in a/1: broken"]


@pytest.mark.parametrize(
    "function",
    [
        np.tanh,
        lambda x: float(x.sum()),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: [1, 2][x.astype(jnp.int32)[0, 0]],
    ],
    ids=["numpy", "float", "branch", "index"],
)
def test_a_function_that_cannot_be_traced_is_named(function):
    with pytest.raises(InputError, match=rf"in bad: .*{function.__name__} cannot be traced by jax .*jnp.where"):
        nn.Chain(Linear(3), bad=function).init(KEY, X)

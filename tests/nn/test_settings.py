"""A layer as a value: frozen, hashable, printable, and without arrays."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
from jdl.nn.core import Layer
from jdl.nn.settings import RESERVED
from tests.nn.toys import KEY, Linear, Mean, Noise, assert_close, assert_equal, normal

X = normal(4, 3)


class Pair(NamedTuple):
    a: int
    b: int


class Many(nn.Layer):
    """A field of every kind."""

    width: int
    sizes: tuple = (1, 2)
    norm: Any = Mean()
    activation: Any = jax.nn.relu
    pair: Any = Pair(1, 2)
    extra: list = dataclasses.field(default_factory=list)
    flag: bool = dataclasses.field(default=False, kw_only=True)


class Wide(Linear):
    """A field more."""

    factor: int = 2


class Checked(nn.Layer):
    rate: float

    def __post_init__(self):
        if self.rate > 1:
            raise InputError("rate is too large")


class CheckedChild(Checked):
    name: str = "a"


class CheckedTwice(Checked):
    def __post_init__(self):
        super().__post_init__()
        if self.rate < 0:
            raise InputError("rate is negative")


def square(x):
    return x * x


def layer_with(**fields: Any) -> Any:
    """A layer class with fields of these names, without defaults."""
    return type("Odd", (nn.Layer,), {"__annotations__": dict.fromkeys(fields, Any)})(**fields)


VALUES = [
    Linear(3),
    Linear(3, bias=False),
    Wide(3, factor=4),
    Many(3, [4, [5]], norm=Linear(2), extra=[1], flag=True),
    nn.Chain(Linear(3), jax.nn.relu, square, out=Linear(2)),
    nn.Chain(jax.nn.relu, jax.nn.silu, jax.nn.sigmoid, jnp.tanh, jnp.add, jax.nn.gelu, nn.functional.gelu),
    Many(2, sizes=(jax.nn.relu, (jnp.tanh, square))),
    nn.Parallel(Linear(3), jnp.tanh),
    nn.Residual(jnp.tanh),
    nn.Repeat(nn.Chain(Linear(3), nn.Remat(Noise())), 3),
    nn.Remat(Linear(3), policy=jax.checkpoint_policies.dots_saveable),
    nn.Ensemble(Mean(), 2),
]


@pytest.mark.parametrize("layer", VALUES, ids=repr)
def test_settings_are_values(layer):
    for twin in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer)):
        assert twin == layer and hash(twin) == hash(layer) and repr(twin) == repr(layer)
    assert layer not in [other for other in VALUES if other is not layer]
    name = dataclasses.fields(layer)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(layer, name, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(layer, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.something_new = 0


def test_layers_of_two_classes_with_equal_fields_differ():
    class Other(Linear):
        pass

    assert Other(3) != Linear(3) and Other(3) == Other(3)


REPRS = [
    (Linear(3), "Linear(3)"),
    (Linear(3, False), "Linear(3, bias=False)"),
    (Wide(3, factor=7), "Wide(3, factor=7)"),
    (Many(2), "Many(2)"),
    (Many(2, [3], extra=[[1]], flag=True), "Many(2, sizes=(3,), extra=((1,),), flag=True)"),
    (Many(2, norm=Linear(1), activation=square), "Many(2, norm=Linear(1), activation=square)"),
    (Many(2, [square, [jax.nn.relu]]), "Many(2, sizes=(square, (relu,)))"),
    (nn.Chain(Linear(3), jax.nn.relu, out=Noise()), "Chain(Linear(3), relu, out=Noise())"),
    (nn.Parallel(a=Noise()), "Parallel(a=Noise())"),
    (nn.Repeat(nn.Residual(jnp.tanh), 2), "Repeat(Residual(tanh), 2)"),
    (nn.Remat(Noise()), "Remat(Noise())"),
    (nn.Ensemble(Noise(), n=2), "Ensemble(Noise(), 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "text"), REPRS, ids=[text for _, text in REPRS])
def test_repr_reads_as_it_is_written(layer, text):
    assert repr(layer) == text
    names = {"Linear": Linear, "Wide": Wide, "Many": Many, "Noise": Noise, "square": square}
    assert eval(text, {**vars(nn), **names, "relu": jax.nn.relu, "tanh": jnp.tanh}) == layer


def test_lists_become_tuples_all_the_way_down_and_named_tuples_stay():
    layer = Many(1, [1, [2, (3, [4])]], pair=Pair(3, 4))
    assert layer.sizes == (1, (2, (3, (4,)))) and layer == Many(1, (1, (2, (3, (4,)))), pair=Pair(3, 4))
    assert isinstance(layer.pair, Pair) and layer.extra == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, r"Odd.field got \{a: 1\}, which is unhashable; use a tuple or a frozen dataclass"),
        ({1, 2}, r"Odd.field got \{1, 2\}, which is unhashable"),
        ([1, {2}], r"Odd.field got \(1, \{2\}\), which is unhashable"),
        (jnp.ones(3), r"Odd.field got the array float32\[3\]; declare it in params\(\) or state\(\)"),
        (np.ones(3), r"Odd.field got the array float64\[3\]; declare it"),
        ([1, (2, np.zeros((1, 2), np.int32))], r"Odd.field got the array int32\[1, 2\]"),
        ({"a": jnp.ones(2)}, r"Odd.field got the array float32\[2\]"),
    ],
)
def test_a_field_that_is_unhashable_or_holds_an_array_is_an_error_at_once(value, message):
    with pytest.raises(InputError, match=message):
        layer_with(field=value)


def test_a_default_that_is_an_array_is_an_error_at_once():
    with pytest.raises(ValueError, match="mutable default"):
        type("Odd", (nn.Layer,), {"__annotations__": {"field": Any}, "field": jnp.ones(3)})


BAD_NAMES = [*sorted(RESERVED), "_hidden", "__class__", "a/b", ""]


def test_the_reserved_names_are_those_of_layers_and_of_the_view():
    view = {name for name in dir(nn.Net) if not name.startswith("_")}
    assert view | {"init", "apply", "spec", "forward", "params", "state", "traverse"} == RESERVED


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_field_is_an_error_at_once(name):
    with pytest.raises(InputError, match=f"field '{name}' of Odd is a reserved name; rename it"):
        type("Odd", (nn.Layer,), {"__annotations__": {name: int}})


@pytest.mark.parametrize("role", ["params", "state"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_parameter_or_state_of_a_name_that_is_taken_is_an_error(role, name):
    declare = lambda self, x: {name: nn.Param((3,), nn.init.zeros())}  # noqa: E731
    odd = type("Odd", (nn.Layer,), {role: declare, "forward": lambda self, net, x: x})()
    with pytest.raises(InputError, match=rf"in block: Odd\(\): .*name '{name}'"):
        nn.Chain(block=odd).init(KEY, X)


@pytest.mark.parametrize("name", [*BAD_NAMES, 3])
def test_a_sub_layer_of_a_name_that_is_taken_is_an_error(name):
    odd = type("Odd", (nn.Layer,), {"forward": lambda self, net, x: net.child(name, Linear(2))(x)})()
    with pytest.raises(InputError, match=rf"in Odd\(\): .*name {name!r}"):
        odd.init(KEY, X)
    for several in (nn.Chain, nn.Parallel):
        if isinstance(name, str):
            with pytest.raises(InputError, match=rf"{several.__name__} got the .*name '{name}'"):
                several(**{name: Linear(2)})


def test_subclasses_inherit_fields_constructors_and_checks():
    assert dataclasses.astuple(Wide(3)) == (3, True, 2)
    assert_equal(Wide(3).init(KEY, X), Linear(3).init(KEY, X))
    for layer in (Checked, CheckedChild, CheckedTwice):
        assert layer(0.5).rate == 0.5
        with pytest.raises(InputError, match="too large"):
            layer(2.0)
    with pytest.raises(InputError, match="negative"):
        CheckedTwice(-1.0)
    with pytest.raises(InputError, match="unhashable"):
        CheckedChild(0.5, name={})
    assert nn.Residual(jnp.tanh).layer == nn.Function(jnp.tanh)  # a check of a class that is not the last


def test_partials_and_lambdas_are_layers_but_new_values_each_time():
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.5)
    model = nn.Chain(leaky, lambda x: x + 1.0)
    assert_close(model(nn.Variables({}, {}), X), jnp.where(X >= 0, X, 0.5 * X) + 1.0)
    assert nn.Chain(leaky) == nn.Chain(leaky) == copy.deepcopy(nn.Chain(leaky))
    assert nn.Chain(lambda x: x) != nn.Chain(lambda x: x)
    assert "partial" in repr(model) and "<lambda>" in repr(model)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (lambda: nn.Param((3,), 0.0), "Param got init 0.0, wanted a callable"),
        (lambda: nn.Param(3, nn.init.zeros()), r"Param got shape 3, wanted a tuple such as \(3,\)"),
    ],
)
def test_param_says_what_it_wants(param, message):
    with pytest.raises(InputError, match=message):
        param()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Linear, r"got the class Linear, wanted a layer; write Linear\(\.\.\.\)"),
        (3, "got 3, wanted a layer or a function"),
    ],
)
def test_what_is_no_layer_is_refused_where_it_is_given(layer, message):
    for build in (nn.Chain, nn.Parallel):
        with pytest.raises(InputError, match=rf"in {build.__name__}, layer 'b': {message}"):
            build(jnp.tanh, b=layer)
    for build in (nn.Residual, nn.Remat, lambda value: nn.Repeat(value, 2), lambda value: nn.Ensemble(value, 2)):
        with pytest.raises(InputError, match=message):
            build(layer)

    class Odd(nn.Layer):
        def forward(self, net, x):
            return net.child("a", layer)(x)

    with pytest.raises(InputError, match=message):
        Odd().init(KEY, X)


def test_a_layer_without_forward_says_so():
    with pytest.raises(NotImplementedError, match=r"Nothing has no forward\(self, net, \.\.\.\)"):
        type("Nothing", (Layer,), {})().init(KEY, X)

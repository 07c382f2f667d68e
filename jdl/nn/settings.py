"""The static half of a layer: a frozen, hashable dataclass without arrays, and what its author writes."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Self, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError

if TYPE_CHECKING:
    from jdl.nn.net import Net

Array = jax.Array
Tree = dict[str, Any]

RESERVED = frozenset(
    ["init", "apply", "spec", "forward", "params", "state", "update", "key", "train", "child", "traverse"]
)


class Variables(NamedTuple):
    """All arrays of a model: what is trained, and what is not. Two nested dicts with the same paths."""

    params: Tree
    state: Tree


@dataclasses.dataclass(frozen=True)
class Param:
    """One declared array: its shape, ``init(key, shape, dtype)``, and dtype."""

    shape: tuple[int, ...]
    init: Callable[[Array, tuple[int, ...], Any], Array]
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if not isinstance(self.shape, (tuple, list)):
            raise InputError(f"Param got shape {self.shape!r}, wanted a tuple such as (3,)")
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
        if not callable(self.init):
            raise InputError(
                f"Param got init {self.init!r}, wanted a callable init(key, shape, dtype), e.g. nn.init.zeros()"
            )


@dataclass_transform(frozen_default=True)
class Settings:
    """The static half of a layer, and all that its author writes: subclassing makes the frozen dataclass.

    Override ``forward(net, *inputs, **options)``, and ``params`` / ``state`` to declare arrays; both are called with
    the inputs of ``forward`` and return ``{name: Param}``. Equal settings are equal, hashable values.
    """

    _casts = False  # whether the layer itself casts its parameters, as norms do, which compute in float32

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields = inspect.get_annotations(cls)
        for name in fields:
            if name in RESERVED:
                raise InputError(f"field {name!r} of {cls.__name__} is a reserved name; rename it ({sorted(RESERVED)})")
        if (own := cls.__dict__.get("__post_init__")) is not None:

            def __post_init__(self: Settings, *arguments: Any) -> None:
                _settle(self)
                own(self, *arguments)

            cls.__post_init__ = __post_init__  # pyright: ignore[reportAttributeAccessIssue]
        inherits = not fields and cls.__init__ is not object.__init__  # no new field: the constructor stays as it is
        dataclasses.dataclass(frozen=True, repr=False, eq=False, init=not inherits)(cls)

    def __post_init__(self) -> None:
        _settle(self)

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and _typed(self.__dict__) == _typed(other.__dict__)

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value, default = getattr(self, field.name), field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            if default is dataclasses.MISSING and not field.kw_only:
                parts.append(_show(value))
            elif value != _tuples(default):
                parts.append(f"{field.name}={_show(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: _to_name(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: _from_name(value) for name, value in state.items()})

    # what a layer author writes

    def params(self, *inputs: Any) -> dict[str, Param]:
        """Declare trained arrays for these inputs."""
        return {}

    def state(self, *inputs: Any) -> dict[str, Param]:
        """Declare arrays that are kept but not trained, such as running statistics."""
        return {}

    def forward(self, net: Net, *inputs: Any, **options: Any) -> Any:
        """Compute the output; ``net`` holds this layer's arrays and sub-layers by name."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(self, net, ...)")

    def traverse(self, net: Net, *inputs: Any, **options: Any) -> Any:
        """Collect or run. Layer transformations (Repeat, Remat, Ensemble) override this."""
        net._declare(inputs, options)
        return self.forward(net, *inputs, **options)


def _settle(layer: Settings) -> None:
    """Turn lists into tuples and refuse fields that would not make a hashable, array-free value."""
    for field in dataclasses.fields(layer):  # pyright: ignore[reportArgumentType]
        value = _tuples(getattr(layer, field.name))
        where = f"{type(layer).__name__}.{field.name}"
        for leaf in jax.tree.leaves(value):
            if isinstance(leaf, (jax.Array, np.ndarray)):
                raise InputError(
                    f"{where} got the array {check.describe(leaf)}; declare it in params() or state(), "
                    "or pass it as an input"
                )
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"{where} got {check.describe(value)}, which is unhashable; use a tuple or a frozen dataclass"
            ) from None
        object.__setattr__(layer, field.name, value)


def _typed(value: Any) -> Any:
    """``value`` with its types, as a program for 1 is not one for True."""
    if isinstance(value, dict):
        return {name: _typed(item) for name, item in value.items()}
    return (type(value), *map(_typed, value)) if type(value) is tuple else (type(value), value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) and not hasattr(value, "_fields") else value


class _Global(NamedTuple):
    """Where a function stands: what is pickled for it, as most of jax's own functions do not pickle by themselves."""

    module: str
    name: str


def _to_name(value: Any) -> Any:
    """``value`` with its functions, also those in tuples, replaced by the names that lead back to them."""
    if type(value) is tuple:
        return tuple(map(_to_name, value))
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    place = _Global(getattr(value, "__module__", None) or "", name or "")
    try:
        return place if callable(value) and _from_name(place) is value else value
    except (ImportError, AttributeError, ValueError):
        return value


def _from_name(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(_from_name, value))
    if isinstance(value, _Global):
        return operator.attrgetter(value.name)(importlib.import_module(value.module))
    return value


def check_variables(variables: Any) -> None:
    """``variables`` are a pair of trees."""
    if not isinstance(variables, tuple) or len(variables) != 2:
        raise InputError(f"variables got {check.describe(variables)}, wanted Variables(params, state)")


def check_name(name: Any, what: str) -> None:
    """Refuse a name that the view takes for itself, or that is not one segment of a path."""
    if not isinstance(name, str) or not name or "/" in name or name.startswith("_"):
        raise InputError(f"{what} got the name {name!r}, wanted a plain one without '/' or a leading underscore")
    if name in RESERVED:
        raise InputError(f"{what} got the reserved name {name!r}; rename it (reserved are {sorted(RESERVED)})")


def _show(value: Any) -> str:
    if type(value) is tuple:
        return f"({', '.join(map(_show, value))}{',' * (len(value) == 1)})"
    return getattr(value, "__name__", None) or repr(value)


def as_layer(value: Any) -> Settings:
    """A layer as it is; a callable as a :class:`Function`."""
    if isinstance(value, Settings):
        return value
    if isinstance(value, type) and issubclass(value, Settings):
        raise InputError(f"got the class {value.__name__}, wanted a layer; write {value.__name__}(...)")
    if not callable(value):
        raise InputError(f"got {check.describe(value)}, wanted a layer or a function of arrays")
    return Function(value)


_UNTRACEABLE = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)


class Function(Settings):
    """A plain function of arrays as a layer. A lambda or partial is a new value each time."""

    function: Callable[..., Any]

    def __repr__(self) -> str:
        return _show(self.function)

    def forward(self, net: Net, *inputs: Any, **options: Any) -> Any:
        try:
            return self.function(*inputs, **options)
        except _UNTRACEABLE as error:
            raise InputError(
                f"{self!r} cannot be traced by jax ({type(error).__name__}): it calls NumPy or branches on values; "
                "write it with jax.numpy, jnp.where and jax.lax"
            ) from error

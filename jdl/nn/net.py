"""The view through which ``forward`` sees its arrays, sub-layers, mode and key, by name."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from jdl import check
from jdl.check import InputError
from jdl.nn.settings import Param, Settings, Tree, Variables, as_layer, check_name
from jdl.nn.signatures import declarations, refusal

Array = jax.Array
Path = tuple[str, ...]


class Recorder(Protocol):
    """Told of every use of a layer in a pass. It may change what goes in and what comes out."""

    def start(self, path: str, layer: Settings, inputs: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        """A number for this call, and the inputs that the layer gets."""
        ...

    def end(self, call: int, output: Any) -> Any:
        """The output that is handed on."""
        ...


@dataclasses.dataclass
class Scope:
    """What the layers of one traversal share. ``specs`` is there while collecting, ``recorder`` while looked at.
    Within ``nn.Precision`` parameters are read in the dtype ``compute``. Where it ``streams``, recurrent layers leave
    the carry that they start from in the state; where it ``stores``, Remat hides nothing from the recorder.

    State is updated and keys are drawn in one jax trace each; None stands for nowhere.
    """

    train: bool
    key: Array | None
    specs: Variables | None = None
    recorder: Recorder | None = None
    compute: Any = None
    streams: bool = False
    stores: bool = False
    updates: dict[Path, Tree] = dataclasses.field(default_factory=dict)
    draws: Counter[Path] = dataclasses.field(default_factory=Counter)
    state_trace: Any = dataclasses.field(default_factory=get_opaque_trace_state)
    key_trace: Any = dataclasses.field(default_factory=get_opaque_trace_state)

    def with_key(self, key: Array) -> Scope:
        """The same traversal with another key, drawn from in the current jax transform."""
        return dataclasses.replace(self, key=key, draws=Counter(), key_trace=get_opaque_trace_state())


INSIDE = (
    "inside a jax transform of your own (scan, cond, vmap, checkpoint, grad, jit) within forward; "
    "wrap the layer in nn.Repeat, nn.Remat or nn.Ensemble"
)


class Net:
    """A layer's view of its own arrays and sub-layers while it is collected or run.

    ``net.kernel`` is a parameter or state, ``net.norm`` a sub-layer held in a field, ``net.child(name, layer)`` any
    other sub-layer. A child is itself a net: call it, read its arrays once it has run, or call its layer's other
    methods.
    """

    __slots__ = (
        "__weakref__",  # jax.checkpoint(net.block) and jax.jit hold their function weakly
        "_children",
        "_declared",
        "_kept",
        "_label",
        "_layer",
        "_params",
        "_path",
        "_scope",
        "_state",
    )

    def __init__(self, layer: Settings, path: Path, scope: Scope, params: Tree, state: Tree, label: str = ""):
        self._layer, self._path, self._scope, self._params, self._state = layer, path, scope, params, state
        self._label = label  # what the profiler calls it; empty where it stands in another layer's place
        self._children: dict[str, Net] = {}
        self._declared: dict[str, Param] = {}  # parameters and state, once the layer has run
        self._kept: dict[str, Param] = {}  # of these, the state

    # what a layer author calls

    @property
    def train(self) -> bool:
        """Whether this is a training pass."""
        return self._scope.train

    def child(self, name: str, layer: Any) -> Net:
        """The sub-layer ``name``. Using one name twice shares its parameters."""
        check_name(name, "a sub-layer")
        if name in self._declared:
            raise InputError(f"{name!r} is both a parameter and a sub-layer; rename one")
        return self._child((name,), layer)

    def key(self) -> Array:
        """Draw a key, folded from the run's key, this path, and how often the path has drawn before."""
        scope = self._scope
        if get_opaque_trace_state() != scope.key_trace:
            raise self._error(f"draws a key {INSIDE}, or call it with its own key: net.name(x, key=k)")
        if scope.specs is None and scope.key is None:
            raise self._error("draws random numbers and got key=None; pass key=jax.random.key(0) to apply")
        scope.draws[self._path] += 1
        key = jax.random.key(0) if scope.key is None else scope.key
        return _fold(key, f"{'/'.join(self._path)}:{scope.draws[self._path]}")

    def update(self, **values: Array) -> None:
        """Set declared state; the new values are what ``apply`` returns."""
        if get_opaque_trace_state() != self._scope.state_trace:
            raise self._error(f"updates its state {INSIDE}")
        for name, value in values.items():
            if name not in self._kept:
                raise self._error(
                    f"updates {name!r}, which state() does not declare (it declares {sorted(self._kept)})"
                )
            spec = self._kept[name]
            if not check.is_array(value) or value.shape != spec.shape or value.dtype != spec.dtype:
                raise self._error(f"updates {name!r} with {check.describe(value)}, wanted {check.describe(spec)}")
        self._scope.updates.setdefault(self._path, {}).update(values)

    def __call__(self, *inputs: Any, key: Array | None = None, **options: Any) -> Any:
        """Run the layer; ``key`` replaces the run's key for this call and everything below it."""
        net = self if key is None else self._fresh(self._scope.with_key(key))
        recorder, call = self._scope.recorder, -1
        if recorder is not None:
            call, inputs = recorder.start("/".join(self._path), self._layer, inputs)
        try:
            if self._label:
                with jax.named_scope(self._label):
                    output = self._layer.traverse(net, *inputs, **options)
            else:
                output = self._layer.traverse(net, *inputs, **options)
        except Exception as error:
            if isinstance(error, TypeError) and (refused := refusal(self._layer, inputs, options)) is not None:
                self._locate(refused)
                raise refused from error
            self._locate(error)
            raise
        if recorder is not None:
            output = recorder.end(call, output)
        self._declared, self._kept = net._declared, net._kept
        return output

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._declared:
            return self._read(name)
        if name in self._children:
            return self._children[name]
        value = self._layer.__dict__.get(name)
        if isinstance(value, Settings) or (callable(value) and name in self._layer.__dict__):
            return self.child(name, value)
        if isinstance(value, tuple) and all(isinstance(item, Settings) or callable(item) for item in value):
            return tuple(self._child((name, str(index)), item) for index, item in enumerate(value))
        method = getattr(type(self._layer), name, None)
        if callable(method) and not name.startswith("_"):
            return functools.partial(method, self._layer, self)
        raise AttributeError(str(self._unknown(name)))

    # what core and the layer transformations use

    @property
    def _collecting(self) -> bool:
        return self._scope.specs is not None

    def _child(self, names: Path, layer: Any) -> Net:
        name = "/".join(names)
        layer = as_layer(layer)
        known = self._children.get(name)
        if known is None:
            params, state = self._params, self._state
            for part in names:
                params, state = _subtree(params, part), _subtree(state, part)
            known = self._children[name] = Net(layer, self._path + names, self._scope, params, state, name)
        elif known._layer != layer:
            raise self._error(f"uses the name {name!r} for two layers, {known._layer!r} and {layer!r}; rename one")
        return known

    def _fresh(self, scope: Scope) -> Net:
        return Net(self._layer, self._path, scope, self._params, self._state)

    # a layer that stands in this one's place, at the same path

    def _inner(self, layer: Settings, **changes: Any) -> Net:
        scope = dataclasses.replace(self._scope, **changes) if changes else self._scope
        return Net(layer, self._path, scope, self._params, self._state)

    def _collect_inner(self, layer: Settings, inputs: Any, options: Any) -> tuple[Variables, Any]:
        """The specifications of ``layer``, from the root and apart from those of this pass, and its output."""
        specs = Variables({}, {})
        apart = dataclasses.replace(self._scope, specs=specs)
        return specs, Net(layer, self._path, apart, {}, {})(*inputs, **options)

    def _adopt(self, specs: Variables) -> None:
        """Collect these specifications, which start at the root."""
        assert self._scope.specs is not None
        for source, tree in zip(specs, self._scope.specs, strict=True):
            _enter(source, tree)

    def _function(self, layer: Settings, options: Any) -> Callable[..., tuple[Any, dict[Path, Tree]]]:
        """``(params, state, key, *inputs) -> (output, updates)``, to be put inside a jax transform.

        It may draw and update where this net may: that is seen here, before the transform starts.
        """
        scope, here = self._scope, get_opaque_trace_state()
        may_draw, may_update, draws = here == scope.key_trace, here == scope.state_trace, scope.draws.copy()

        def run(params: Tree, state: Tree, key: Array | None, *inputs: Any) -> tuple[Any, dict[Path, Tree]]:
            inside = Scope(scope.train, key, None, scope.recorder, scope.compute, scope.streams, draws=draws.copy())
            if not may_draw:
                inside.key_trace = None
            if not may_update:
                inside.state_trace = None
            output = Net(layer, self._path, inside, params, state)(*inputs, **options)
            scope.draws |= inside.draws  # the larger counts, as jax may trace this more than once
            return output, inside.updates

        return run

    def _variables(self) -> Variables:
        """The arrays at and below this path, with what this pass has updated."""
        depth = len(self._path)
        updates = {path[depth:]: new for path, new in self._scope.updates.items() if path[:depth] == self._path}
        return Variables(self._params, merge(self._state, updates))

    def _record(self, updates: dict[Path, Tree]) -> None:
        """Take over what a :meth:`_function` has updated."""
        for path, values in updates.items():
            self._scope.updates.setdefault(path, {}).update(values)

    def _declare(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Collect this layer's declarations, or hold the arrays at hand against them."""
        params = declarations(self._layer.params, inputs, options)
        state = declarations(self._layer.state, inputs, options)
        for name in [*params, *state]:
            check_name(name, "a parameter")
        if wrong := [name for name, spec in (params | state).items() if not isinstance(spec, Param)]:
            raise InputError(
                f"declares {wrong[0]!r} as {check.describe((params | state)[wrong[0]])}, wanted nn.Param(shape, init)"
            )
        if both := params.keys() & state.keys():
            raise InputError(f"declares {sorted(both)} both as parameters and as state; rename one")
        self._declared, self._kept = params | state, state
        if (specs := self._scope.specs) is not None:
            for declared, tree in zip((params, state), specs, strict=True):
                if declared:
                    _enter(functools.reduce(lambda below, part: {part: below}, reversed(self._path), declared), tree)
            return
        for name, spec in self._declared.items():
            value = self._find(name)
            if value.shape != spec.shape:
                raise InputError(self._mismatch(name, value, spec, inputs))

    def _find(self, name: str) -> Array:
        trained = None if name in self._kept else self._params.get(name)
        value = self._state.get(name) if trained is None else trained  # a frozen parameter stands in state
        if value is None and name in self._kept and name in self._params:
            raise InputError(f"{name!r} is state and stands in params; let unfreeze name parameters only")
        if value is None:
            raise InputError(
                f"has no array {name!r} (here stand {sorted(self._params)} in params, {sorted(self._state)} in state); "
                "did init reach this sub-layer, or do the variables belong to another model? "
                "A sub-layer called by itself takes nn.part(model, variables, path)"
            )
        if isinstance(value, dict):
            raise InputError(
                f"wanted the array {name!r} and found sub-layers {sorted(value)}; another model's variables?"
            )
        return jnp.asarray(value) if isinstance(value, np.ndarray) else value

    def _read(self, name: str) -> Array:
        spec, compute = self._declared[name], self._scope.compute
        if self._collecting:
            value = jnp.zeros(spec.shape, spec.dtype)
        else:
            updated = self._scope.updates.get(self._path, {})
            value = updated[name] if name in updated else self._find(name)
        kept = (
            compute is None or name in self._kept or self._layer._casts or not jnp.issubdtype(value.dtype, jnp.floating)
        )
        return value if kept else value.astype(compute)

    def _error(self, message: str) -> InputError:
        return InputError(message, _where(self._path, self._layer))

    def _locate(self, error: Exception) -> None:
        """Say once, at the innermost layer, where an error happened."""
        if isinstance(error, InputError):
            error.where = error.where or _where(self._path, self._layer)
        elif not getattr(error, "_jdl_located", False):
            error.add_note(f"in {_where(self._path, self._layer)}")
            error._jdl_located = True  # pyright: ignore[reportAttributeAccessIssue]

    def _mismatch(self, name: str, value: Array, spec: Param, inputs: tuple[Any, ...]) -> str:
        x = inputs[0] if inputs else None
        message = (
            f"got {check.describe(x)}, for which {name} is {check.describe(spec)}, but it is {check.describe(value)}"
        )
        shape = getattr(x, "shape", ())
        if len(shape) == 4 and shape[1] in (1, 3) and shape[-1] > 4:
            return f"{message}; channels come last: x.transpose(0, 2, 3, 1)"
        if len(shape) > 2 and math.prod(shape[1:]) in value.shape:
            return f"{message}; did you mean nn.Flatten() before it?"
        return f"{message}; do the variables belong to another model or another input width?"

    def _unknown(self, name: str) -> InputError:
        if name in self._layer.__dict__:
            return self._error(f"{name!r} is a setting; read self.{name}")
        names = sorted([*self._declared, *self._children])
        return self._error(f"has no {name!r}; it holds {names}. Arrays can be read once the layer has run")


def _where(path: Path, layer: Settings) -> str:
    text = repr(layer)
    text = text if len(text) <= 60 else type(layer).__name__
    return f"{'/'.join(path)}: {text}" if path else text


def _enter(specs: Tree, tree: Tree) -> None:
    """Add specifications to those collected so far; what is declared again must have the same shape and dtype."""
    for name, spec in specs.items():
        known = tree.setdefault(name, {} if isinstance(spec, dict) else spec)
        if isinstance(known, dict) is not isinstance(spec, dict):
            raise InputError(f"{name!r} is both a parameter and a sub-layer; rename one")
        if isinstance(spec, dict):
            _enter(spec, known)
        elif (known.shape, known.dtype) != (spec.shape, spec.dtype):
            raise InputError(
                f"is shared, and {name!r} was declared {check.describe(known)}, now {check.describe(spec)}; "
                "give them different names or equal widths"
            )


def merge(state: Tree, updates: dict[Path, Tree]) -> Tree:
    """``state`` with new values by path."""
    for path, values in updates.items():
        state = _replace(state, path, values)
    return state


def _replace(tree: Tree, path: Path, values: Tree) -> Tree:
    if not path:
        return tree | values
    return tree | {path[0]: _replace(tree.get(path[0], {}), path[1:], values)}


def _subtree(tree: Tree, name: str) -> Tree:
    value = tree.get(name, {})
    return value if isinstance(value, dict) else {}


def path_hash(text: str) -> np.uint32:
    """32 bits of a path, the same in every process."""
    return np.uint32(zlib.crc32(text.encode()))


def _fold(key: Array, text: str) -> Array:
    return jax.random.fold_in(key, path_hash(text))

"""Recurrent layers: cells that take one step, and layers that take them along a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.dropout import Dropout
from jdl.nn.net import Net
from jdl.nn.settings import Param
from jdl.nn.streaming import keep, kept, streams

Array = jax.Array
Carry = Any


class Cell(Layer):
    """Base of the recurrent cells: one step of a recurrence, ``(carry, x [B, ...]) -> (carry, y [B, ...])``.

    A cell of your own defines :meth:`initial_carry` and ``forward(net, carry, x)``, which returns a carry of the same
    shapes; ``nn.Recurrent(cell)`` takes it along a sequence.
    """

    def initial_carry(self, x: Any) -> Carry:
        """The carry before the first step, for inputs like ``x [B, ...]``: any tree of arrays ``[B, ...]``."""
        raise NotImplementedError(f"{type(self).__name__} has no initial_carry(self, x)")

    def forward(self, net: Net, carry: Carry, x: Any) -> tuple[Carry, Any]:
        """The next carry, and the output of this step."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(self, net, carry, x)")

    def traverse(self, net: Net, *inputs: Any, **options: Any) -> Any:
        if len(inputs) == 1 and not options:
            raise check.InputError(
                f"a cell got {check.describe(inputs[0])} alone, wanted (carry, x [B, D]), one step; "
                f"a sequence [B, T, D] is for nn.Recurrent({self!r})"
            )
        return super().traverse(net, *inputs, **options)


class _Hidden(Cell):
    """A cell whose input enters by one matrix product, which a sequence takes for all of its steps at once."""

    features: int
    _: dataclasses.KW_ONLY
    bias: bool = True
    kernel_init: init.Initializer = init.glorot_uniform()
    recurrent_init: init.Initializer = init.orthogonal()

    _gates = 1

    def __post_init__(self) -> None:
        inputs.counts(self, "features")

    def params(self, carry: Carry, x: Any) -> dict[str, Param]:
        width = self._gates * self.features
        kernels = {
            "kernel": Param((inputs.channels(x), width), self.kernel_init),
            "recurrent_kernel": Param((self.features, width), self.recurrent_init),
        }
        return kernels | (self._biases(width) if self.bias else {})

    def _biases(self, width: int) -> dict[str, Param]:
        return {"bias": Param((width,), init.zeros())}

    def initial_carry(self, x: Array) -> Carry:
        return jnp.zeros((x.shape[0], self.features), x.dtype)

    def forward(self, net: Net, carry: Carry, x: Array) -> tuple[Carry, Array]:
        check.rank(x, 2, "[B, D], one step; take a cell along [B, T, D] by nn.Recurrent(cell)")
        check_carry(carry, self.initial_carry(x))
        return self._step(net)(carry, self._share(net, x))

    def _share(self, net: Net, x: Array) -> Array:
        """The input's part of every gate: ``[..., D]`` to ``[..., gates · H]``."""
        return F.dense(x, net.kernel, net.bias if self.bias else None)

    def _step(self, net: Net) -> Callable[[Carry, Array], tuple[Carry, Array]]:
        raise NotImplementedError


class RNNCell(_Hidden):
    """The vanilla recurrent cell h' = φ(x W + b + h R), whose output is h' (Elman 1990).

    ``x [B, D]``, carry ``h [B, features]``. Parameters: ``kernel [D, H]`` (Glorot uniform), ``recurrent_kernel [H, H]``
    (orthogonal), ``bias [H]`` (zero; absent with ``bias=False``). Raises InputError for a carry of other shapes.
    """

    _: dataclasses.KW_ONLY
    activation: Callable[[Array], Array] = jnp.tanh

    def _step(self, net: Net) -> Callable[[Array, Array], tuple[Array, Array]]:
        kernel, activation = net.recurrent_kernel, self.activation

        def step(h: Array, z: Array) -> tuple[Array, Array]:
            h = F.rnn_step(h, z, kernel, activation)
            return h, h

        return step


class LSTMCell(_Hidden):
    """The LSTM cell with a forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000). Its output is h'.

    ``x [B, D]``, carry ``(h, c)``, each ``[B, features]``. Parameters: ``kernel [D, 4H]`` (Glorot uniform) and
    ``recurrent_kernel [H, 4H]`` (orthogonal), gates in the order input, forget, cell, output; ``bias [4H]``, zero but
    for ``forget_bias`` at the forget gate (1: Jozefowicz et al. 2015). PyTorch holds this bias in two parts, whose sum
    it is. Raises InputError for a carry of other shapes.
    """

    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0

    _gates = 4

    def _biases(self, width: int) -> dict[str, Param]:
        return {"bias": Param((width,), _AtForgetGate(self.forget_bias))}

    def initial_carry(self, x: Array) -> tuple[Array, Array]:
        zeros = super().initial_carry(x)
        return zeros, zeros

    def _step(self, net: Net) -> Callable[[Carry, Array], tuple[Carry, Array]]:
        kernel = net.recurrent_kernel

        def step(carry: Carry, z: Array) -> tuple[Carry, Array]:
            h, c = F.lstm_step(carry, z, kernel)
            return (h, c), h

        return step


class GRUCell(_Hidden):
    """The gated recurrent unit, reset after the matrix product (Cho et al. 2014, as cuDNN computes it). Output: h'.

    ``x [B, D]``, carry ``h [B, features]``. Parameters: ``kernel [D, 3H]`` (Glorot uniform) and ``recurrent_kernel
    [H, 3H]`` (orthogonal), gates in the order reset, update, new; ``bias [3H]`` and, inside the reset gate's product,
    ``recurrent_bias [H]`` (zero; absent with ``bias=False``). PyTorch holds the first two thirds of its biases twice,
    whose sums ours are. Raises InputError for a carry of other shapes.
    """

    _gates = 3

    def _biases(self, width: int) -> dict[str, Param]:
        return {"bias": Param((width,), init.zeros()), "recurrent_bias": Param((self.features,), init.zeros())}

    def _step(self, net: Net) -> Callable[[Array, Array], tuple[Array, Array]]:
        kernel, bias = net.recurrent_kernel, net.recurrent_bias if self.bias else None

        def step(h: Array, z: Array) -> tuple[Array, Array]:
            h = F.gru_step(h, z, kernel, bias)
            return h, h

        return step


class Recurrent(Layer):
    """A cell along the time axis: ``x [B, T, D]`` to every step's output ``[B, T, H]``. It stands in the cell's place.

    Called with ``lengths [B]``, an example ends after its own last step: outputs at the padding are 0, and the carry
    stays. ``carry`` is where it starts, by default ``cell.initial_carry``; with ``return_carry=True`` the result is
    ``(outputs, carry)``. With ``reverse=True`` it goes from each example's last step to its first, and outputs keep the
    order of the inputs.

    Where :func:`with_carry` has put a carry into the state, it starts from there and leaves the last one there.

    Raises InputError for inputs of another rank, lengths outside of 1 to T, and a carry of other shapes or dtypes.
    """

    cell: Cell
    _: dataclasses.KW_ONLY
    reverse: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Cell):
            raise check.InputError(
                f"Recurrent.cell got {check.describe(self.cell)}, wanted a cell such as nn.GRUCell(128)"
            )

    def traverse(
        self,
        net: Net,
        x: Any,
        lengths: Array | None = None,
        carry: Carry | None = None,
        return_carry: bool = False,
    ) -> Any:
        _check_sequence(x, lengths)
        start = self.cell.initial_carry(jax.tree.map(lambda leaf: leaf[:, 0], x))
        _check_start(self.cell, start, jax.tree.leaves(x)[0].shape[0])
        streamed = self._streamed(net, start)
        carry = start if carry is None and streamed is None else streamed if carry is None else carry
        check_carry(carry, start)
        if lengths is not None:
            x = jax.tree.map(lambda leaf: F.without_padding(leaf, lengths), x)
        step, xs = self._over(net._inner(self.cell), carry, x)
        last, ys = F.over_time(step, carry, xs, lengths, self.reverse)
        if streams(net) or streamed is not None:
            left = jax.tree.leaves(start if streams(net) else last)
            keep(net, CARRY, {str(index): leaf for index, leaf in enumerate(left)})
        return (ys, last) if return_carry else ys

    def _over(self, net: Net, carry: Carry, x: Any) -> tuple[Callable[[Carry, Any], tuple[Carry, Any]], Any]:
        """The step to repeat and what it goes over: the inputs, or their shares of the gates."""
        cell = self.cell
        if not isinstance(cell, _Hidden):
            return _Checked(net, cell), x
        check.rank(x, 3, "[B, T, D]")
        net._declare((carry, x), {})
        return cell._step(net), cell._share(net, x)

    def _streamed(self, net: Net, start: Carry) -> Carry | None:
        """The carry that the state holds, if it holds one."""
        carry = kept(net, CARRY)
        if self.reverse and (carry or streams(net)):
            raise check.InputError("goes backwards, which needs the end of a sequence first; stream a forward layer")
        return (
            jax.tree.unflatten(jax.tree.structure(start), [carry[str(i)] for i in range(len(carry))]) if carry else None
        )


class BidirectionalCarry(NamedTuple):
    """The carry of a :class:`Bidirectional`: of the cell that starts at the beginning, and of the other."""

    forwards: Carry
    backwards: Carry


class Bidirectional(Layer):
    """Two cells along a sequence, one from each end: ``x [B, T, D]`` to ``[B, T, H + H']`` (Schuster & Paliwal 1997).

    ``backwards`` is the cell that starts at the end, by default one like the first. Called as :class:`Recurrent` is;
    the carry is a :class:`BidirectionalCarry`. Parameters: those of the cells, under ``forwards`` and ``backwards``.
    """

    forwards: Cell
    backwards: Cell | None = None

    def forward(
        self,
        net: Net,
        x: Array,
        lengths: Array | None = None,
        carry: tuple[Carry, Carry] | None = None,
        return_carry: bool = False,
    ) -> Any:
        first, second = _parts(carry, 2, "Bidirectional")
        ahead = net.child("forwards", Recurrent(self.forwards))
        behind = net.child("backwards", Recurrent(self.backwards or self.forwards, reverse=True))
        y, a = ahead(x, lengths, first, return_carry=True)
        z, b = behind(x, lengths, second, return_carry=True)
        both = jnp.concatenate([y, z], axis=-1)
        return (both, BidirectionalCarry(a, b)) if return_carry else both


class StackedRecurrent(Layer):
    """Recurrent layers on top of each other, ``dropout`` (a rate) on what one hands to the next.

    ``layers`` are cells, Recurrent or Bidirectional layers: ``StackedRecurrent(nn.LSTMCell(64), nn.LSTMCell(64),
    dropout=0.2)``, named "0", "1", …. They may also come as ``layers=``, as from ``dataclasses.replace``. Called as
    :class:`Recurrent` is; the carry is a tuple of one for each layer.
    """

    layers: tuple[Layer, ...]
    dropout: float

    def __init__(self, *positional: Any, layers: Sequence[Any] = (), dropout: float = 0.0):
        layers = (*positional, *layers)
        for index, layer in enumerate(layers):
            if not isinstance(layer, (Cell, Recurrent, Bidirectional)):
                got = check.describe(layer)
                raise check.InputError(f"StackedRecurrent got {got} as layer {index}, wanted a cell or nn.Recurrent")
        if not layers:
            raise check.InputError("StackedRecurrent got no layers, wanted cells or recurrent layers")
        made = tuple(Recurrent(layer) if isinstance(layer, Cell) else layer for layer in layers)
        object.__setattr__(self, "layers", made)
        object.__setattr__(self, "dropout", Dropout(dropout).rate)
        self.__post_init__()

    def __repr__(self) -> str:
        parts = [*map(repr, self.layers), *[f"dropout={self.dropout}"] * bool(self.dropout)]
        return f"StackedRecurrent({', '.join(parts)})"

    def forward(
        self,
        net: Net,
        x: Array,
        lengths: Array | None = None,
        carry: tuple[Carry, ...] | None = None,
        return_carry: bool = False,
    ) -> Any:
        last = []
        starts = _parts(carry, len(self.layers), "StackedRecurrent")
        for index, (layer, start) in enumerate(zip(self.layers, starts, strict=True)):
            if index and self.dropout:
                x = net.child("dropout", Dropout(self.dropout))(x)
            x, end = net.child(str(index), layer)(x, lengths, start, return_carry=True)
            last.append(end)
        return (x, tuple(last)) if return_carry else x


CARRY = "carry"


@dataclasses.dataclass(frozen=True, eq=False)
class _Checked:
    """The step of a user's cell, which is held to what it promises."""

    net: Net
    cell: Cell

    def __call__(self, carry: Carry, x: Any) -> tuple[Carry, Any]:
        made = self.net(carry, x)
        if not isinstance(made, tuple) or len(made) != 2:
            raise check.InputError(f"{self.cell} returned {check.describe(made)}, wanted a pair (carry, output)")
        check_carry(made[0], carry, f"the carry that {self.cell} returned", "a step keeps shapes and dtypes")
        return made


@dataclasses.dataclass(frozen=True)
class _AtForgetGate:
    """Zero, and ``value`` in the second of four parts."""

    value: float

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        quarter = shape[0] // 4
        return jnp.zeros(shape, dtype).at[quarter : 2 * quarter].set(self.value)


def check_carry(carry: Carry, like: Carry, name: str = "carry", fix: str = "see cell.initial_carry") -> None:
    """``carry`` has the structure, shapes and dtypes of ``like``."""
    got, wanted = check.describe(carry), check.describe(like)
    if jax.tree.structure(carry) == jax.tree.structure(like):
        pairs = list(zip(jax.tree.leaves(carry), jax.tree.leaves(like), strict=True))
        if all(check.is_array(a) and (a.shape, a.dtype) == (b.shape, b.dtype) for a, b in pairs):
            return
        if any(check.is_array(a) and a.shape[:1] != b.shape[:1] for a, b in pairs):
            fix = "it is of another batch size; a new sequence begins with carry=None or cell.initial_carry"
    elif got == wanted:
        got, wanted = f"{type(carry).__name__} {got}", f"{type(like).__name__} {wanted}"
    raise check.InputError(f"{name} got {got}, wanted {wanted}; {fix}")


def _check_start(cell: Cell, start: Carry, batch: int) -> None:
    for leaf in jax.tree.leaves(start):
        if not check.is_array(leaf) or leaf.shape[:1] != (batch,):
            raise check.InputError(
                f"{cell}.initial_carry made {check.describe(leaf)}, wanted arrays [{batch}, ...] for inputs of {batch}"
            )


def _check_sequence(x: Any, lengths: Any) -> None:
    """Every leaf is ``[B, T, ...]`` with at least one step, and lengths, if there are any, fit it."""
    leaves = jax.tree.leaves(x)
    if not leaves:
        raise check.InputError(f"input got {check.describe(x)}, wanted [B, T, D]")
    for leaf in leaves:
        check.array(leaf, "input")
        if leaf.ndim < 3:
            fix = "; ids need nn.Embedding first, and one number a step x[..., None]" if leaf.ndim == 2 else ""
            raise check.InputError(f"input got {check.describe(leaf)}, wanted [B, T, D]{fix}")
        if leaf.shape[1] == 0:
            raise check.InputError(f"input got {check.describe(leaf)}, a sequence of no steps; wanted at least one")
    if lengths is not None:
        F.check_lengths(lengths, leaves[0])


def _parts(carry: Any, count: int, owner: str) -> tuple[Any, ...]:
    """The carry of each part of a layer; None for each where there is none."""
    if carry is None:
        return (None,) * count
    if not isinstance(carry, tuple) or len(carry) != count:
        got = f"{len(carry)} parts" if isinstance(carry, tuple) else check.describe(carry)
        raise check.InputError(f"carry got {got}, wanted a tuple of {count}, one for each layer of {owner}")
    return carry

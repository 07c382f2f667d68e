"""Recurrences: the steps of the cells, and a step repeated over the time axis of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl import check

Array = jax.Array
Step = Callable[[Any, Any], tuple[Any, Any]]


def rnn_step(h: Array, z: Array, recurrent_kernel: Array, activation: Callable[[Array], Array] = jnp.tanh) -> Array:
    """h' = φ(z + h R): ``h [B, H]``, the input's share ``z [B, H]``, ``recurrent_kernel [H, H]`` (Elman 1990)."""
    return activation(z + _recurrent(h, recurrent_kernel, z))


def lstm_step(carry: tuple[Array, Array], z: Array, recurrent_kernel: Array) -> tuple[Array, Array]:
    """One step of an LSTM (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 2000).

    i, f, g, o = z + h R;  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) tanh(c'). ``carry`` is (h, c), each ``[B, H]``, the
    input's share ``z [B, 4H]``, ``recurrent_kernel [H, 4H]``; gates lie in this order, as PyTorch's and Keras's do.
    """
    h, c = carry
    i, f, g, o = jnp.split(z + _recurrent(h, recurrent_kernel, z), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c.astype(z.dtype) + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru_step(h: Array, z: Array, recurrent_kernel: Array, recurrent_bias: Array | None = None) -> Array:
    """One step of a GRU whose reset gate acts after the matrix product (Cho et al. 2014; the form of cuDNN, PyTorch).

    r, u = σ of the first two thirds of z + h R;  n = tanh(z_n + r (h R_n + b));  h' = (1 - u) n + u h. ``h [B, H]``,
    the input's share ``z [B, 3H]``, ``recurrent_kernel [H, 3H]``, ``recurrent_bias [H]``.
    """
    z_r, z_u, z_n = jnp.split(z, 3, axis=-1)
    h_r, h_u, h_n = jnp.split(_recurrent(h, recurrent_kernel, z), 3, axis=-1)
    if recurrent_bias is not None:
        h_n = h_n + recurrent_bias.astype(z.dtype)
    u = jax.nn.sigmoid(z_u + h_u)
    n = jnp.tanh(z_n + jax.nn.sigmoid(z_r + h_r) * h_n)
    return (1 - u) * n + u * h.astype(z.dtype)


def over_time(step: Step, carry: Any, xs: Any, lengths: Array | None = None, reverse: bool = False) -> tuple[Any, Any]:
    """``step(carry, x) -> (carry, y)`` along the second axis: leaves ``[B, T, …]`` to ``(carry, ys [B, T, …])``.

    With ``lengths [B]`` an example stops after its own last step: its carry stays, its outputs are 0. ``reverse`` goes
    from each example's last step to its first; ``ys`` keeps the order of ``xs``. A length outside of 1 to T, which an
    array under jit cannot be refused for, makes the example's outputs and carry NaN.
    """
    time = jax.tree.leaves(xs)[0].shape[1]
    carry = varying_with(carry, (xs, lengths))
    first = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), xs)
    if lengths is None:
        carry, ys = jax.lax.scan(step, carry, first, reverse=reverse)
        return carry, jax.tree.map(_batch_first, ys)

    def one(carry: Any, item: tuple[Any, Array]) -> tuple[Any, Any]:
        x, real = item
        new, y = step(carry, x)
        kept = jax.tree.map(lambda new, old: _where(real, new, old), new, carry)
        return kept, jax.tree.map(lambda y: _where(real, y, jnp.zeros_like(y)), y)

    carry, ys = jax.lax.scan(one, carry, (first, real_steps(lengths, time).T), reverse=reverse)
    made = carry, jax.tree.map(_batch_first, ys)
    return jax.tree.map(lambda x: nan_unless_possible(x, lengths, time), made)


def without_padding(x: Array, lengths: Array) -> Array:
    """``x [B, T, …]`` with 0 behind each example's length: whatever stood there has no part in a gradient."""
    return _where(real_steps(lengths, x.shape[1]), x, jnp.zeros_like(x))


def real_steps(lengths: Array, time: int) -> Array:
    """Which of ``time`` steps are an example's own and not padding: ``lengths [B]`` to ``bool[B, time]``."""
    return jnp.arange(time, dtype=jnp.int32) < _as_int32(lengths)[:, None]


def last_step(x: Array, lengths: Array | None = None) -> Array:
    """The last real step of each example: ``x [B, T, …]`` and ``lengths [B]``, by default all T, to ``[B, …]``.

    Raises InputError for lengths as :func:`check_lengths` does; under jit such a length gives NaN.
    """
    if not check.is_array(x) or x.ndim < 2 or x.shape[1] == 0:
        raise check.InputError(f"input got {check.describe(x)}, wanted [B, T, ...] with at least one step")
    if lengths is None:
        return x[:, -1]
    check_lengths(lengths, x)
    place = (_as_int32(lengths) - 1).reshape(-1, 1, *[1] * (x.ndim - 2))
    last = jnp.take_along_axis(x, place, axis=1, mode="clip")[:, 0]
    return nan_unless_possible(last, lengths, x.shape[1])


def check_lengths(lengths: Any, x: Any) -> None:
    """``lengths`` are integers ``[B]`` for ``x [B, T, …]``; where their values are known, each is 1 to T."""
    check.integer(lengths, "lengths", "they count steps: lengths.astype(jnp.int32)")
    check.rank(lengths, 1, "[B], one length for each sequence", "lengths")
    check.same_batch(lengths, x, ("lengths", "input"))
    if isinstance(lengths, Tracer):
        return
    values, time = np.asarray(lengths), x.shape[1]
    if wrong := [int(i) for i in np.flatnonzero((values < 1) | (values > time))]:
        fix = "leave empty sequences out" if values[wrong[0]] < 1 else "pad or cut the sequences to one length first"
        raise check.InputError(
            f"lengths got {int(values[wrong[0]])} for example {wrong[0]}, wanted 1 to the {time} steps of "
            f"{check.describe(x)}; {fix}"
        )


def _recurrent(h: Array, kernel: Array, z: Array) -> Array:
    """``h @ kernel`` in the dtype of the input's share."""
    return jnp.matmul(h.astype(z.dtype), kernel.astype(z.dtype))


def _as_int32(lengths: Any) -> Array:
    """The number of steps of a long sequence does not fit an int8."""
    return jnp.asarray(lengths).astype(jnp.int32)


def nan_unless_possible(x: Array, lengths: Array, time: int) -> Array:
    """``x [B, …]``, where it is floating with NaN for each example whose length is not from 1 to ``time``."""
    lengths = _as_int32(lengths)
    possible = (lengths >= 1) & (lengths <= time)
    return _where(possible, x, jnp.full_like(x, jnp.nan)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _where(choose: Array, x: Any, other: Any) -> Array:
    """By the leading axes: ``choose [B]`` or ``[B, T]`` against ``[B, T, …]``."""
    return jnp.where(choose.reshape(*choose.shape, *[1] * (x.ndim - choose.ndim)), x, other)


def varying_with(carry: Any, others: Any) -> Any:
    """Under shard_map what a loop carries differs by device from the start, as it will after a step with ``others``."""
    axes = frozenset().union(*map(check.manual_axes, jax.tree.leaves((carry, others))))

    def vary(leaf: Array) -> Array:
        missing = tuple(sorted(axes - check.manual_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, carry)


def _batch_first(y: Array) -> Array:
    return jnp.moveaxis(y, 0, 1)

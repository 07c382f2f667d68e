"""Radial functions: a bump around each centre, and where to put centres and how wide to make the bumps."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn.functional.precision import wide
from jdl.nn.functional.recurrence import varying_with

Array = jax.Array


def squared_distances(x: Array, centres: Array) -> Array:
    """||x - c||² of every row of ``x [..., D]`` to each of ``centres [K, D]``: ``[..., K]``, in float32 at least.

    By one matrix product, ||x||² - 2 x · c + ||c||², of both shifted to the mean centre: the rounding error is then
    relative to how far points and centres spread, not to how far they lie from 0. Never negative, and its derivative
    is finite (0) where a point lies on a centre.

    Raises InputError when ``x`` is not floating or its last axis is not that of the centres.
    """
    check.floating(x)
    check.rank(centres, 2, "[K, D]", "centres")
    if x.ndim == 0:
        raise check.InputError(f"input got {check.describe(x)}, wanted [..., D]; a single number is x[None]")
    check.axis(x, -1, centres.shape[1], fix=f"the centres are {check.describe(centres)}")
    x = wide(x)
    centres = centres.astype(x.dtype)
    # distances do not depend on the shift, so nor do gradients
    shift = jax.lax.stop_gradient(jnp.mean(centres, axis=0))
    rows, centres = (x - shift).reshape(math.prod(x.shape[:-1]), x.shape[-1]), centres - shift
    products = jnp.matmul(rows, centres.T, precision=jax.lax.Precision.HIGHEST)  # a small difference of large numbers
    squares = jnp.sum(rows**2, axis=-1, keepdims=True) - 2 * products + jnp.sum(centres**2, axis=-1)
    return jnp.maximum(squares, 0).reshape(*x.shape[:-1], len(centres))


def radial_basis(x: Array, centres: Array, log_widths: Array) -> Array:
    """exp(-||x - c||² / 2σ²) for each of K centres: ``x [..., D]`` to ``[..., K]``, 1 at a centre and 0 far away.

    ``centres [K, D]``, ``log_widths [K]`` the logarithms of σ, so that any number is a width (Broomhead and Lowe
    1988). Computed in float32 at least, given in the dtype of ``x``. Raises as `squared_distances`.
    """
    squares = squared_distances(x, centres)
    check.rank(log_widths, 1, "[K]", "log_widths")
    check.axis(log_widths, 0, len(centres), "log_widths", f"the centres are {check.describe(centres)}")
    # within what float32 can hold, as 0 · ∞ at a centre would be NaN
    precisions = jnp.exp(-2 * jnp.clip(log_widths.astype(squares.dtype), -40, 40))
    return jnp.exp(-0.5 * squares * precisions).astype(x.dtype)


@functools.partial(jax.jit, static_argnames=("clusters", "steps"))
def kmeans(key: Array, x: Array, clusters: int, steps: int = 100) -> Array:
    """Centres ``[K, D]`` that the points ``x [N, D]`` are near to, ``K = clusters``.

    Lloyd's algorithm: each centre goes to the mean of the points nearest to it, until none changes its centre or
    ``steps`` are done. It starts from points far apart, drawn by their squared distance to those drawn before
    (k-means++, Arthur and Vassilvitskii 2007). A centre that is nearest to no point stays.

    Raises InputError for points that are not floating ``[N, D]``, and more clusters than points.
    """
    check.floating(x)
    check.rank(x, 2, "[N, D]", fix="flatten each example: x.reshape(len(x), -1)")
    if not 1 <= clusters <= len(x):
        raise check.InputError(f"clusters got {clusters}, wanted 1 to {len(x)}, as many as there are points")
    x = wide(x)

    def draw(state: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        newest, nearest = state
        nearest = jnp.minimum(nearest, jnp.sum((x - newest) ** 2, axis=-1))
        following = x[jax.random.categorical(key, jnp.log(nearest))]
        return (following, nearest), newest

    first_key, key = jax.random.split(key)
    start = x[jax.random.randint(first_key, (), 0, len(x))], jnp.full(len(x), jnp.inf, x.dtype)
    centres = jax.lax.scan(draw, varying_with(start, (x, key)), jax.random.split(key, clusters))[1]

    def nearest(centres: Array) -> Array:
        return jnp.argmin(squared_distances(x, centres), axis=-1)

    def move(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        centres, owners, step, _ = state
        members = jax.nn.one_hot(owners, clusters, dtype=x.dtype)
        count = jnp.sum(members, axis=0)[:, None]
        sums = jnp.matmul(members.T, x, precision=jax.lax.Precision.HIGHEST)
        centres = jnp.where(count > 0, sums / jnp.maximum(count, 1), centres)
        new = nearest(centres)
        return centres, new, step + 1, jnp.any(new != owners)

    state = varying_with((centres, nearest(centres), jnp.array(0), jnp.array(True)), (x, key))
    return jax.lax.while_loop(lambda state: state[3] & (state[2] < steps), move, state)[0]


@functools.partial(jax.jit, static_argnames="neighbours")
def neighbour_widths(centres: Array, neighbours: int = 2) -> Array:
    """A width for each of ``centres [K, D]``: the root mean square distance to its nearest ``neighbours``, ``[K]``.

    Bumps then overlap as much where centres lie dense as where they lie apart (Moody and Darken 1989). A centre that
    coincides with all its neighbours gets the mean width. Raises InputError for fewer than ``neighbours + 1`` centres.
    """
    check.rank(centres, 2, "[K, D]", "centres")
    if not 1 <= neighbours < len(centres):
        raise check.InputError(
            f"neighbours got {neighbours} for {len(centres)} centres, wanted at least 1 and fewer than the centres"
        )
    squares = squared_distances(centres, centres)
    others = jnp.where(jnp.eye(len(centres), dtype=bool), jnp.inf, squares)
    widths = jnp.sqrt(jnp.mean(jnp.sort(others, axis=-1)[:, :neighbours], axis=-1))
    widths = jnp.where(widths > 0, widths, jnp.mean(widths))
    return jnp.maximum(widths, jnp.finfo(widths.dtype).tiny)

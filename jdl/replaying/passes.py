"""The passes that a gradient makes over a batch, and where in one of them values stop being finite."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl.gradients import (
    _with_scaled_loss,  # pyright: ignore[reportPrivateUsage]
    accumulate,
    clip_per_example,
    gradient,
    loss_scaled,
    per_example_gradients,
    sharpness_aware,
)
from jdl.nn.containers import Remat, Repeat
from jdl.nn.settings import Tree
from jdl.objectives import Batch, Objective
from jdl.replaying.watching import Look, Use, bad, look, named

Array = jax.Array
HIDING = (Repeat, Remat)  # what is inside is seen where scans run turn by turn
NOTHING = -1
MOST = 16  # layers that are tried one by one


class Point(NamedTuple):
    """What a pass starts from."""

    params: Tree
    state: Tree
    batch: Batch
    key: Array


class Pass(NamedTuple):
    """One pass: its place among several (``"microbatch 2"``), what it started from, and what it showed.

    ``run`` makes it again.
    """

    place: str
    objective: Objective
    point: Point
    look: Look
    run: Callable[..., Look]

    def again(self, mended: list[int] | tuple[int, ...] = ()) -> Look:
        """The same pass, the outputs of these uses of layers made finite."""
        return _fetched(self.run(*self.point, _numbered(mended)))


class Place(NamedTuple):
    """Where a pass stops being finite: in the ``forward`` or ``backward`` of a layer, the ``loss``, or a ``gradient``.

    ``use`` is the layer, with ``copies`` where it stands in Repeats, or ``path`` says what else.
    """

    stage: str
    path: str
    use: Use | None = None
    copies: tuple[int, ...] = ()


def passes(field: Any, point: Point, place: str = "") -> Iterator[Pass]:
    """The passes of a gradient, each with the key it has in the step; none where the gradient is not one of jdl's.

    Of :class:`jdl.sharpness_aware` only the first.
    """
    program = _Programs()
    return _passes(field, point, place, program)


class _Programs(dict[int, Any]):
    """A compiled pass for each objective of one replay."""

    def __call__(self, objective: Objective) -> Any:
        known = self.get(id(objective))
        if known is None:
            known = self[id(objective)] = objective, jax.jit(functools.partial(look, objective))
        return known[1]


def _passes(field: Any, point: Point, place: str, program: _Programs) -> Iterator[Pass]:
    if isinstance(field, gradient):
        field = field.objective
    if isinstance(field, Objective):
        run = program(field)
        yield Pass(place, field, point, _fetched(run(*point, _numbered(()))), run)
    elif isinstance(field, accumulate):
        parts = jax.tree.map(field._divide, point.batch)
        yield from _in_turn(field.gradient, point, parts, field.microbatches, f"{place} microbatch".strip(), program)
    elif isinstance(field, (clip_per_example, per_example_gradients)):
        parts = jax.tree.map(lambda x: x[:, None], point.batch)
        count = jax.tree.leaves(point.batch)[0].shape[0]
        yield from _in_turn(field.gradient, point, parts, count, f"{place} example".strip(), program)
    elif isinstance(field, loss_scaled):
        scaled = _with_scaled_loss(field.gradient)
        yield from _passes(scaled, point, place, program)
    elif isinstance(field, sharpness_aware):
        yield from _passes(field.gradient, point, place, program)


def _in_turn(field: Any, point: Point, parts: Batch, count: int, place: str, program: _Programs) -> Iterator[Pass]:
    """A pass for each part of the batch, the state handed on, up to the first that is not finite."""
    state = point.state
    for index in range(count):
        part = jax.tree.map(lambda x, i=index: x[i], parts)
        own = Point(point.params, state, part, jax.random.fold_in(point.key, index))
        for one in _passes(field, own, f"{place} {index}", program):
            yield one
            state = one.look.aux.state
            if bad((one.look.loss, one.look.grads)):
                return


def _fetched(shown: Look) -> Look:
    """The numbers on this side, the arrays where they are."""
    return dataclasses.replace(jax.device_get(dataclasses.replace(shown, aux=None)), aux=shown.aux)


def _numbered(uses: list[int] | tuple[int, ...]) -> Array:
    """Numbers of uses as an array of one length, so that one program serves all."""
    return jnp.asarray([*uses, *[NOTHING] * (MOST - len(uses))])


def locate(one: Pass) -> tuple[Pass, Place | None]:
    """Where a pass stops being finite, and the pass that shows it; None where its loss and its gradient are finite."""
    place = _located(one)
    if place is not None and place.use is not None and isinstance(place.use.layer, HIDING):
        with jax.disable_jit():  # scans run turn by turn
            eager = one._replace(run=functools.partial(look, one.objective))
            eager = eager._replace(look=eager.again())
            if (inside := _located(eager)) is not None:
                return eager, inside
    return one, place


def _located(one: Pass) -> Place | None:
    if bad(one.look.loss):
        return _in_forward(one)
    return _in_backward(one.look) if bad(one.look.grads) else None


def _in_forward(one: Pass) -> Place:
    """The first layer whose inputs are finite and whose output is not, and without which the loss would be finite."""
    uses = one.look.uses
    roots = [use for use in uses if use.depth == 0]
    if any(bad(use.inputs) for use in roots):
        return Place("forward", "the model's inputs")
    if not any(bad(use.output) for use in roots):
        return Place("loss", next((name for name, term in _terms(one.look) if bad(term)), "the total"))
    index = _guilty(one)
    return Place("forward", uses[index].path, uses[index], copies(uses, index))


def _guilty(one: Pass) -> int:
    """The first use of a layer with finite inputs and an output that is not, and that spoils the loss.

    Not every one does: a layer may give -inf on purpose, as a mask does. So where there are several, the loss has to
    stay non-finite when the others are mended.
    """
    uses = one.look.uses
    suspects = {index for index, use in enumerate(uses) if bad(use.output) and not bad(use.inputs)}
    inner = [index for index in as_they_end(uses) if index in suspects and not suspects & set(_below(uses, index))]
    for index in inner[:MOST] if len(inner) > 1 else ():
        if bad(one.again([other for other in inner[:MOST] if other != index]).loss):
            return index
    return inner[0]


def _in_backward(shown: Look) -> Place:
    """The last layer at whose output the gradient is finite, and not at its inputs or parameters."""
    uses = shown.uses
    if any(bad(use.back_output) for use in uses if use.depth == 0):
        return Place("backward", "the loss")
    wrong = [path for path, numbers in named(shown.grads).items() if numbers.bad]
    for ends in (lambda use: bad(use.back_inputs), lambda use: any(_is_below(path, use.path) for path in wrong)):
        suspects = [index for index, use in enumerate(uses) if not bad(use.back_output) and ends(use)]
        inner = [index for index in suspects if not set(_below(uses, index)) & set(suspects)]
        if inner:
            return Place("backward", uses[inner[-1]].path, uses[inner[-1]], copies(uses, inner[-1]))
    return Place("gradient", wrong[0])


def _terms(shown: Look) -> list[tuple[str, Any]]:
    return list(zip(shown.names, shown.terms, strict=True))


def _is_below(path: str, layer: str) -> bool:
    return not layer or path.startswith(f"{layer}/")


def _below(uses: list[Use], index: int) -> range:
    """The uses inside a use."""
    stop = index + 1
    while stop < len(uses) and uses[stop].depth > uses[index].depth:
        stop += 1
    return range(index + 1, stop)


def as_they_end(uses: list[Use]) -> list[int]:
    """Uses stand in the order in which they start; here those inside come before what they stand in."""
    return sorted(range(len(uses)), key=lambda index: (_below(uses, index).stop, -uses[index].depth))


def copies(uses: list[Use], index: int) -> tuple[int, ...]:
    """Which copy of each Repeat around it a use stands in, from outside in."""
    around = [other for other in range(index) if index in _below(uses, other) and isinstance(uses[other].layer, Repeat)]
    return tuple(
        sum(uses[i].depth == uses[repeat].depth + 1 for i in range(repeat + 1, index + 1)) - 1 for repeat in around
    )

"""What a replay says, in words."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.objectives import Batch
from jdl.replaying.hints import hint
from jdl.replaying.passes import Pass, Place, as_they_end, copies
from jdl.replaying.watching import Numbers, Use, bad, named
from jdl.steps import TrainState

SHOWN = 8  # examples that a line names, and arrays that have lines of their own
ROWS = 24  # that the table shows of a stage


class Outcome(NamedTuple):
    """Numbers of what a step makes."""

    loss: Any
    grads: Any
    params: Any
    opt_state: Any
    state: Any


class Row(NamedTuple):
    """One value of the step: the stage it belongs to, its path, what it is, and whether it is finite."""

    stage: str
    path: str
    what: str
    finite: bool


class First(NamedTuple):
    """Where the first non-finite value appears.

    ``stage`` is one of batch, parameters, state, optimizer state, forward, loss, backward, gradient, update and new
    state; ``path`` that of the array or layer; ``name`` how a person calls it, with the layer, the copy and the
    microbatch; ``what`` its numbers; ``hint`` the likely fix, which may be empty.
    """

    stage: str
    path: str
    name: str
    what: str
    hint: str


@dataclasses.dataclass(frozen=True, repr=False)
class Replay:
    """What :func:`jdl.replay` found; ``print(replay)`` shows it.

    Attributes:
        first: where the first non-finite value appears, or None where loss, gradient and update are finite.
        rows: everything that was looked at, in the order of the step.
        reproduced: whether the loss, the gradient or the new state are non-finite here too.
        state: the :class:`jdl.TrainState` before the step, to go on by hand.
        batch: its batch.
        about: what was kept beside them.
    """

    file: str
    first: First | None
    rows: tuple[Row, ...]
    reproduced: bool
    state: TrainState
    batch: Batch
    about: dict[str, Any]

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join([*self._headline(), "", *_table(self.rows)])

    def _headline(self) -> list[str]:
        step = f"step {int(self.state.step) + 1} of {self.file}"  # from 1, as fit's warning and the file's name count
        if self.first is None:
            made = " ".join(str(self.about[name]) for name in ("device",) if name in self.about)
            return [
                f"{step}: nothing non-finite here. If the run saw one, it came from what this process does otherwise:",
                f"another device (then {made or 'unknown'}), version of jax, setting, or code of the step.",
            ]
        where = f"{PLACES[self.first.stage]}, in {self.first.name}"
        lines = [f"{step}: the first non-finite value is in {where}: {self.first.what}"]
        if not self.reproduced:
            lines.append("So it is layer by layer; the compiled step, which rounds less often, stays finite here.")
        return lines + ([f"Likely fix: {self.first.hint}"] if self.first.hint else [])


PLACES = {
    "batch": "the batch",
    "parameters": "the parameters at the start",
    "state": "the model's state at the start",
    "optimizer state": "the optimizer's state at the start",
    "forward": "the forward pass",
    "loss": "the loss",
    "backward": "the backward pass",
    "gradient": "the gradient",
    "update": "the update",
    "new state": "the model's new state",
}


def _table(rows: tuple[Row, ...]) -> list[str]:
    cells = [(" ", "stage", "value", "")]
    for _, group in itertools.groupby(rows, lambda row: row.stage):
        cells += [(" " if row.finite else "!", row.stage, row.path, row.what) for row in _shortened(list(group))]
    widths = [max(len(line[column]) for line in cells) for column in (1, 2)]
    return [f"{mark} {stage:<{widths[0]}}  {path:<{widths[1]}}  {what}".rstrip() for mark, stage, path, what in cells]


def _shortened(group: list[Row]) -> list[Row]:
    """The rows of one stage, of very many those around the first that is not finite."""
    if len(group) <= ROWS:
        return group
    first = next((index for index, row in enumerate(group) if not row.finite), 0)
    start = min(max(first - ROWS // 2, 0), len(group) - ROWS)
    stage, kept = group[0].stage, group[start : start + ROWS]
    rest = {"before": group[:start], "after": group[start + ROWS :]}
    before, after = (
        [Row(stage, f"{len(rows)} more {where}", "", all(row.finite for row in rows))] if rows else []
        for where, rows in rest.items()
    )
    return [*before, *kept, *after]


def in_words(place: Place, start: dict[str, Any], one: Pass | None, came: Outcome) -> First:
    """What is told about a place."""
    name, what, shown = place.path, "", came.grads
    roots = [use for use in one.look.uses if use.depth == 0] if one else []
    outputs = [use.output for use in roots]
    if place.use is not None:
        name, what, shown = _title(place.use, 60, place.copies), *_of_use(place.stage, place.use)
    elif place.stage in start:
        what = describe(named(start[place.stage])[place.path])
    elif place.stage == "forward":
        shown = [use.inputs for use in roots]
        what = f"{describe(shown)}; the batch is finite, so what changes it on the way to the model made them"
    elif place.stage == "loss":
        terms = dict(zip(one.look.names, one.look.terms, strict=True)) if one else {}
        what, shown = f"{describe(terms.get(place.path, came.loss))} (outputs of the model {span(outputs)})", outputs
    elif place.stage == "backward":
        what = f"its gradient at the model's output has {describe([use.back_output for use in roots])}"
        what, shown = f"{what} (outputs {span(outputs)})", outputs
    else:
        results = {
            "gradient": came.grads,
            "update": {"params": came.params, "opt_state": came.opt_state},
            "new state": came.state,
        }
        what = describe(named(results[place.stage])[place.path]) + f" (gradient {span(came.grads)})"
    if one is not None and one.place and place.stage not in start:
        name = f"{one.place}, {name}"
    return First(place.stage, place.path, name, what, hint(place, start["parameters"], shown))


def _title(use: Use, width: int, places: tuple[int, ...]) -> str:
    """``2: Dense(10)``; of a layer that would be longer than ``width`` only its class."""
    text = repr(use.layer)
    text = text if len(text) <= width else type(use.layer).__name__
    copy = f" (copy {', '.join(map(str, places))})" if places else ""
    return f"{use.path}{copy}: {text}" if use.path else text


def _of_use(stage: str, use: Use) -> tuple[str, Any]:
    if stage == "forward":
        return f"output has {describe(use.output)} (inputs {span(use.inputs)})", use.inputs
    what = f"the gradient at its output is finite ({span(use.back_output)}), at its "
    if bad(use.back_inputs):
        return f"{what}inputs it has {describe(use.back_inputs)} (inputs {span(use.inputs)})", use.back_output
    return f"{what}parameters it is not (inputs {span(use.inputs)})", use.back_output


def rows(start: dict[str, Any], one: Pass | None, came: Outcome) -> tuple[Row, ...]:
    """Everything that was looked at, in the order of the step."""
    lines = [Row("batch", path, describe(numbers), not numbers.bad) for path, numbers in named(start["batch"]).items()]
    for stage in ("parameters", "state", "optimizer state"):
        lines += _summed(stage, start[stage])
    if one is not None:
        prefix = f"{one.place}, " if one.place else ""
        uses = [(prefix + _title(use, 40, copies(one.look.uses, i)), use) for i, use in enumerate(one.look.uses)]
        for name, use in uses:
            what = f"{describe(use.output)} (inputs {span(use.inputs)})"
            lines.append(Row("forward", name, what, not bad(use.output)))
        for name, numbers in zip(one.look.names, one.look.terms, strict=True):
            lines.append(Row("loss", f"{prefix}{name}", describe(numbers), not numbers.bad))
        for name, use in (uses[index] for index in reversed(as_they_end(one.look.uses))):
            what = f"{describe(use.back_output)}, at its inputs {describe(use.back_inputs)}"
            lines.append(Row("backward", name, what, not bad((use.back_output, use.back_inputs))))
    lines.append(Row("loss" if one is None else "gradient", "the total loss", describe(came.loss), not bad(came.loss)))
    new = {"params": came.params, "opt_state": came.opt_state}
    results = {"gradient": came.grads, "update": new, "new state": came.state}
    return (*lines, *(row for stage, tree in results.items() for row in _summed(stage, tree)))


def _summed(stage: str, tree: Any) -> list[Row]:
    """One line for all that is finite, and one for every array that is not, or for many of them."""
    arrays = named(tree)
    good = [numbers for numbers in arrays.values() if not numbers.bad]
    lines = [Row(stage, path, describe(numbers), False) for path, numbers in arrays.items() if numbers.bad]
    if len(lines) > SHOWN:
        lines = [*lines[: SHOWN // 2], Row(stage, f"{len(lines) - SHOWN // 2} more arrays", "not finite", False)]
    return ([Row(stage, f"{len(good)} arrays", span(good), True)] if good else []) + lines


def describe(tree: Any) -> str:
    """Numbers of one value, or of a tree of them, in words."""
    many = [one for one in jax.tree.leaves(tree, is_leaf=_is_numbers) if _is_numbers(one)]
    if not many:
        return "no floating values"
    parts = [_one(numbers) for numbers in many if numbers.bad] or [span(many)]
    return "; ".join(parts)


def _one(numbers: Numbers) -> str:
    size = int(np.prod(numbers.shape, dtype=np.int64))
    kinds = {kind: count for kind, count in numbers.counts.items() if count}
    if size == 1:
        return next(iter(kinds))
    if list(kinds.values()) == [size]:
        return f"{next(iter(kinds))} in all {size:,} values"
    text = " and ".join(f"{count:,} {kind}" for kind, count in kinds.items()) + f" among {size:,} values"
    if places := numbers.examples:
        text += f" in examples {places[:SHOWN]}" + (f" and {len(places) - SHOWN} more" if places[SHOWN:] else "")
    return text + (f", the others {span([numbers])}" if numbers.bad < size else "")


def span(tree: Any) -> str:
    """The range of the finite values."""
    many = [one for one in jax.tree.leaves(tree, is_leaf=_is_numbers) if _is_numbers(one)]
    if not many:
        return "no floating values"
    low, high = min(one.low for one in many), max(one.high for one in many)
    if low > high:
        return "none finite"
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _is_numbers(leaf: Any) -> bool:
    return isinstance(leaf, Numbers)

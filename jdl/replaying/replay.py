"""Running one saved step alone, to see where its first non-finite value appears."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax

from jdl import check
from jdl.check import InputError
from jdl.gradients import as_gradient
from jdl.nn.settings import Tree
from jdl.objectives import Batch, model_inputs, select_from, supervised_terms
from jdl.replaying.files import SavedStep, load_step
from jdl.replaying.passes import Pass, Place, Point, locate, passes
from jdl.replaying.report import Outcome, Replay, in_words, rows
from jdl.replaying.watching import bad, listed, mended, named, numbers, size_of
from jdl.steps import TrainState, make_step, start_state
from jdl.trees import by_path, differences


def replay(file: str | Path, step: Any) -> Replay:
    """Run one saved step alone and find where the first non-finite value appears.

    In the order of the step: the batch, the arrays at the start, every layer forward, the loss, every layer backward,
    the gradient, the update, the model's new state. The keys are those of the step, so masks of dropout are too. Into
    jdl's objectives and gradients it looks layer by layer, into objectives of your own as far as models stand in their
    fields; of any other gradient it sees the results.

    >>> step = jdl.make_step(jdl.supervised(model, loss), optimizer)
    >>> print(jdl.replay("runs/a/nonfinite_00000123.safetensors", step))

    Args:
        file: what :func:`jdl.fit` left, or :func:`jdl.save_step` wrote.
        step: the :class:`jdl.make_step` of the run, made again as the script makes it.

    Raises:
        InputError: the file cannot be read, or another model or optimizer wrote it; names every difference.
    """
    made = _made(step)
    saved = load_step(file)
    state, batch = _restored(saved, made, str(file)), saved.batch
    run = functools.partial(_outcome, jax.jit(functools.partial(_results, made)))
    try:
        came = run(state, batch)
    except InputError as error:
        differ = "\n".join(["", *_model_differences(saved, made)])
        raise InputError(f"the step cannot run on it: {error}{differ}", str(file)) from error
    start = numbers(_parts(state, batch), size_of(batch))
    wrong = _is_bad(came, start)
    point = Point(state.params, state.state, batch, jax.random.fold_in(state.key, state.step))
    one, place = _look(made.gradient, point)
    if wrong:
        place = _at_start(run, state, batch, start) or place or _in_results(came, start)
    first = None if place is None else in_words(place, start, one, came)
    return Replay(str(file), first, rows(start, one, came), wrong, state, batch, saved.about)


def _made(step: Any) -> make_step:
    """The step itself, where it is compiled or repeated."""
    inner = step
    while not isinstance(inner, make_step):
        inner = getattr(inner, "__wrapped__", None) or getattr(inner, "step", None)
        if inner is None:
            raise InputError(f"step got {check.describe(step)}, wanted jdl.make_step(gradient, optimizer)")
    return inner


def _restored(saved: SavedStep, made: make_step, file: str) -> TrainState:
    """The state before the step, in the structure of this optimizer's state."""
    variables = saved.params, saved.state

    def first() -> TrainState:
        return start_state(variables, made.optimizer, saved.key)  # pyright: ignore[reportArgumentType]

    try:
        like = jax.eval_shape(first).opt_state
    except Exception as error:
        raise InputError(f"the optimizer of the step does not take its parameters: {error}", file) from error
    wanted = by_path(like, "opt_state")
    if lines := differences(_texts(saved.opt_state), _texts(wanted), "file"):
        raise InputError(
            "\n".join(["its optimizer is not that of the step; make the step as the run did:", *lines]), file
        )
    opt_state = jax.tree.unflatten(jax.tree.structure(like), [saved.opt_state[path] for path in wanted])
    return TrainState(saved.params, saved.state, opt_state, saved.step, saved.key)


def _model_differences(saved: SavedStep, made: make_step) -> list[str]:
    """What the file holds otherwise than the model of the step, where there is one that tells."""
    field: Any = made.gradient
    while hasattr(field, "gradient"):
        field = field.gradient
    terms = supervised_terms(getattr(field, "objective", field))
    if len({term.model for term in terms}) != 1:
        return []
    try:
        positional, named_inputs = model_inputs(select_from(saved.batch, terms[0].inputs, "inputs"))
        spec = terms[0].model.spec(*positional, **named_inputs)
    except Exception:  # the model does not take the batch as it stands in the file
        return []
    found = _texts(by_path(saved.params, "params") | by_path(saved.state, "state"))  # frozen ones stand in state
    wanted = {
        path: check.describe(param) for tree in (spec.params, spec.state) for path, param in _params(tree).items()
    }
    return differences(found, wanted, "file")


def _params(tree: Tree, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in tree.items():
        flat |= _params(item, f"{prefix}{name}/") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return flat


def _texts(leaves: dict[str, Any]) -> dict[str, str]:
    return {path: check.describe(leaf) for path, leaf in leaves.items()}


def _results(made: make_step, state: TrainState, batch: Batch) -> tuple[Any, ...]:
    """What the step makes; also the gradient, which an optimizer may skip."""
    key = jax.random.fold_in(state.key, state.step)
    grads, aux = as_gradient(made.gradient)(state.params, state.state, batch, key)
    new, _ = made(state, batch)
    return aux.loss, grads, new.params, new.opt_state, new.state


def _outcome(results: Any, state: TrainState, batch: Batch) -> Outcome:
    return Outcome(*map(numbers, jax.device_get(results(state, batch))))


def _parts(state: TrainState, batch: Batch) -> dict[str, Any]:
    return {"batch": batch, "parameters": state.params, "state": state.state, "optimizer state": state.opt_state}


def _is_bad(came: Outcome, start: dict[str, Any]) -> bool:
    """Whether something became not finite. What was so before may be meant so, as an optimizer's best loss so far."""
    pairs = ((came.state, start["state"]), (came.opt_state, start["optimizer state"]))
    newly = any(new.bad and not old.bad for a, b in pairs for new, old in zip(listed(a), listed(b), strict=True))
    return newly or bad((came.loss, came.grads, came.params))


def _look(gradient: Any, point: Point) -> tuple[Pass | None, Place | None]:
    """The first pass that is not finite and where, or the last pass."""
    shown = None
    for one in passes(gradient, point):
        shown, place = locate(one)
        if place is not None:
            return shown, place
    return shown, None


def _at_start(run: Any, state: TrainState, batch: Batch, start: dict[str, Any]) -> Place | None:
    """What was not finite before the step and spoils it: with other numbers in its place the step is finite.

    Not everything does: a batch may hold NaN where a mask leaves it out.
    """

    def heals(stages: list[str]) -> bool:
        for number in (0, 1):  # either may be what a layer cannot take
            parts = _parts(state, batch)
            parts |= {stage: mended(parts[stage], number) for stage in stages}
            other = TrainState(parts["parameters"], parts["state"], parts["optimizer state"], state.step, state.key)
            if not _is_bad(run(other, parts["batch"]), start):
                return True
        return False

    suspects = [stage for stage, tree in start.items() if bad(tree)]
    if not suspects or not heals(suspects):
        return None
    needed = [stage for stage in suspects if not heals([other for other in suspects if other != stage])]
    stage = (needed or suspects)[0]
    return Place(stage, next(path for path, one in named(start[stage]).items() if one.bad))


def _in_results(came: Outcome, start: dict[str, Any]) -> Place:
    """The first of the step's results that is not finite, where no layer tells more."""
    if bad(came.loss):
        return Place("loss", "the total")
    old = {"params": start["parameters"], "opt_state": start["optimizer state"]}
    new = {"params": came.params, "opt_state": came.opt_state}
    for stage, after, before in (
        ("gradient", came.grads, None),
        ("update", new, old),
        ("new state", came.state, start["state"]),
    ):
        for path, one in named(after).items():
            if one.bad and not (before is not None and named(before)[path].bad):
                return Place(stage, path)
    raise AssertionError("a step that is not finite has a result that is not")

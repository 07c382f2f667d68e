"""One function that measures everything of a report; what writes or shows it only calls this."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jdl.monitor.devices import Peak, memory, peak_of
from jdl.nn.core import Layer
from jdl.nn.settings import Tree
from jdl.objectives import Augmented, Scaled, Sum, Supervised, model_inputs, select_from
from jdl.optimizers import hyperparams, norms, skipped
from jdl.runs import Run
from jdl.show import text

Array = jax.Array

BACKWARD = 3  # a training step costs three forward passes: one forward, and gradients of inputs and of parameters

_NORMS = {"gradient": "gradient_norm", "update": "update_norm", "parameters": "parameter_norm"}


def measure(run: Run, peak_flops: float | None = None) -> dict[str, Any]:
    """Everything of the last report: its row of ``run.history``, and what the optimizer and the machine did.

    What is beside the row is named ``optimizer/…`` and ``machine/…``; a quantity that is not known is absent. Several
    monitors of one report share one measurement, which waits for nothing but a few numbers of a state that is there.

    Args:
        run: a run in training, at a report.
        peak_flops: FLOP/s of all devices together; by default from data sheets, or measured on a CPU.
    """
    row = run.history[-1]
    last = _last.get(run)
    if last is None or not last.is_of(row, run.state, peak_flops):
        last = _Measured(row, weakref.ref(run.state), peak_flops, _beside(run, peak_flops))
        _last[run] = last
    return row | last.values


def prepare(run: Run, peak_flops: float | None = None) -> None:
    """Trace, compile and look up all that :func:`measure` needs, before the first step: no report is slower for it."""
    peak(run, peak_flops)
    _beside(run, peak_flops)


@dataclasses.dataclass(frozen=True)
class _Measured:
    row: dict[str, Any]
    state: weakref.ref[Any]  # the arrays belong to the run
    peak_flops: float | None
    values: dict[str, Any]

    def is_of(self, row: dict[str, Any], state: Any, peak_flops: float | None) -> bool:
        return self.row is row and self.state() is state and self.peak_flops == peak_flops


_last: weakref.WeakKeyDictionary[Run, _Measured] = weakref.WeakKeyDictionary()
_costs: weakref.WeakKeyDictionary[Run, int | None] = weakref.WeakKeyDictionary()


def _beside(run: Run, peak_flops: float | None) -> dict[str, Any]:
    machine = {name: value for name, value in (run.speed or {}).items() if value is not None}
    if (share := _utilisation(run, peak_flops)) is not None:
        machine["model_flops_utilisation"] = share
    machine |= memory(devices_of(run))
    own = {f"optimizer/{name}": value for name, value in _optimizer(run.state).items()}
    return own | {f"machine/{name}": value for name, value in machine.items()}


def _optimizer(state: Any) -> dict[str, Any]:
    recorded = norms(state) or {"parameters": parameter_norm(state.params)}
    found = {_NORMS[name]: value for name, value in recorded.items()}
    if (counts := skipped(state)) is not None:
        found["skipped_steps"] = counts.total
    found = jax.device_get(hyperparams(state) | found)  # all in one transfer
    values = {name: value.item() if value.ndim == 0 else value for name, value in found.items()}
    if "update_norm" in values and jnp.ndim(size := values["parameter_norm"]) == 0 and size > 0:
        values["update_ratio"] = values["update_norm"] / size
    return values


@jax.jit
def parameter_norm(params: Tree) -> Array:
    """The global L2 norm of all parameters, in float32."""
    squares = [jnp.sum(jnp.square(jnp.abs(leaf).astype(jnp.float32))) for leaf in jax.tree.leaves(params)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


def devices_of(run: Run) -> set[Any]:
    """The devices that a run trains on."""
    return run.state.step.devices()


def forward_flops(run: Run) -> int | None:
    """Floating-point operations of a forward pass of every supervised model over one training batch, or None.

    ``None`` where it cannot be told: the batch is not what the models take, as where the step prepares it first.
    """
    if run not in _costs:
        _costs[run] = _forward_flops(run)
    return _costs[run]


def _forward_flops(run: Run) -> int | None:
    total = 0
    try:
        for model, inputs in list(_uses(run.objective, run.batch)) or [(run.model, run.batch["inputs"])]:
            positional, named = model_inputs(inputs)
            total += model.spec(*positional, **named).flops
    except Exception:  # what is only looked at must not end a run
        return None
    return total or None


def _uses(objective: Any, batch: Any) -> Iterator[tuple[Layer, Any]]:
    """The models of an objective with their abstract inputs, as its augmentation makes them."""
    if isinstance(objective, Sum):
        yield from _uses(objective.first, batch)
        yield from _uses(objective.second, batch)
    elif isinstance(objective, Augmented):
        yield from _uses(objective.objective, jax.eval_shape(objective.augmentation, jax.random.key(0), batch))
    elif isinstance(objective, Scaled):
        yield from _uses(objective.objective, batch)
    elif isinstance(objective, Supervised):
        select = functools.partial(select_from, selector=objective.inputs, name="inputs")
        yield objective.model, jax.eval_shape(lambda batch: select(batch), batch)


def peak(run: Run, peak_flops: float | None = None) -> Peak | None:
    """The peak that utilisation is held against: as given, or that of the run's devices."""
    return peak_of(devices_of(run)) if peak_flops is None else Peak(peak_flops, "as given")


def _utilisation(run: Run, peak_flops: float | None) -> float | None:
    speed, flops = (run.speed or {}).get("steps_per_second"), forward_flops(run)
    if speed is None or flops is None or (best := peak(run, peak_flops)) is None:
        return None
    return BACKWARD * flops * speed / best.flops


def explain(run: Run, peak_flops: float | None = None) -> str:
    """How model FLOPs utilisation is computed for this run, with its numbers; or why it is not."""
    flops, best = forward_flops(run), peak(run, peak_flops)
    if flops is None:
        return "model FLOPs utilisation: not known, as the model cannot be traced on the training batch"
    if best is None:
        kind = next(iter(devices_of(run))).device_kind
        return f"model FLOPs utilisation: the peak of {kind} is not known; give peak_flops="
    formula = f"{BACKWARD} × forward FLOPs of a batch × steps/s ÷ peak"
    return f"model FLOPs utilisation = {formula} = {BACKWARD} × {text.number(flops)} × steps/s ÷ {best}"

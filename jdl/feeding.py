"""How the data of a run reaches its steps: gathered on the device from arrays that stay there, or streamed to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl.check import InputError
from jdl.data import Dataset, Stream, epoch_end_step, indices_between, prefetch, steps_in_epochs
from jdl.data.prefetch import Interruptible, close_if_idle, interrupt_of
from jdl.gradients import merge_reports
from jdl.objectives import Batch
from jdl.programs import Program, cached_program
from jdl.steps import Step, TrainState

Array = jax.Array


class Plan:
    """Which steps run together in a call, and where the reports are."""

    def __init__(
        self,
        examples: int | None,
        batch_size: int,
        per_call: int = 1,
        epochs: float | None = None,
        steps: int | None = None,
        every: int | None = None,
    ):
        if (epochs is None) == (steps is None):
            raise InputError(f"fit got epochs={epochs} and steps={steps}, wanted one of the two")
        for name, value in (
            ("batch_size", batch_size),
            ("steps_per_call", per_call),
            ("validate_every", every),
            ("steps", steps),
        ):
            if value is not None and not (_is_whole(value) and value >= 1):
                raise InputError(f"{name} got {value!r}, wanted an integer of at least 1")
        if epochs is not None and not (_is_whole(epochs) or isinstance(epochs, (float, np.floating))):
            raise InputError(f"epochs got {epochs!r}, wanted a number, such as 3 or 0.5")
        if examples is None and steps is None:
            raise InputError(
                f"fit got epochs={epochs} and data that does not say how many examples it has; "
                "give steps, or jdl.data.Batches(data, examples=N)"
            )
        self.examples, self.batch_size, self.steps_per_call = examples, batch_size, per_call
        if steps is None:
            assert examples is not None and epochs is not None
            steps = steps_in_epochs(examples, batch_size, epochs)
            if steps < 1:
                raise InputError(
                    f"epochs got {epochs!r}, which is no full batch: {examples} examples in batches of {batch_size}; "
                    "wanted at least one step"
                )
            every_step = None
        else:
            every_step = max(1, steps // 10) if examples is None and every is None else every
        self.steps = int(steps)
        if every_step is not None:
            ends = range(every_step, self.steps, every_step)
        else:
            assert examples is not None
            last = -(-self.steps * batch_size // examples)
            ends = (epoch_end_step(examples, batch_size, e) for e in range((every or 1) - 1, last, every or 1))
        self.reports = sorted({end for end in ends if 0 < end < self.steps} | {self.steps})

    def sizes(self, start: int) -> Iterator[int]:
        """How many steps each call takes, from step ``start`` to the end: full calls, and single steps up to a report.

        The grouping does not depend on the call boundary at which a run goes on.
        """
        for report in self.reports:
            while start < report:
                size = self.steps_per_call if report - start >= self.steps_per_call else 1
                yield size
                start += size

    def epoch(self, step: int) -> dict[str, int]:
        """Which epoch a report after ``step`` steps belongs to, from 1; nothing where that is unknown."""
        return {} if self.examples is None else {"epoch": -(-step * self.batch_size // self.examples)}


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


class Call(NamedTuple):
    """What one call of a train program takes beside state and totals; the step and the place in the data after it."""

    stop: int
    arguments: tuple[Any, ...]
    several: bool
    position: Any = None


class Resident:
    """Arrays that stay on the device; a call brings row numbers, and batches are gathered inside the program."""

    exact = True

    def __init__(self, data: Dataset, plan: Plan, seed: int):
        self.data, self.plan, self.seed = data, plan, seed
        self._arrays: Any = None

    def first(self) -> Batch:
        """The first batch, as NumPy arrays."""
        return self.data.gather(indices_between(len(self.data), self.plan.batch_size, self.seed, 0, 1)[0])

    def program(self, step: Step, several: bool) -> Program:
        """``(state, totals, data, indices) -> (state, totals)``."""
        return train_program(step, several)

    def calls(self, start: int, position: Any = None) -> Iterator[Call]:
        """The calls from step ``start`` to the end of the plan."""
        if self._arrays is None:
            self._arrays = jax.tree.map(jnp.asarray, dict(self.data.arrays))
        n, batch_size = len(self.data), self.plan.batch_size
        begin, rows = start, np.empty((0, batch_size), np.int32)
        for size in self.plan.sizes(start):
            if start + size > begin + len(rows):  # rows of many steps at once cost far less than one by one
                stop = min(start + max(256, size), self.plan.steps)
                begin, rows = start, indices_between(n, batch_size, self.seed, start, stop)
            own = rows[start - begin : start - begin + size]
            start += size
            yield Call(start, (self._arrays, own if size > 1 else own[0]), size > 1)

    def batches(self, call: Call) -> list[Batch]:
        """The batches of one call, one for each of its steps."""
        rows = call.arguments[1]
        return [self.data.gather(own) for own in (rows if call.several else rows[None])]

    def afresh(self) -> Resident:
        """Another feed of the same data."""
        return self

    def close(self) -> None:
        """Let go of the arrays on the device."""
        self._arrays = None


class Streamed:
    """Batches from a stream, made ready and moved to the device by a thread while the step before them runs."""

    def __init__(self, stream: Stream, plan: Plan, seed: int):
        self.stream, self.plan, self.seed, self.exact = stream, plan, seed, stream.exact
        self._open = contextlib.ExitStack()

    def first(self) -> Batch:
        """A batch like those to come."""
        return self.stream.first(self.plan.batch_size)

    def program(self, step: Step, several: bool) -> Program:
        """``(state, totals, batch) -> (state, totals)``."""
        return stream_program(step, several)

    def calls(self, start: int, position: Any = None) -> Iterator[Call]:
        """The calls from step ``start`` to the end of the plan, from ``position`` where an earlier call gave one."""
        self.close()
        batches = self.stream.batches(self.plan.batch_size, self.seed, start, position)
        ready = prefetch(Interruptible(self._grouped(batches, start), interrupt_of(batches)), size=2)
        for iterator in (batches, ready):  # closed in the other order: first what reads, then what is read
            self._open.callback(close_if_idle, iterator)
        yield from ready

    def _grouped(self, batches: Iterator[tuple[Batch, Any]], start: int) -> Generator[Call]:
        for size in self.plan.sizes(start):
            parts = [next(batches) for _ in range(size)]
            start += size
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *[part for part, _ in parts])
            batch = batch if size > 1 else parts[0][0]
            yield Call(start, (jax.device_put(batch),), size > 1, parts[-1][1])

    def batches(self, call: Call) -> list[Batch]:
        """The batches of one call, one for each of its steps."""
        (batch,) = call.arguments
        n = len(jax.tree.leaves(batch)[0]) if call.several else 0
        return [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(n)] if call.several else [batch]

    def afresh(self) -> Streamed:
        """Another feed of the same data, read beside this one."""
        return Streamed(self.stream, self.plan, self.seed)

    def close(self) -> None:
        """Stop the threads and processes that read the data; a thread that hangs in a read is left to itself."""
        self._open.close()
        self._open = contextlib.ExitStack()


Feed = Resident | Streamed


@cached_program
def train_program(step: Step, several: bool = False) -> Program:
    """``(state, totals, data, indices) -> (state, totals)``: gather a batch on the device, step, and add up the
    metrics.

    With ``several``, indices are ``[K, B]`` and the steps run by scan.
    """

    def train(state: TrainState, totals: Any, data: Any, indices: Array) -> tuple[TrainState, Any]:
        batch = jax.tree.map(lambda x: x.at[indices].get(mode="promise_in_bounds"), data)
        state, report = step(state, batch)
        return state, merge_reports(totals, report)

    def train_several(state: TrainState, totals: Any, data: Any, indices: Array) -> tuple[TrainState, Any]:
        def one(carry: tuple[TrainState, Any], rows: Array) -> tuple[tuple[TrainState, Any], None]:
            return train(*carry, data, rows), None

        return jax.lax.scan(one, (state, totals), indices)[0]

    return _program(train, train_several, several)


@cached_program
def stream_program(step: Step, several: bool = False) -> Program:
    """``(state, totals, batch) -> (state, totals)``: step, and add up the metrics; with ``several`` by scan over
    batches stacked along a new leading axis.
    """

    def train(state: TrainState, totals: Any, batch: Batch) -> tuple[TrainState, Any]:
        state, report = step(state, batch)
        return state, merge_reports(totals, report)

    def train_several(state: TrainState, totals: Any, batches: Batch) -> tuple[TrainState, Any]:
        def one(carry: tuple[TrainState, Any], batch: Batch) -> tuple[tuple[TrainState, Any], None]:
            return train(*carry, batch), None

        return jax.lax.scan(one, (state, totals), batches)[0]

    return _program(train, train_several, several)


def _program(single: Callable[..., Any], scanned: Callable[..., Any], several: bool) -> Program:
    return Program(scanned if several else single, "train_several" if several else "train", donate_argnums=(0, 1))

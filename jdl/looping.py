"""The loop of ``fit``: calls, reports, checkpoints, and what happens when a number is not finite or a signal comes."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jdl.data import Dataset, Stream
from jdl.feeding import Call, Feed
from jdl.nonfinite import (
    NonFiniteWarning,
    count_skipped,
    find_bad_step,
    has_loss_scale,
    is_finite,
    write_bad_step,
)
from jdl.optimizers import skipped
from jdl.programs import Compilations
from jdl.progress import Progress
from jdl.resuming import Interrupted, ResumeWarning, Signals, Woken, changes, hand_over, states_of
from jdl.runs import (
    EVALUATION_BATCH,
    Run,
    evaluate_batches,
    evaluation_program,
    format_row,
    padded_batches,
    read_metrics,
)
from jdl.steps import Step, TrainState, eval_variables

Callback = Callable[[Run], None]


class Loop:
    """One run in training: between two calls all of it is in ``run.state``, ``totals`` and what ``_extra`` holds.

    ``report`` is the abstract report of a step.
    """

    def __init__(
        self,
        run: Run,
        step: Step,
        report: Any,
        feed: Feed,
        held_out: Dataset | Stream | None,
        callbacks: tuple[Callback, ...],
        bar: Progress,
        store: Any = None,
        max_compilations: int | None = None,
    ):
        self.run, self.step, self.feed, self.plan, self.store = run, step, feed, feed.plan, store
        self.callbacks, self.bar = callbacks, bar
        self.single, self.several = feed.program(step, False), feed.program(step, True)
        self.call = Compilations(run.compilations, run.compile_seconds, max_compilations)
        self.reports = set(self.plan.reports)
        self.zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), report)
        self.totals: Any = None
        self.like, self.skipped, self.warned, self.gave_up = run.state, 0, False, False
        self.done, self.position, self.seconds, self.kept = 0, None, 0.0, 0
        self.evaluate = self._evaluation(held_out)

    # starting

    def go_on_or(self, start: Callable[[], TrainState]) -> None:
        """Take up the newest checkpoint; without one begin with ``start()``."""
        run, self.start = self.run, start
        saved = None if self.store is None else self.store.restore({"state": run.state, "totals": self.zeros})
        if self.store is None or saved is None:
            run.state, self.totals = start(), jax.device_put(self.zeros)
            return
        run.state, self.totals = saved.state["state"], saved.state["totals"]
        extra = saved.extra
        self.done = self.kept = run.resumed = saved.step
        self.skipped = count_skipped(run.state)
        self.position, self.seconds = extra["position"], extra["seconds"]
        run.history, run.stopped = list(extra["history"]), extra["stopped"]
        place = f"step {saved.step:,} of {self.plan.steps:,}, in {str(self.store.settings.folder)!r}"
        lines = hand_over(self.callbacks, extra["callbacks"])
        if run.stopped is not None:
            lines.append(f"the run ended there: {run.stopped}; to train anew, name another folder")
        elif self.done > self.plan.steps:
            lines.append(f"that is more than the {self.plan.steps} steps asked for, so nothing is trained")
        elif not self.feed.exact and self.position is None and self.done < self.plan.steps:
            lines.append(f"the data has no place to go on from: step {self.done + 1} starts a new pass over it")
        changed = changes(extra["settings"], run.settings)
        if changed and self.done == self.plan.steps:
            lines.append("all steps are done, so nothing is trained; ask for more, or name another folder")
        self.bar.say(f"going on from {place}")
        if lines := [*changed, *lines]:
            listed = "".join(f"\n  {line}" for line in lines)
            warnings.warn(f"going on from {place}, but not as before:{listed}", ResumeWarning, stacklevel=4)

    # training

    def train(self) -> None:
        """Calls, and the reports between them, until the last one, ``run.stop`` or a signal."""
        run = self.run
        run.training, self._begun = True, time.perf_counter()
        try:
            for callback in self.callbacks:
                if (begin := getattr(callback, "begin", None)) is not None:
                    begin(run)
            self._start_clock()
            with Signals(self.store is not None) as signals:
                self._train(signals)
        finally:  # what a callback kept of an interrupted run stays usable
            run.training = False
            self._end()

    def _train(self, signals: Signals) -> None:
        last = self.run.history[-1]["step"] if self.run.history else 0
        if self.done in self.reports and self.done > last:  # it stopped between the last step and its report
            self._report()
        calls = iter(self.feed.calls(self.done, self.position)) if not self.run.stopped else iter(())
        while True:
            if signals.received is not None:
                self._leave(signals.received)
            if self.run.stopped is not None:
                break
            call = self._next(calls, signals)
            if call is None and signals.received is None:
                break
            if call is None:
                continue
            self._advance(call)
            if self.done in self.reports:
                self._report()
            elif self._is_due() and self._look():
                self._save()
        if self.store is not None:
            self.store.wait()
        if signals.received is not None:
            self._leave(signals.received)

    def _next(self, calls: Any, signals: Signals) -> Call | None:
        """The next call; None where there is none left, or a signal came while the data kept the loop waiting."""
        begin = time.perf_counter()
        try:
            signals.waiting = True
            call = None if signals.received is not None else next(calls, None)
            signals.waiting = False
        except Woken:
            call = None
        self._waited += time.perf_counter() - begin
        return call

    def _advance(self, call: Call) -> None:
        program = self.several if call.several else self.single
        compiled = self.call.total
        self.run.state, self.totals = self.call(program, self.run.state, self.totals, *call.arguments)
        if self.call.total > compiled and call.stop not in self.reports:
            self._start_clock()  # with the steps of this call, which only now begin to run
        self.done, self.position = call.stop, call.position
        if self.bar.shown:
            self.bar(self.done, functools.partial(_line, self.totals))

    def _report(self) -> None:
        run, sound = self.run, self._look()
        values = read_metrics(jax.device_get(self.totals))  # waits for the device, so the clock is right after it
        run.speed = self._speed()
        row: dict[str, Any] = {"step": self.done} | self.plan.epoch(self.done)
        row |= {"seconds": self._elapsed()} | values
        if self.evaluate is not None:
            row |= {f"validation_{name}": value for name, value in self.evaluate().items()}
        run.history.append(row)
        self.totals = jax.device_put(self.zeros)
        self.bar(self.done, functools.partial(format_row, row))
        for callback in self.callbacks:
            callback(run)
        self.kept = -1  # the report belongs to the checkpoint, also where one of this step is there already
        if sound:
            self._save()
        self._start_clock()

    def _evaluation(self, held_out: Dataset | Stream | None) -> Callable[[], dict[str, Any]] | None:
        if held_out is None or self.run.objective is None:
            return None
        program = evaluation_program(self.run.objective)
        kept = jax.device_put(padded_batches(held_out, EVALUATION_BATCH)) if isinstance(held_out, Dataset) else None

        def evaluate() -> dict[str, Any]:
            batches = padded_batches(held_out, EVALUATION_BATCH) if kept is None else kept
            return evaluate_batches(program, eval_variables(self.run.state), batches, self.call)

        return evaluate

    # stopping

    def _is_due(self) -> bool:
        every = None if self.store is None else self.store.settings.every
        return every is not None and self.done // every > self.kept // every

    def _save(self) -> None:
        if self.store is None or self.done == self.kept:
            return
        metrics = self.run.history[-1] if self.run.history and self.run.history[-1]["step"] == self.done else {}
        self.store.save(self.done, {"state": self.run.state, "totals": self.totals}, self._extra(), metrics)
        self.kept = self.done

    def _extra(self) -> dict[str, Any]:
        return {
            "history": self.run.history,
            "stopped": None if self.gave_up else self.run.stopped,
            "callbacks": states_of(self.callbacks),
            "settings": self.run.settings,
            "position": self.position,
            "seconds": self._elapsed(),
        }

    def _look(self) -> bool:
        """Whether all is finite since the last look, or was made so by skipping; says what is not, and may stop."""
        state = self.run.state
        if self.store is None and np.isfinite(jax.device_get(self.totals["loss"].compute())):
            return True  # without a checkpoint to protect, one look at the loss is enough
        finite, found = is_finite(state, self.totals), skipped(state)
        count, before, self.skipped = count_skipped(state), self.skipped, count_skipped(state)
        if finite and (count == before or has_loss_scale(state)):
            return True  # a loss scale that is too high for a step is lowered, and the step skipped: nothing is wrong
        sound = is_finite(state, {"loss": ()})
        if found is not None and int(found.consecutive) >= found.limit:
            self.gave_up = True
            self.run.stop(f"{int(found.consecutive)} steps in a row were not finite")
        elif not sound:
            self.gave_up = True
            self.run.stop("parameters are not finite")
        if not self.warned or self.run.stopped is not None:
            what = f"{count - before} steps were skipped, as their" if count > before else "the"
            warnings.warn(
                f"up to step {self.done}, {what} loss or gradient was not finite"
                + ("; the run stops" if self.run.stopped else "")
                + self._told_where(),
                NonFiniteWarning,
                stacklevel=6,
            )
        self.warned = True
        return sound

    def _told_where(self) -> str:
        try:
            return self._trace_back()
        except Exception as error:  # a full disk, say: the run itself is no worse for it
            return f"; the step could not be written down: {type(error).__name__}: {error}"

    def _trace_back(self) -> str:
        """Find the step, leave its file, and say what to do with it."""
        skips = "" if skipped(self.run.state) is not None else " or jdl.skip_nonfinite"
        advice = f"a smaller learning rate, optax.clip_by_global_norm{skips} may help"
        if self.store is None:
            return f"; fit(..., checkpoint=folder) would leave the step to be replayed; {advice}"
        if not self.feed.exact:
            return f"; the data cannot be read again from a place within it, so the step is lost; {advice}"
        feed = self.feed.afresh()
        saved = self.store.restore({"state": self.like, "totals": self.zeros})
        try:
            start = {"state": self.start(), "totals": jax.device_put(self.zeros)} if saved is None else saved.state
            position = None if saved is None else saved.extra["position"]
            bad = find_bad_step(feed, self.step, **start, stop=self.done, position=position)
        finally:
            if feed is not self.feed:
                feed.close()
        if bad is None:
            return f"; run again from the last checkpoint it did not come back; {advice}"
        path = write_bad_step(self.store.folder, bad)
        return f". The first is step {bad.step}; jdl.replay({str(path)!r}, step) says where it begins; {advice}"

    def _leave(self, name: str) -> None:
        for _ in range(2):  # another library's signal handler may raise in the middle of it
            with contextlib.suppress(Exception):
                if self._look():
                    self._save()
                self.store.wait()
                break
        self.run.stopped = name
        about = f"a checkpoint is in {str(self.store.settings.folder)!r}, and the same command goes on from it"
        self.bar.say(f"{name} after step {self.done:,} of {self.plan.steps:,}: {about}")
        raise Interrupted(name, self.run)

    # clocks

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._begun

    def _start_clock(self) -> None:
        self._clock, self._waited, self._from = time.perf_counter(), 0.0, self.done

    def _speed(self) -> dict[str, float]:
        """Steps and examples per second and the share of time waiting, since the last report or compilation."""
        spent = max(time.perf_counter() - self._clock, 1e-9)
        rate = (self.done - self._from) / spent
        waiting = min(self._waited / spent, 1.0)
        return {"steps_per_second": rate, "examples_per_second": rate * self.plan.batch_size, "waiting": waiting}

    def _end(self) -> None:
        """Tell every callback, then raise what the first of them raised."""
        with contextlib.ExitStack() as stack:
            for callback in reversed(self.callbacks):
                if (end := getattr(callback, "end", None)) is not None:
                    stack.callback(end, self.run)


def _line(totals: Any) -> str:
    return format_row(read_metrics(jax.device_get(totals)))

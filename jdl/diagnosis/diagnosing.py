"""``diagnose``: every check in order, causes before what follows from them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl import check
from jdl.check import InputError
from jdl.data import Dataset
from jdl.diagnosis import evaluation, heads, inputs, labels, layers, rows, trial
from jdl.diagnosis.findings import (
    DEAD,
    FIRST_LOSS,
    INPUTS,
    LABELS,
    NO_GRADIENT,
    SATURATED,
    TARGETS,
    VANISHING,
    Diagnosis,
    Finding,
)
from jdl.diagnosis.light import entry, inputs_alone, name_of, no_validation
from jdl.diagnosis.passes import evaluate, in_training, weighted_terms, without_penalties
from jdl.gradients import Gradient
from jdl.nn.core import Layer
from jdl.nn.norm import BatchNorm
from jdl.nn.settings import Settings, Variables
from jdl.nn.tracing import trace
from jdl.objectives import Batch, Objective, Supervised, model_inputs, select_from, supervised, supervised_terms
from jdl.steps import Step, init_state, make_step

Array = jax.Array

HIGH_LOSS = 5.0  # times what a model that knows nothing has; He initialisation and dropout make it up to 3
HIGH_ERROR = 10.0  # the same for squared and absolute errors, which a single output unit spreads further
ENOUGH = 100  # steps after which running statistics should be those of the data
IMBALANCED = 256  # examples of a binary batch that are not of one class by chance


def diagnose(
    model: Layer,
    objective: Any,
    optimizer: optax.GradientTransformation,
    batch: Any,
    *,
    validation: Any = None,
    train: Any = None,
    variables: Variables | None = None,
    seed: int = 0,
    steps: int = 300,
) -> Diagnosis:
    """Look for the usual pitfalls before training, by a few hundred steps on one batch; a healthy setup yields none.

    >>> print(jdl.diagnose(model, jdl.losses.cross_entropy, optax.adamw(1e-3), batch, validation=digits.validation))

    Args:
        model: a layer.
        objective: a loss, an :class:`Objective` or a :class:`Gradient`, as ``fit`` takes it.
        optimizer: any optax transformation, with the learning rate that is meant.
        batch: a training batch like those of the run, a dict of arrays or ``(inputs, targets)``.
        validation: what is held out; none is a pitfall.
        train: all of the training data, for its statistics, and to see whether the validation data stands in it;
            without it the batch is taken.
        variables: look at these instead of newly initialised ones.
        seed: of the initial parameters and every key.
        steps: the most steps that each optimizer gets to learn the batch by heart.

    Raises:
        InputError: one of these cannot be used at all.
    """
    return _Examination(model, objective, optimizer, batch, validation, train, variables, seed, steps).run()


class _Examination:
    """What the checks share, and what they have found."""

    def __init__(
        self,
        model: Layer,
        objective: Any,
        optimizer: optax.GradientTransformation,
        batch: Any,
        validation: Any,
        train: Any,
        variables: Variables | None,
        seed: int,
        steps: int,
    ):
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps got {steps!r}, wanted an integer of at least 1")
        self.model, self.optimizer, self.most = model, optimizer, steps
        self.objective = _objective(model, objective)
        step = make_step(objective if isinstance(objective, Gradient) else self.objective, optimizer)  # pyright: ignore
        self.step: Step = step
        self.data = _dataset(batch, "batch")
        self.train = self.data if train is None else _dataset(train, "train")
        self.validation = None if validation is None else _dataset(validation, "validation")
        self.batch: Batch = dict(self.data.arrays)
        self.terms = supervised_terms(self.objective)
        first = next((term.inputs for term in self.terms), "inputs")
        self.state = init_state(model, optimizer, self.batch, seed, inputs=first, variables=variables)
        self.key = jax.random.fold_in(self.state.key, 0)
        self.findings: list[Finding] = []
        self.checked: list[str] = []
        self.skipped: list[str] = []
        self.numbers: dict[str, float] = {}

    def run(self) -> Diagnosis:
        self.look_at_data()
        if self.objective is None:
            self.skipped.append("everything that needs a loss: a gradient of no objective was given")
        elif self.look_at_targets() and jax.tree.leaves(self.state.params):
            self.look_at_training(self.objective)
        return Diagnosis(tuple(self.findings), tuple(self.checked), tuple(self.skipped), self.numbers)

    def add(self, checked: str, found: list[Finding]) -> bool:
        """Keep findings, or that there were none."""
        self.findings += found
        if not found:
            self.checked.append(checked)
        return not found

    def look_at_data(self) -> None:
        """What can be seen without the model running: scales, and what is held out."""
        for term in self.terms or [inputs_alone(self.model)]:
            if (given := entry(self.train, term.inputs)) is not None:
                self.add("the scale of the inputs", inputs.check_inputs(term.model, given, name_of(term.inputs)))
        if self.validation is None:
            self.findings.append(no_validation())
            return
        mine, theirs = (entry(data, "inputs") for data in (self.train, self.validation))
        if mine is None or theirs is None:
            self.skipped.append("whether validation overlaps training: no array is called 'inputs'")
            return
        where = "the training data" if self.train is not self.data else "the batch (give train= for all of it)"
        self.add(f"no validation example stands in {where}", rows.check_overlap(mine, theirs))

    def look_at_targets(self) -> bool:
        """Whether targets, outputs and loss belong together; if not there is no sense in going on."""
        assert self.objective is not None
        found = labels.check_shapes_and_values(self.objective, self.state.variables, self.data, "batch")
        for name, data in (("train", self.train), ("validation", self.validation)):
            if not found and data is not None and data is not self.data:
                found = labels.check_shapes_and_values(self.objective, self.state.variables, data, name)
        if found:
            self.skipped.append("whatever needs a loss that can be computed")
            return self.add("", found)
        for term in self.terms:
            targets = entry(self.train, term.targets)
            if targets is None or not check.is_array(targets):
                continue
            if labels.is_classification(term) and self.may_judge_classes(term, targets):
                found += labels.check_one_class(targets, name_of(term.targets))
            if heads.function_of(term.loss) in heads.OF_VALUES and term.targets != term.inputs:
                found += inputs.check_regression_targets(np.asarray(targets), name_of(term.targets))
        self.add("targets fit the head and the loss", found)
        return True

    def may_judge_classes(self, term: Supervised, targets: Any) -> bool:
        binary = heads.function_of(term.loss) not in heads.CLASSES
        return self.train is not self.data or len(targets) >= (IMBALANCED if binary else 2 * labels.FEW)

    def look_at_training(self, objective: Objective) -> None:
        """The checks that run the model, and those that train it, each only where those before it left sense in it."""
        bare, held = without_penalties(objective), self.layers()
        flags = evaluation.check_flags(bare, self.state.variables, self.batch, self.key, held)
        self.add("evaluation draws no key and changes no state", flags)
        if self.waits("the loss at the start, layers and training", INPUTS, TARGETS, LABELS):
            return
        looks = [layers.look(term, self.state.variables, self.batch, self.key) for term in self.terms]
        goal = None if flags else self.look_at_first_losses(bare, looks, held)
        if self.waits("layers and training", LABELS):
            return
        self.look_at_layers(bare, looks)
        if self.waits("the learning rate and learning a batch by heart", DEAD, SATURATED, VANISHING, NO_GRADIENT):
            return
        self.look_at_rate(bare, goal)
        if goal is None:
            self.skipped.append("learning a batch by heart: it is not known how low the loss should be")
            return
        self.look_at_learning(objective, goal, held)

    def waits(self, what: str, *names: str) -> bool:
        """Whether one of these has been found, which makes no sense of what follows."""
        named = [finding.name for finding in self.findings if finding.name in names]
        if named:
            self.skipped.append(f"{what}, while there is this: {named[0]}")
        return bool(named)

    @functools.cached_property
    def first_trial(self) -> trial.Trial:
        """The given step, as it is, on the batch."""
        return trial.run_trial(self.step, self.state, self.batch)

    def look_at_layers(self, bare: Objective, looks: list[layers.Look]) -> None:
        """Units, then gradients: a dead or saturated layer explains what is missing before it."""
        uses = [use for look in looks for use in look.uses]
        if not uses:
            self.skipped.append("layers: the objective is of a kind of its own, not jdl.supervised(...)")
            return
        dead, saturated = ([getattr(use, name) for use in uses] for name in ("dead", "saturated"))
        shares = {"dead": [x for x in dead if x is not None], "saturated": [x for x in saturated if x is not None]}
        self.numbers |= {name: float(max(share)) for name, share in shares.items() if share}
        found = ", ".join(f"at most {max(share):.0%} {name}" for name, share in shares.items() if share)
        if not self.add(f"the units of activations: {found or 'none can die or saturate'}", layers.check_units(uses)):
            return
        along = layers.gradient_norms(uses, self.state.params)
        if len(along) > 1 and (last := list(along.values())[-1]):
            self.numbers["gradient_ratio"] = next(iter(along.values())) / last
            said = f": its norm at the first is {self.numbers['gradient_ratio']:.2g} times that at the last"
            self.add(f"the gradient from layer to layer{said}", layers.check_gradients(along))
        still = set.intersection(*(look.still for look in looks))
        if still:  # what starts at zero lets gradients through after a step
            calm = trial.calm_trial(self.step, self.state, self.batch, self.first_trial)  # else a rate kills units
            states = self.state, calm.state
            flags = [layers.without_gradient(bare, state.variables, self.batch, self.key) for state in states]
            still = still.intersection(*flags)
        self.add("a gradient for every parameter", layers.no_gradient(still))

    def look_at_first_losses(self, bare: Objective, looks: list[layers.Look], held: set[Settings]) -> trial.Goal | None:
        """The loss of each term beside that of a model that knows nothing; what is known of the whole objective."""
        nothing = least = 0.0
        known = weighted_terms(bare)
        if known is None or any(heads.function_of(term.loss) not in heads.KNOWN for _, term in known):
            self.skipped.append("the loss at the start: what to expect is not known of a loss or objective of your own")
            known = None
        for index, (term, look) in enumerate(zip(self.terms, looks, strict=True)):
            targets, mask = (_of(self.batch, s, name) for s, name in ((term.targets, "targets"), (term.mask, "mask")))
            if not (check.is_array(look.outputs) and check.is_array(targets)):
                known = None
                continue
            last = getattr(look.uses[-1].layer, "function", None)
            head = labels.Head(term, look.outputs, np.asarray(targets), last)
            if not self.add("outputs are what the loss takes", head.findings()) or known is None:
                known = None
                continue
            expected = heads.expected_loss(term.loss, look.outputs, targets, mask)
            groups = rows.groups(select_from(self.batch, term.inputs, "inputs"))
            if expected > 0:  # else all targets are one and the same
                self.compare_first(term, expected, held)
            nothing += known[index][0] * expected
            least += known[index][0] * heads.least_loss(term.loss, look.outputs, targets, mask, groups)
        return None if known is None else trial.Goal(nothing, least)

    def compare_first(self, term: Supervised, expected: float, held: set[Settings]) -> None:
        """The loss of new weights beside the expected one: in evaluation too, unless statistics are still to come."""
        band = HIGH_ERROR if heads.function_of(term.loss) in heads.OF_VALUES else HIGH_LOSS
        losses = {"training": in_training(term, self.state.variables, self.batch, self.key)}
        if not any(isinstance(layer, BatchNorm) for layer in held):
            losses["evaluation"] = evaluate(term, self.state.variables, self.batch)
        worst = max(losses, key=lambda mode: np.nan_to_num(losses[mode], nan=np.inf))
        found = []
        self.numbers["first_loss"] = max(losses[worst] / expected, self.numbers.get("first_loss", 0.0))
        if not losses[worst] <= band * expected:
            words = f"{losses[worst]:.3g} in {worst}, where a model that knows nothing has {expected:.3g}"
            why = "The weights are sure of something wrong: the first steps only unlearn that, and may kill units."
            fix = "He or Glorot initialisation, a last layer near zero; a last bias of the mean or the log prior"
            found = [Finding(FIRST_LOSS, words, why, fix, "", {"expected": expected, **losses})]
        self.add(f"the loss at the start, {losses['training']:.3g} beside an expected {expected:.3g}", found)

    def look_at_rate(self, bare: Objective, goal: trial.Goal | None) -> None:
        """The learning rate, by the first trial."""
        first = self.first_trial
        start, nothing, learned = float(first.losses[0]), 0.0, False
        if goal is not None:
            score = in_training(bare, self.state.variables, self.batch, self.key)
            nothing, learned = goal.nothing + start - score, goal.share(score) < 0.5
        self.numbers["update_ratio"] = first.ratio
        if not np.isfinite(start):
            self.skipped.append(f"the learning rate: the loss is {start} before the first update")
            return
        ceiling = trial.RISES * max(start, nothing)
        found = trial.check_rate(self.step, self.state, self.batch, first, ceiling, learned)
        self.add(f"the learning rate: updates are {first.ratio:.1e} of the weights", found)

    def look_at_learning(self, objective: Objective, goal: trial.Goal, held: set[Settings]) -> None:
        """Whether the batch can be learned by heart, and what evaluation then says of it."""
        if goal.nothing - goal.least < 0.1 * goal.nothing:
            self.skipped.append("learning a batch by heart: its targets contradict each other or are all the same")
            return
        bare, sane = without_penalties(objective), trial.sane_ways(objective, self.state)
        own = [trial.Way("the given optimizer", self.step, self.state, other=False)]
        own.append(trial.Way("updates 10 times as large", self.step, self.state, 10.0))
        way, done, loss = trial.learn_by_heart([*own, *sane], bare, self.batch, goal, self.most)
        least = f" (the least possible is {goal.least:.3g})" if goal.least > 0.01 * goal.nothing else ""
        if goal.share(loss) < trial.LEARNED:
            self.checked.append(
                f"the batch is learned by heart: a loss of {loss:.3g}{least} after {done} steps{way.said}"
            )
            self.numbers["learned_after"] = done
        elif self.lacks_room(bare, sane, goal, loss):
            self.checked.append(
                f"the batch is learned in part, to a loss of {loss:.3g}{least}{way.said}; fewer examples are whole"
            )
        else:
            self.findings.append(trial.not_overfitted(len(self.data), way.name, self.most, loss, goal))
            return
        self.compare_modes(bare, goal, way, done, held)

    def lacks_room(self, bare: Objective, sane: list[trial.Way], goal: trial.Goal, loss: float) -> bool:
        """Whether a small model learns some of the batch, and all of fewer examples: too few weights, and no fault."""
        if goal.share(loss) >= trial.NOTHING:
            return False
        widths = [np.prod(np.shape(_of(self.batch, term.targets, "targets"))[1:]) for term in self.terms]
        size = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        few = max(2, min(trial.TOGETHER, int(size / (4 * max(1, *widths))), len(self.data) // 2))
        part = self.data.gather(np.arange(few))
        return goal.share(trial.learn_by_heart(sane, bare, part, goal, self.most)[2]) < trial.LEARNED

    def compare_modes(self, bare: Objective, goal: trial.Goal, way: trial.Way, done: int, held: set[Settings]) -> None:
        """The loss in both modes, after running statistics have had time to follow."""
        program, state = trial.trial_program(way.step), way.state
        if jax.tree.leaves(state.state):
            for _ in range(ENOUGH - done):
                state, _, _ = program(state, self.batch, jnp.float32(0))  # a training pass that moves no parameter
            done = max(done, ENOUGH)
        trained = in_training(bare, state.variables, self.batch, self.key)
        evaluated = evaluate(bare, state.variables, self.batch)
        found = evaluation.check_distance(trained, evaluated, goal, done, held)
        self.add(
            f"after training on it, the batch has a loss of {trained:.3g} in training, {evaluated:.3g} in evaluation",
            found,
        )

    def layers(self) -> set[Settings]:
        """The layers of the model in training; none where it does not take the batch's inputs."""
        try:
            selector = self.terms[0].inputs if self.terms else "inputs"
            positional, named = model_inputs(select_from(self.batch, selector, "inputs"))
            return {call.layer for call in trace(self.model, positional, named, train=True).calls}
        except InputError:
            return set()


def _objective(model: Layer, objective: Any) -> Objective | None:
    if not isinstance(model, Layer):
        raise InputError(f"model got {check.describe(model)}, wanted a layer such as nn.Chain(nn.Dense(10))")
    found = objective
    while isinstance(found, Gradient):
        found = getattr(found, "objective", getattr(found, "gradient", None))
    return found if found is None or isinstance(found, Objective) else supervised(model, found)


def _dataset(data: Any, name: str) -> Dataset:
    try:
        return Dataset.of(data)
    except InputError as error:
        raise InputError(error.message, name) from None


def _of(batch: Batch, selector: Any, name: str) -> Any:
    return select_from(batch, selector, name, optional=name == "mask")

"""What is measured, against closed forms, NumPy and PyTorch; reports, bad input, and the models as shipped."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import losses, nn
from jdl.check import InputError
from jdl.diagnosis import findings as name
from jdl.diagnosis import heads, layers, rows, trial
from tests.networks import batch_of, classify

LABELS = np.array([0, 2, 1, 1, 0, 2, 2, 0])
REAL = np.random.default_rng(3).normal(2.0, 3.0, (8, 1)).astype(np.float32)
LOGITS, ONE = np.zeros((8, 3), np.float32), np.zeros((8, 1), np.float32)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "expected"),
    [
        (losses.cross_entropy, LOGITS, LABELS, math.log(3)),
        (losses.configured(losses.cross_entropy, label_smoothing=0.2), LOGITS, LABELS, math.log(3)),
        (losses.configured(losses.cross_entropy, reduction="sum"), LOGITS, LABELS, 8 * math.log(3)),
        (losses.cross_entropy_on_probabilities, LOGITS, LABELS, math.log(3)),
        (losses.focal, LOGITS, LABELS, (2 / 3) ** 2 * math.log(3)),
        (losses.binary_cross_entropy, ONE, LABELS % 2, math.log(2)),
        (losses.binary_cross_entropy_on_probabilities, ONE, LABELS % 2, math.log(2)),
        (losses.hinge, ONE, 2 * (LABELS % 2) - 1, 1.0),
        (losses.mse, ONE, REAL, REAL.var()),
        (losses.mae, ONE, REAL, np.abs(REAL - np.median(REAL)).mean()),
    ],
)
def test_expected_loss(loss, outputs, targets, expected: float):
    assert heads.expected_loss(loss, outputs, targets, None) == pytest.approx(expected, rel=1e-5)


def test_least_loss_of_targets_that_contradict():
    # Rows 0, 1, 2 have one input and labels 0, 2, 1; rows 3 and 4 another one, with labels 1 and 0.
    groups = np.array([0, 0, 0, 3, 3, 5, 6, 7])
    entropy = (3 * math.log(3) + 2 * math.log(2)) / 8
    assert heads.least_loss(losses.cross_entropy, LOGITS, LABELS, None, groups) == pytest.approx(entropy, abs=1e-5)
    variance = np.mean(
        np.concatenate([REAL[:3] - REAL[:3].mean(), REAL[3:5] - REAL[3:5].mean(), np.zeros((3, 1))]) ** 2
    )
    assert heads.least_loss(losses.mse, ONE, REAL, None, groups) == pytest.approx(variance, rel=1e-5)
    ones = heads.least_loss(losses.binary_cross_entropy, ONE, LABELS % 2, None, groups)
    p = 1 / 3  # of labels 0, 0, 1; then of 1, 0
    assert ones == pytest.approx((-3 * (p * math.log(p) + 2 * p * math.log(2 * p)) + 2 * math.log(2)) / 8, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_least_loss_of_smoothed_labels_is_their_entropy(smoothing: float):
    loss = losses.configured(losses.cross_entropy, label_smoothing=smoothing)
    found = heads.least_loss(loss, LOGITS, LABELS, None, np.arange(8))
    rest = smoothing / 3
    entropy = -sum(p * math.log(p) for p in (1 - smoothing + rest, rest, rest) if p)
    assert found == pytest.approx(entropy, abs=1e-5)


@pytest.mark.slow
def test_layers_against_pytorch_and_numpy():
    torch = pytest.importorskip("torch")
    model = nn.Chain(nn.Dense(6), jax.nn.relu, nn.Dense(5), jnp.tanh, nn.Dense(3))
    batch = batch_of(size=7)
    variables = model.init(jax.random.key(1), batch["inputs"])
    params = jax.tree.map(lambda leaf: 3 * leaf, variables.params)  # so that some units die and some saturate
    params["0"]["bias"] = params["0"]["bias"].at[:2].set(-50.0)
    look = layers.look(classify(model), jdl.Variables(params, {}), batch, jax.random.key(0))
    seen = {use.path: use for use in look.uses}

    x, outputs = torch.tensor(np.asarray(batch["inputs"])), {}
    for path, activation in (("0", torch.relu), ("2", torch.tanh), ("4", None)):
        weights = {key: torch.tensor(np.asarray(leaf)) for key, leaf in params[path].items()}
        outputs[path] = (x @ weights["kernel"] + weights["bias"]).requires_grad_()
        outputs[path].retain_grad()
        x = outputs[path] if activation is None else activation(outputs[path])
    torch.nn.functional.cross_entropy(x, torch.tensor(np.asarray(batch["targets"])).long()).backward()
    for path, output in outputs.items():
        assert seen[path].gradient == pytest.approx(float(output.grad.norm()), rel=1e-4)
    assert list(layers.gradient_norms(look.uses, params)) == ["0", "2", "4"]

    hidden = np.maximum(outputs["0"].detach().numpy(), 0)
    assert seen["1"].dead == pytest.approx((hidden == 0).all(axis=0).mean()) and seen["1"].dead >= 2 / 6
    flat = 1 - np.tanh(outputs["2"].detach().numpy()) ** 2 < 0.05
    assert seen["3"].saturated == pytest.approx((flat.mean(axis=0) > 0.5).mean())
    np.testing.assert_allclose(look.outputs, x.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert look.still == set()


def test_the_ratio_of_updates_to_weights():
    """With plain descent it is the rate times the norm of the gradient over that of the weights."""
    model, batch = nn.Dense(3), batch_of()
    step = jdl.make_step(classify(model), optax.sgd(0.1))
    state = jdl.init_state(model, step.optimizer, batch)
    gradient = jdl.gradient(classify(model))(*state.variables, batch, None)[0]["kernel"]
    for factor in (1.0, 10.0):
        run = trial.run_trial(step, state, batch, factor, steps=1)
        wanted = 0.1 * factor * np.linalg.norm(gradient) / np.linalg.norm(state.params["kernel"])
        assert run.ratios[0] == pytest.approx(wanted, rel=1e-4)
    still = trial.run_trial(step, state, batch, 0.0, steps=2)
    np.testing.assert_array_equal(still.state.params["kernel"], state.params["kernel"])


@pytest.mark.slow
def test_contradicting_targets_are_no_finding():
    """Each input stands twice with other labels: nothing can be learned of these, and that is said."""
    batch = batch_of(size=16)
    batch = {
        "inputs": np.tile(batch["inputs"], (2, 1)),
        "targets": np.concatenate([np.zeros(16, int), np.ones(16, int)]),
    }
    model = nn.Chain(nn.Dense(32), jax.nn.relu, nn.Dense(3))
    found = jdl.diagnose(model, losses.cross_entropy, optax.adam(1e-3), batch, validation=batch_of(seed=9))
    assert list(found) == []
    assert any("the least possible is 0.693" in line for line in found.checked)


def diagnose(**changed):
    given = {"model": nn.Dense(3), "objective": losses.cross_entropy, "optimizer": optax.sgd(0.1), "batch": batch_of()}
    return jdl.diagnose(**(given | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": jnp.tanh}, "model got .*, wanted a layer"),
        ({"objective": "mse"}, "loss got 'mse', wanted a function"),
        ({"optimizer": 0.1}, "wanted an optax optimizer"),
        ({"batch": [1, 2]}, "in batch: data got list"),
        ({"batch": {"targets": np.zeros(4)}}, "the batch holds .* and no 'inputs'"),
        ({"validation": "digits"}, "in validation: data got str"),
        ({"train": 3}, "in train: data got int"),
        ({"steps": 0}, "steps got 0, wanted an integer of at least 1"),
        ({"variables": {"params": {}}}, "wanted Variables"),
        ({"batch": {"inputs": np.full((4, 2), np.nan), "targets": np.zeros(4, int)}}, "NaN"),
    ],
)
def test_bad_input_is_refused(changed: dict, message: str):
    with pytest.raises(InputError, match=message):
        diagnose(**changed)


def test_a_gradient_of_no_objective_is_looked_at_as_far_as_it_goes():
    found = diagnose(objective=jdl.vector_field(lambda params, state, batch, key: (params, None)))
    assert found.names == (name.NO_VALIDATION,)
    assert any("needs a loss" in line for line in found.skipped)


def test_the_report():
    finding = jdl.Finding("dead units", "60% of the units", "They never change.", "leaky_relu", "1", {"share": 0.6})
    report = jdl.diagnosis.Diagnosis((finding, finding), ("the scale of the inputs",), ("the rest",))
    assert str(report).splitlines() == [
        "2 pitfalls found",
        "",
        "1. dead units (1)",
        "  measured  60% of the units",
        "  why       They never change.",
        "  try       leaky_relu",
        "",
        "2. dead units (1)",
        "  measured  60% of the units",
        "  why       They never change.",
        "  try       leaky_relu",
        "",
        "checked:",
        "  - the scale of the inputs",
        "",
        "not checked:",
        "  - the rest",
    ]
    assert (len(report), report[0], report.names, report.findings[1:]) == (2, finding, ("dead units",), report[1:])
    assert str(jdl.Diagnosis(())) == "no pitfalls found" and not jdl.Diagnosis(())
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.name = ""


def test_every_name_stands_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "api" / "diagnosis.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(name.NAMES)


def test_hundreds_of_rows_are_grouped_as_numpy_does():
    table = np.random.default_rng(0).integers(0, 3, (300, 4))
    _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(rows.groups(table), first[inverse.reshape(-1)])

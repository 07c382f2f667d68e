"""Objectives add and scale, report what they hold, and refuse what they cannot use."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from tests.networks import batch_of, classify, mlp

MODEL, BATCH = mlp(), batch_of()
KEY = jax.random.key(0)
VARIABLES = MODEL.init(jax.random.key(0), BATCH["inputs"])


def loss_of(objective: jdl.Objective, batch=BATCH, train: bool = True) -> float:
    return float(objective(*VARIABLES, batch, jax.random.key(1), train)[0])


def weights(*names: str) -> list[np.ndarray]:
    return [np.asarray(VARIABLES.params[layer]["kernel"], np.float64) for layer in names]


def test_supervised_is_the_mean_loss_of_the_outputs():
    logits = np.asarray(MODEL(VARIABLES, BATCH["inputs"]), np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -log_softmax[np.arange(12), np.asarray(BATCH["targets"])].mean()
    assert loss_of(classify(MODEL)) == pytest.approx(expected, rel=1e-5)


def test_penalties_are_plain_sums_over_the_selected_parameters():
    first, second = weights("0", "2")
    assert loss_of(jdl.l2("**/kernel")) == pytest.approx((first**2).sum() + (second**2).sum(), rel=1e-5)
    assert loss_of(jdl.l1("0/kernel")) == pytest.approx(np.abs(first).sum(), rel=1e-5)
    assert loss_of(jdl.l2()) == pytest.approx(loss_of(jdl.l2("**")))


def test_objectives_form_a_vector_space():
    a, b = classify(MODEL), jdl.l2("**/kernel")
    assert loss_of(a + 0.1 * b) == pytest.approx(loss_of(a) + 0.1 * loss_of(b), rel=1e-6)
    assert loss_of(2 * a * 0.5 + b) == pytest.approx(loss_of(b + a), rel=1e-6)
    assert a + 0.1 * b == classify(mlp()) + 0.1 * jdl.l2("**/kernel"), "equal settings are equal values"
    assert hash(a + 0.1 * b) == hash(classify(mlp()) + 0.1 * jdl.l2("**/kernel"))
    with pytest.raises(TypeError):
        a + 1.0  # a number is no objective
    with pytest.raises(TypeError):
        a * b


def test_the_report_names_every_metric_and_the_total():
    objective = classify(MODEL, metrics=[jdl.metrics.accuracy]) + 1e-2 * jdl.l2("**/kernel")
    loss, aux = objective(*VARIABLES, BATCH, None, False)
    report = aux.report
    assert set(report) == {"loss", "accuracy", "l2"}
    assert float(report["loss"]) == pytest.approx(float(loss))
    assert float(report["l2"]) == pytest.approx(loss_of(jdl.l2("**/kernel")))
    picked = np.asarray(MODEL(VARIABLES, BATCH["inputs"])).argmax(-1)
    assert float(report["accuracy"]) == pytest.approx((picked == np.asarray(BATCH["targets"])).mean())


def test_scores_are_gathered_in_evaluation_only():
    score = nn.Chain(nn.Dense(1))
    batch = BATCH | {"targets": (BATCH["targets"] > 0).astype(jnp.int32)}
    objective = jdl.supervised(score, jdl.losses.binary_cross_entropy, metrics=[jdl.metrics.roc_auc])
    variables = score.init(jax.random.key(0), batch["inputs"])
    assert set(objective(*variables, batch, None, True)[1].report) == {"loss"}
    assert set(objective(*variables, batch, None, False)[1].report) == {"loss", "roc_auc"}


def test_selectors_read_any_entry_or_compute_one():
    batch = {"image": BATCH["inputs"], "label": BATCH["targets"]}
    by_name = classify(MODEL, inputs="image", targets="label")
    computed = classify(MODEL, inputs=lambda b: b["image"], targets=lambda b: b["label"])
    assert loss_of(by_name, batch) == loss_of(computed, batch) == loss_of(classify(MODEL))


class Difference(nn.Layer):
    def forward(self, net, a, b):
        return net.child("head", nn.Dense(3))(a - b)


@pytest.mark.parametrize("pack", [lambda a, b: (a, b), lambda a, b: {"b": b, "a": a}], ids=["tuple", "dict"])
def test_inputs_that_are_a_tuple_or_dict_become_arguments(pack):
    x = BATCH["inputs"]
    batch = BATCH | {"inputs": pack(x, 3 * x)}
    model = Difference()
    variables = model.init(jax.random.key(0), x, x)
    loss, _ = classify(model)(*variables, batch, None, False)
    head = nn.Chain(head=nn.Dense(3))
    expected, _ = classify(head)(*variables, BATCH | {"inputs": -2 * x}, None, False)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("selector", ["weights", lambda batch: batch["weights"]], ids=["name", "function"])
def test_evaluation_leaves_padding_out_whatever_selects_the_mask(selector):
    data = {**jax.tree.map(np.asarray, BATCH), "weights": np.arange(12, dtype=np.float32)}
    objective = classify(MODEL, mask=selector)
    whole, _ = objective(*VARIABLES, data, None, False)
    assert jdl.evaluate(objective, VARIABLES, data, batch_size=5)["loss"] == pytest.approx(float(whole), rel=1e-6)


def test_evaluation_of_a_sum_is_the_sum_of_its_means():
    data = jax.tree.map(np.asarray, BATCH)
    objective = classify(MODEL) + 0.5 * jdl.supervised(MODEL, squared_sum) + 1e-2 * jdl.l2()
    whole, _ = objective(*VARIABLES, data, None, False)
    for size in (5, 11, 12):
        assert jdl.evaluate(objective, VARIABLES, data, size)["loss"] == pytest.approx(float(whole), rel=1e-6)


class Draws(jdl.Objective):
    def __call__(self, params, state, batch, key, train):
        loss = jax.random.normal(key)
        return loss, jdl.Aux(loss, None, state, {})


def test_terms_of_a_sum_draw_different_numbers():
    a, b, c = Draws(), Draws(), Draws()
    total = [float((a + b + c)({}, {}, {}, KEY, True)[0]), float((a + (b + c))({}, {}, {}, KEY, True)[0])]
    single = float(a({}, {}, {}, KEY, True)[0])
    keys = [jax.random.fold_in(KEY, i) for i in (1, 2)]
    assert total[0] == pytest.approx(single + sum(float(jax.random.normal(k)) for k in keys), rel=1e-6)
    assert abs(total[1] - 3 * single) > 1e-3


def swallows(outputs, targets, **unused):
    return jnp.mean(jnp.square(outputs[..., 0] - targets))


def test_a_mask_is_not_swallowed():
    batch = BATCH | {"targets": BATCH["targets"].astype(jnp.float32), "mask": jnp.arange(12) < 5}
    assert loss_of(jdl.supervised(MODEL, swallows), batch) == pytest.approx(
        loss_of(jdl.supervised(MODEL, squared), batch)
    )


def test_objectives_pickle():
    objective = classify(MODEL) + 1e-4 * jdl.l2("**/kernel") + jdl.l1()
    assert pickle.loads(pickle.dumps(objective)) == objective


def squared_sum(outputs, targets, mask=None):
    return jdl.losses.mse(outputs.sum(-1), targets.astype(jnp.float32), mask=mask)


def squared(outputs, targets):  # takes no mask
    return jnp.mean((outputs[..., 0] - targets) ** 2)


def test_a_loss_without_a_mask_is_averaged_example_by_example():
    batch = BATCH | {"targets": BATCH["targets"].astype(jnp.float32), "mask": jnp.array([1.0] * 5 + [0.5] + [0.0] * 6)}
    loss, aux = jdl.supervised(MODEL, squared)(*VARIABLES, batch, None, False)
    each = (np.asarray(MODEL(VARIABLES, batch["inputs"]))[:, 0] - np.asarray(batch["targets"])) ** 2
    mask = np.asarray(batch["mask"])
    assert float(loss) == pytest.approx((mask * each).sum() / mask.sum(), rel=1e-5)
    assert float(aux.weight) == 5.5


def test_the_mask_reaches_loss_metrics_and_weight():
    mask = jnp.array([1.0] * 7 + [0.0] * 5)
    few = {name: value[:7] for name, value in BATCH.items()}
    objective = classify(MODEL, metrics=[jdl.metrics.accuracy])
    loss, aux = objective(*VARIABLES, BATCH | {"mask": mask}, None, False)
    expected, expected_aux = objective(*VARIABLES, few, None, False)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(aux.report["accuracy"]) == pytest.approx(float(expected_aux.report["accuracy"]))
    assert float(aux.weight) == 7


def named_loss(outputs, targets, mask=None):
    return jnp.zeros(())


named_loss.__name__ = "loss"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jdl.supervised(jnp.tanh, jdl.losses.mse), "model got .*wanted a layer"),
        (lambda: jdl.supervised(MODEL, "mse"), "loss got 'mse', wanted a function"),
        (lambda: classify(MODEL, metrics=[jdl.metrics.accuracy] * 2), "accuracy.* twice"),
        (lambda: classify(MODEL, metrics=[named_loss]), "loss is always the total"),
        (lambda: loss_of(jdl.l2("**/kernel") + jdl.l2("**/bias")), "report the metrics .*l2.*another name="),
        (lambda: loss_of(jdl.l2("**/kernl")), r"'\*\*/kernl' matches none of 4 paths.*kernel"),
        (lambda: loss_of(classify(MODEL), {"inputs": BATCH["inputs"]}), "holds .*inputs.* and no 'targets'"),
        (lambda: loss_of(classify(MODEL), (BATCH["inputs"], BATCH["targets"])), "batch got .*wanted a dict"),
        (
            lambda: loss_of(jdl.supervised(MODEL, jdl.losses.configured(jdl.losses.cross_entropy, reduction="none"))),
            "wanted a scalar; use reduction='mean'",
        ),
        (
            lambda: loss_of(jdl.supervised(MODEL, squared), BATCH | {"mask": jnp.ones((12, 2))}),
            r"squared takes no mask, and this one is float32\[12, 2\], not one weight an example; give it .*mask=None",
        ),
        (lambda: loss_of(classify(MODEL), BATCH | {"targets": BATCH["targets"][:5]}), "batch"),
        (lambda: loss_of(classify(MODEL), BATCH | {"targets": BATCH["targets"] + 2}), "4|range"),
        (lambda: loss_of(classify(MODEL), BATCH | {"targets": BATCH["targets"].astype(jnp.float32)}), "float32"),
        (lambda: loss_of(classify(MODEL), BATCH | {"inputs": jnp.ones((12, 5), jnp.int32)}), "floating"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()

"""Metrics against scikit-learn, and their states as sums: any batch size, padding, merging, devices, the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from sklearn import metrics as reference

from jdl import losses, metrics
from jdl.check import InputError
from jdl.metrics.classification import Perplexity

N, CLASSES = 23, 4
rng = np.random.default_rng(7)
LABELS = rng.integers(0, CLASSES - 1, N).astype(np.int32)  # class 3 is never present, sometimes decided
LOGITS = (2 * np.eye(CLASSES)[LABELS] + rng.normal(size=(N, CLASSES)) * 1.5).astype(np.float32)
BITS = rng.integers(0, 2, N).astype(np.int32)
SCORES = np.round(BITS + rng.normal(size=N) - 0.5, 1).astype(np.float32)  # rounded, so that some tie
VALUES = rng.normal(size=(N, 2)).astype(np.float32) + np.array([50.0, -3.0], np.float32)
PREDICTED = (VALUES + 0.5 * rng.normal(size=(N, 2))).astype(np.float32)
WEIGHTS = (rng.uniform(0.5, 2.0, N) * (rng.uniform(size=N) > 0.2)).astype(np.float32)


def decided(score: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda x, t, w: score(t, x.argmax(-1), sample_weight=w, **options)


def of_classes(score: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return decided(score, zero_division=0, **options)


def of_bits(score: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda x, t, w: score(t, x > 0, sample_weight=w, **options)


def of_values(score: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, t, w: score(t, x, sample_weight=w)


def top_2(x: Any, t: Any, w: Any) -> Any:
    return reference.top_k_accuracy_score(t, x, k=2, sample_weight=w, labels=range(CLASSES))


def perplexity(x: Any, t: Any, w: Any) -> Any:
    p = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True)
    return np.exp(reference.log_loss(t, p, sample_weight=w, labels=range(CLASSES)))


def per_class(name: str) -> Any:
    return metrics.configured(getattr(metrics, name), average=None, name=f"{name}_of_each")


LABELLED, BINARY, REAL = (LOGITS, LABELS), (SCORES, BITS), (PREDICTED, VALUES)
ALL = {"average": None, "labels": range(CLASSES)}

# name: (metric, (outputs, targets), scikit-learn's of (outputs, targets, weights))
TABLE: dict[str, tuple[Any, tuple[np.ndarray, np.ndarray], Callable[..., Any]]] = {
    "accuracy": (metrics.accuracy, LABELLED, decided(reference.accuracy_score)),
    "accuracy, binary": (metrics.accuracy, BINARY, of_bits(reference.accuracy_score)),
    "top_2": (metrics.top_k(2), LABELLED, top_2),
    "precision": (metrics.precision, LABELLED, of_classes(reference.precision_score, average="macro")),
    "precision, binary": (metrics.precision, BINARY, of_bits(reference.precision_score)),
    "precision, each": (per_class("precision"), LABELLED, of_classes(reference.precision_score, **ALL)),
    "recall": (metrics.recall, LABELLED, of_classes(reference.recall_score, average="macro")),
    "recall, binary": (metrics.recall, BINARY, of_bits(reference.recall_score)),
    "recall, each": (per_class("recall"), LABELLED, of_classes(reference.recall_score, **ALL)),
    "f1": (metrics.f1, LABELLED, of_classes(reference.f1_score, average="macro")),
    "f1, binary": (metrics.f1, BINARY, of_bits(reference.f1_score)),
    "f1, micro": (
        metrics.configured(metrics.f1, average="micro"), LABELLED, of_classes(reference.f1_score, average="micro")
    ),
    "f1, each": (per_class("f1"), LABELLED, of_classes(reference.f1_score, **ALL)),
    "confusion_matrix": (
        metrics.confusion_matrix, LABELLED,
        decided(reference.confusion_matrix, labels=range(CLASSES)),
    ),
    "confusion_matrix, binary": (metrics.confusion_matrix, BINARY, of_bits(reference.confusion_matrix)),
    "mse": (metrics.mse, REAL, of_values(reference.mean_squared_error)),
    "mae": (metrics.mae, REAL, of_values(reference.mean_absolute_error)),
    "r2": (metrics.r2, REAL, of_values(reference.r2_score)),
    "perplexity": (metrics.perplexity, LABELLED, perplexity),
    "roc_auc": (metrics.roc_auc, BINARY, lambda x, t, w: reference.roc_auc_score(t, x, sample_weight=w)),
}  # fmt: skip
every_metric = pytest.mark.parametrize("name", TABLE)


@functools.cache
def compiled(name: str) -> Callable[..., Any]:
    return jax.jit(TABLE[name][0])


def state_of(name: str, first: int, last: int, weights: np.ndarray = WEIGHTS, padded_to: int | None = None) -> Any:
    """The state, on the host, of examples ``first`` to ``last``, padded with garbage and masked."""
    outputs, targets = (x[first:last] for x in TABLE[name][1])
    weights, padding = weights[first:last], (padded_to or last - first) - (last - first)
    if padding:
        outputs = np.concatenate([outputs, np.full((padding, *outputs.shape[1:]), 9.0, np.float32)])
        targets = np.concatenate([targets, np.full((padding, *targets.shape[1:]), -100, targets.dtype)])
        weights = np.concatenate([weights, np.zeros(padding, np.float32)])
    return jax.device_get(compiled(name)(outputs, targets, weights))


def merged(name: str, size: int, weights: np.ndarray = WEIGHTS) -> Any:
    return sum(state_of(name, first, min(first + size, N), weights, size) for first in range(0, N, size))


def assert_close(value: Any, wanted: Any) -> None:
    value, wanted = np.asarray(value), np.asarray(wanted)
    assert value.shape == wanted.shape
    np.testing.assert_allclose(value, wanted, rtol=2e-6, atol=1e-6)


@every_metric
def test_scikit_learn_agrees(name: str) -> None:
    metric, (outputs, targets), wanted = TABLE[name]
    assert_close(metric(jnp.asarray(outputs), jnp.asarray(targets)).compute(), wanted(outputs, targets, None))
    assert_close(state_of(name, 0, N).compute(), wanted(outputs, targets, WEIGHTS))


@every_metric
def test_any_batch_size_with_a_padded_last_batch_is_exact(name: str) -> None:
    _, (outputs, targets), wanted = TABLE[name]
    for size in (1, 2, 5, 16, N, N + 3):
        assert_close(merged(name, size).compute(), wanted(outputs, targets, WEIGHTS))


@every_metric
@given(cuts=st.tuples(st.integers(0, N), st.integers(0, N)), hidden=st.sets(st.integers(0, N - 1)))
def test_merging_is_associative(name: str, cuts: tuple[int, int], hidden: set[int]) -> None:
    """Also with parts of weight 0."""
    weights = np.where(np.isin(np.arange(N), list(hidden)), 0, WEIGHTS).astype(np.float32)
    first, last = sorted(cuts)
    a, b, c = (  # one shape, one compilation
        state_of(name, 0, N, np.where((low <= np.arange(N)) & (np.arange(N) < high), weights, 0).astype(np.float32))
        for low, high in ((0, first), (first, last), (last, N))
    )
    left, right = (a + b) + c, a + (b + c)
    whole = state_of(name, 0, N, weights)
    assert_close(left.compute(), right.compute())
    assert_close(left.compute(), whole.compute())


@pytest.mark.parametrize("name", [name for name in TABLE if name != "roc_auc"])
def test_a_scan_carries_and_vmap_maps_states(name: str) -> None:
    metric, (outputs, targets), _ = TABLE[name]

    def batches(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x[:20].reshape(4, 5, *x.shape[1:]))

    @jax.jit
    def run(*batches: jax.Array) -> Any:
        zero = jax.tree.map(jnp.zeros_like, metric(*(x[0] for x in batches)))
        scanned, _ = jax.lax.scan(lambda state, batch: (state + metric(*batch), None), zero, batches)
        mapped = jax.vmap(metric)(*batches)
        reduced = jax.vmap(lambda *batch: metrics.all_reduce({"m": metric(*batch)}, "i")["m"], axis_name="i")(*batches)
        first = jax.tree.map(lambda x: x[0], mapped)
        return scanned.compute(), first.compute(), jax.tree.map(lambda x: x[3], reduced).compute()

    scanned, first, reduced = run(batches(outputs), batches(targets), batches(WEIGHTS))
    assert_close(scanned, state_of(name, 0, 20).compute())
    assert_close(reduced, state_of(name, 0, 20).compute())
    assert_close(first, state_of(name, 0, 5).compute())


def test_all_devices_together() -> None:
    """States of two devices' halves, reduced inside shard_map, are the state of the whole."""
    devices = jax.devices()[:2]
    if len(devices) < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    names = ["accuracy", "f1", "r2", "perplexity", "roc_auc"]

    def run(weighted: bool, batch: dict[str, Any], weights: jax.Array) -> Any:
        mask = weights if weighted else None
        return metrics.all_reduce({name: TABLE[name][0](*batch[name], mask) for name in names}, "data")

    batch = {name: tuple(x[:22] for x in TABLE[name][1]) for name in names}
    for weighted in (True, False):
        spec = {"in_specs": PartitionSpec("data"), "out_specs": PartitionSpec()}
        states = jax.jit(jax.shard_map(functools.partial(run, weighted), mesh=mesh, **spec))(batch, WEIGHTS[:22])
        for name in names:
            wanted = state_of(name, 0, 22, WEIGHTS if weighted else np.ones(N, np.float32))
            assert_close(states[name].compute(), wanted.compute())


@every_metric
def test_a_mask_of_bools_and_low_precision_outputs(name: str) -> None:
    metric, (outputs, targets), _ = TABLE[name]
    half = jnp.asarray(outputs).astype(jnp.bfloat16)

    @jax.jit
    def run(weights: jax.Array) -> Any:
        full = metric(half.astype(jnp.float32), jnp.asarray(targets), (weights > 0).astype(jnp.float32))
        return metric(half, jnp.asarray(targets), weights > 0), full

    ours, wanted = run(WEIGHTS)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_shapes_that_mean_the_same() -> None:
    one_hot = np.eye(CLASSES, dtype=np.float32)[LABELS]
    for metric in (metrics.accuracy, metrics.top_k(2), metrics.f1, metrics.confusion_matrix):
        expected = metric(LOGITS, LABELS).compute()
        np.testing.assert_array_equal(metric(LOGITS, one_hot).compute(), expected)
        tokens = metric(LOGITS[:22].reshape(2, 11, CLASSES), LABELS[:22].reshape(2, 11), np.ones((2, 11), bool))
        np.testing.assert_array_equal(tokens.compute(), metric(LOGITS[:22], LABELS[:22]).compute())
    for metric in (metrics.accuracy, metrics.f1, metrics.roc_auc):
        expected = metric(SCORES, BITS, WEIGHTS).compute()
        for outputs, targets in ((SCORES[:, None], BITS), (SCORES[:, None], BITS[:, None]), (SCORES, 2 * BITS - 1)):
            np.testing.assert_array_equal(metric(outputs, targets, WEIGHTS).compute(), expected)


def test_top_k_takes_the_first_of_equal_logits() -> None:
    flat, labels = jnp.zeros((4, 4)), jnp.arange(4)
    assert [float(metrics.top_k(k)(flat, labels)) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]
    assert float(metrics.top_k(1)(LOGITS, LABELS)) == float(metrics.accuracy(LOGITS, LABELS))
    assert float(metrics.top_k(2)(flat.at[:].set(jnp.nan), labels)) < 1.0


def test_r2_of_a_large_mean_keeps_its_digits() -> None:
    """The textbook sum of squares minus the squared mean has no correct digit left here, in float32."""
    targets = (10_000 + rng.normal(size=(64, 1))).astype(np.float32)
    outputs = targets + 0.5 * rng.normal(size=(64, 1)).astype(np.float32)
    states = [jax.device_get(metrics.r2(outputs[i : i + 8], targets[i : i + 8])) for i in range(0, 64, 8)]
    wanted = reference.r2_score(targets.astype(np.float64), outputs.astype(np.float64))
    np.testing.assert_allclose(sum(states[1:], states[0]).compute(), wanted, rtol=1e-4)
    constant = np.ones(4, np.float32)
    assert float(metrics.r2(constant, constant)) == reference.r2_score(constant, constant)
    assert float(metrics.r2(2 * constant, constant)) == reference.r2_score(constant, 2 * constant)


def test_roc_auc_of_many_ties_and_of_one_class() -> None:
    scores = rng.integers(0, 12, 5000).astype(np.float32)
    labels = (rng.uniform(size=5000) < (scores + 3) / 18).astype(np.int32)
    weights = rng.uniform(size=5000).astype(np.float32)
    wanted = reference.roc_auc_score(labels, scores, sample_weight=weights)
    state = metrics.roc_auc(scores, labels, weights)
    assert abs(float(state) - wanted) < 1e-6
    assert abs(jax.jit(lambda s: s.compute())(state) - wanted) < 1e-6
    assert np.isnan(float(metrics.roc_auc(scores, np.ones(5000, np.int32))))
    assert np.isnan(float(metrics.roc_auc(np.full(4, np.nan, np.float32), BITS[:4])))


def test_gathering_metrics_say_so() -> None:
    assert metrics.roc_auc.gathers
    assert not any(getattr(metric, "gathers", False) for name, (metric, *_) in TABLE.items() if name != "roc_auc")


@pytest.mark.parametrize("name", ["accuracy", "mse", "r2", "perplexity", "f1", "roc_auc"])
def test_nothing_counted_has_no_value_and_no_warning(name: str) -> None:
    empty = state_of(name, 0, N, np.zeros(N, np.float32))
    wanted = 0.0 if name == "f1, binary" else np.nan
    np.testing.assert_equal(float(empty), wanted)
    assert_close((empty + state_of(name, 0, N)).compute(), state_of(name, 0, N).compute())


def test_states_read_as_numbers() -> None:
    mean = metrics.Mean(jnp.array(3.0), jnp.array(4.0))
    assert float(mean) == 0.75
    assert f"{mean:.3f} {mean} {sum([mean, mean]):.0%}" == "0.750 0.75 75%"
    assert f"{metrics.confusion_matrix(SCORES[:2], np.array([0, 1])):.0f}".startswith("[[")
    host = metrics.Mean(np.float32(0), np.float32(0))
    assert f"{host:.2f}" == "nan"
    assert f"{Perplexity(np.float32(1e4), np.float32(1)):.1f}" == "inf"
    with pytest.raises(TypeError):
        mean + Perplexity(jnp.array(3.0), jnp.array(4.0))


def test_hosts_add_without_jax() -> None:
    """After device_get a state is NumPy's, and stays so: no dispatch to a device for each batch."""
    for name in TABLE:
        total = state_of(name, 0, 5) + state_of(name, 5, 10)
        assert not any(isinstance(x, jax.Array) for x in (*jax.tree.leaves(total), total.compute()))


def test_names() -> None:
    def own(outputs: Any, targets: Any, mask: Any = None) -> Any:
        return metrics.Mean.of(outputs, mask)

    named = [metrics.accuracy, metrics.top_k(5), metrics.roc_auc, metrics.configured(metrics.f1, average=None), own]
    assert [metrics.metric_name(metric) for metric in named] == ["accuracy", "top_5", "roc_auc", "f1", "own"]
    assert metrics.metric_name(metrics.configured(metrics.f1, average=None, name="f1_each")) == "f1_each"
    assert metrics.top_k(5) == metrics.top_k(5)
    assert hash(metrics.top_k(5)) == hash(metrics.top_k(5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.metric_name(lambda o, t: 0), "wanted a metric with a name; use def"),
        (lambda: metrics.metric_name(functools.partial(metrics.f1, average=None)), "in place of a lambda or partial"),
        (lambda: metrics.accuracy(LOGITS, LABELS + 2), "labels from 2 to 4, wanted 0 to 3 for 4 classes"),
        (lambda: metrics.accuracy(LOGITS, LABELS.astype(np.float32)), "wanted an integer dtype; labels are class"),
        (lambda: metrics.accuracy(LOGITS, LABELS[1:]), "wanted the same batch size"),
        (lambda: metrics.accuracy(LABELS, LABELS), "wanted a floating dtype; give the model's logits"),
        (lambda: metrics.accuracy(LOGITS, LABELS, np.ones(3)), r"mask got float64\[3\], wanted \[23\]"),
        (lambda: metrics.top_k(5)(LOGITS, LABELS), "k = 5 for 4 classes, wanted 1 to that many"),
        (lambda: metrics.f1(LOGITS, LABELS, average="weighted"), "average='weighted', wanted 'macro', 'micro' or None"),
        (lambda: metrics.roc_auc(LOGITS, LABELS), "for one of 4 classes use cross_entropy"),
        (lambda: metrics.mse(SCORES[:, None], SCORES), r"wanted equal shapes; use targets\[..., None\]"),
    ],
)
def test_bad_input_is_refused_with_the_fix(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_loss_is_the_mean_it_reports() -> None:
    """Metrics that are losses too agree with them, token masks included."""
    x, t, mask = PREDICTED[:22].reshape(2, 11, 2), VALUES[:22].reshape(2, 11, 2), WEIGHTS[:22].reshape(2, 11)
    np.testing.assert_allclose(metrics.mse(x, t, mask).compute(), losses.mse(x, t, mask), rtol=1e-6)
    np.testing.assert_allclose(metrics.mae(x, t, mask[:, 0]).compute(), losses.mae(x, t, mask[:, 0]), rtol=1e-6)
    x, t = LOGITS[:22].reshape(2, 11, 4), LABELS[:22].reshape(2, 11)
    for weights in (mask, mask[:, 3], None):
        wanted = np.exp(losses.cross_entropy(x, t, weights))
        np.testing.assert_allclose(metrics.perplexity(x, t, weights).compute(), wanted, rtol=1e-6)

"""Metrics against scikit-learn, and their states as sums: any batch size, padding, merging, devices, the host."""

from __future__ import annotations

import functools
import itertools
import operator
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
SEVERAL = np.array([[0, 0, 0, 0], [1, 0, 0, 1]], np.float32)[np.arange(N) % 2]  # labels at once
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


DATA = {"labelled": (LOGITS, LABELS), "binary": (SCORES, BITS), "real": (PREDICTED, VALUES)}
ALL = {"average": None, "labels": range(CLASSES)}

# name: (metric, its data, scikit-learn's of (outputs, targets, weights))
TABLE: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "accuracy": (metrics.accuracy, "labelled", decided(reference.accuracy_score)),
    "accuracy, binary": (metrics.accuracy, "binary", of_bits(reference.accuracy_score)),
    "top_2": (metrics.top_k(2), "labelled", top_2),
    "precision": (metrics.precision, "labelled", of_classes(reference.precision_score, average="macro")),
    "precision, binary": (metrics.precision, "binary", of_bits(reference.precision_score)),
    "precision, each": (per_class("precision"), "labelled", of_classes(reference.precision_score, **ALL)),
    "recall": (metrics.recall, "labelled", of_classes(reference.recall_score, average="macro")),
    "recall, binary": (metrics.recall, "binary", of_bits(reference.recall_score)),
    "recall, each": (per_class("recall"), "labelled", of_classes(reference.recall_score, **ALL)),
    "f1": (metrics.f1, "labelled", of_classes(reference.f1_score, average="macro")),
    "f1, binary": (metrics.f1, "binary", of_bits(reference.f1_score)),
    "f1, micro": (
        metrics.configured(metrics.f1, average="micro"), "labelled", of_classes(reference.f1_score, average="micro")
    ),
    "f1, each": (per_class("f1"), "labelled", of_classes(reference.f1_score, **ALL)),
    "confusion_matrix": (
        metrics.confusion_matrix, "labelled",
        decided(reference.confusion_matrix, labels=range(CLASSES)),
    ),
    "confusion_matrix, binary": (metrics.confusion_matrix, "binary", of_bits(reference.confusion_matrix)),
    "mse": (metrics.mse, "real", of_values(reference.mean_squared_error)),
    "mae": (metrics.mae, "real", of_values(reference.mean_absolute_error)),
    "r2": (metrics.r2, "real", of_values(reference.r2_score)),
    "perplexity": (metrics.perplexity, "labelled", perplexity),
    "roc_auc": (metrics.roc_auc, "binary", lambda x, t, w: reference.roc_auc_score(t, x, sample_weight=w)),
}  # fmt: skip
every_metric = pytest.mark.parametrize("name", TABLE)


def all_states(data: dict[str, tuple[Any, Any]], weights: Any, names: Any = tuple(TABLE)) -> dict[str, Any]:
    return {name: TABLE[name][0](*data[TABLE[name][1]], weights) for name in names}


compiled = jax.jit(all_states, static_argnums=2)  # one program for all: compiling is what takes the time here


def states_of(first: int, last: int, weights: np.ndarray = WEIGHTS, padded_to: int | None = None) -> dict[str, Any]:
    """Every state, on the host, of examples ``first`` to ``last``, padded with garbage and masked."""
    padding = (padded_to or last - first) - (last - first)

    def part(x: np.ndarray, fill: float) -> np.ndarray:
        return np.concatenate([x[first:last], np.full((padding, *x.shape[1:]), fill, x.dtype)])

    data = {kind: (part(outputs, 9), part(targets, -100)) for kind, (outputs, targets) in DATA.items()}
    return jax.device_get(compiled(data, part(weights, 0)))


@functools.cache
def whole() -> dict[str, Any]:
    return states_of(0, N)


@functools.cache
def in_batches_of(size: int) -> dict[str, Any]:
    parts = [states_of(first, min(first + size, N), padded_to=size) for first in range(0, N, size)]
    return {name: sum(part[name] for part in parts) for name in TABLE}


def assert_close(value: Any, wanted: Any) -> None:
    value, wanted = np.asarray(value), np.asarray(wanted)
    assert value.shape == wanted.shape
    np.testing.assert_allclose(value, wanted, rtol=2e-6, atol=1e-6)


@every_metric
def test_scikit_learn_agrees(name: str) -> None:
    _, kind, wanted = TABLE[name]
    assert_close(whole()[name].compute(), wanted(*DATA[kind], WEIGHTS))


@functools.cache
def unweighted() -> dict[str, Any]:
    return compiled(DATA, None)


@every_metric
def test_scikit_learn_agrees_without_a_mask(name: str) -> None:
    _, kind, wanted = TABLE[name]
    assert_close(unweighted()[name].compute(), wanted(*DATA[kind], None))


@every_metric
@pytest.mark.parametrize("size", [1, 2, 5, 16, N, N + 3])
def test_any_batch_size_with_a_padded_last_batch_is_exact(name: str, size: int) -> None:
    _, kind, wanted = TABLE[name]
    assert_close(in_batches_of(size)[name].compute(), wanted(*DATA[kind], WEIGHTS))


@given(cuts=st.tuples(st.integers(0, N), st.integers(0, N)), hidden=st.sets(st.integers(0, N - 1)))
def test_merging_is_associative(cuts: tuple[int, int], hidden: set[int]) -> None:
    """Also with parts of weight 0."""
    index = np.arange(N)
    weights = np.where(np.isin(index, list(hidden)), 0, WEIGHTS).astype(np.float32)
    bounds = [0, *sorted(cuts), N]
    parts = (  # by weights of 0, so that one compiled program serves
        states_of(0, N, np.where((low <= index) & (index < high), weights, 0).astype(np.float32))
        for low, high in itertools.pairwise(bounds)
    )
    a, b, c = parts
    together = states_of(0, N, weights)
    for name in TABLE:
        left, right = (a[name] + b[name]) + c[name], a[name] + (b[name] + c[name])
        assert_close(left.compute(), right.compute())
        assert_close(left.compute(), together[name].compute())


SUMS = tuple(name for name in TABLE if name != "roc_auc")


@functools.cache
def carried_and_mapped() -> dict[str, Any]:
    """Four batches of five: by scan, by vmap (of which the first), and by vmap with a named axis."""

    def batches(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x[:20].reshape(4, 5, *x.shape[1:]))

    def add(states: Any, batch: Any) -> Any:
        return jax.tree.map(operator.add, states, all_states(*batch, SUMS), is_leaf=is_state), None

    @jax.jit
    def run(data: Any, weights: jax.Array) -> Any:
        mapped = jax.vmap(lambda *batch: all_states(*batch, SUMS))(data, weights)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), mapped)
        reduced = jax.vmap(lambda *batch: metrics.all_reduce(all_states(*batch, SUMS), "i"), axis_name="i")(
            data, weights
        )
        return {
            "scan": jax.lax.scan(add, zero, (data, weights))[0],
            "vmap": jax.tree.map(lambda x: x[0], mapped),
            "all_reduce": jax.tree.map(lambda x: x[3], reduced),
        }

    return run(jax.tree.map(batches, DATA), batches(WEIGHTS))


def is_state(x: Any) -> bool:
    return isinstance(x, metrics.State)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMS)
def test_a_scan_carries_and_vmap_maps_states(name: str) -> None:
    together = first_twenty()[name].compute()
    assert_close(carried_and_mapped()["scan"][name].compute(), together)
    assert_close(carried_and_mapped()["all_reduce"][name].compute(), together)
    assert_close(carried_and_mapped()["vmap"][name].compute(), first_five()[name].compute())


@functools.cache
def first_twenty() -> dict[str, Any]:
    return states_of(0, 20, padded_to=N)


@functools.cache
def first_five() -> dict[str, Any]:
    return states_of(0, 5, padded_to=N)


@pytest.mark.slow
def test_all_devices_together() -> None:
    """States of two devices' halves, reduced inside shard_map, are the state of the whole."""
    devices = jax.devices()[:2]
    if len(devices) < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    names = ("accuracy", "f1", "r2", "perplexity", "roc_auc")

    def run(data: Any, weights: jax.Array) -> Any:
        weighted, unweighted = all_states(data, weights, names), all_states(data, None, names)
        return metrics.all_reduce((weighted, unweighted), "data")

    over_devices = jax.shard_map(run, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())
    states, unweighted_states = jax.jit(over_devices)(jax.tree.map(lambda x: x[:22], DATA), WEIGHTS[:22])
    wanted, unweighted = states_of(0, 22, padded_to=N), states_of(0, 22, np.ones(N, np.float32), padded_to=N)
    for name in names:
        assert_close(states[name].compute(), wanted[name].compute())
        assert_close(unweighted_states[name].compute(), unweighted[name].compute())


@functools.cache
def in_low_precision() -> tuple[dict[str, Any], dict[str, Any]]:
    half = {kind: (jnp.asarray(x).astype(jnp.bfloat16), jnp.asarray(t)) for kind, (x, t) in DATA.items()}
    full = {kind: (x.astype(jnp.float32), t) for kind, (x, t) in half.items()}
    return compiled(half, WEIGHTS > 0), compiled(full, (WEIGHTS > 0).astype(np.float32))


@every_metric
def test_a_mask_of_bools_and_low_precision_outputs(name: str) -> None:
    ours, wanted = (states[name] for states in in_low_precision())
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
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


def test_several_labels_at_once_are_as_many_decisions() -> None:
    """What the refusal of such targets as one-hot says to do; hidden rows are not looked at."""
    hits = (LOGITS > 0) == (SEVERAL > 0)
    mask = np.arange(N) > 1
    assert_close(metrics.accuracy(LOGITS[..., None], SEVERAL, mask).compute(), hits[2:].mean())
    one_hot = np.eye(CLASSES, dtype=np.float32)[LABELS]
    one_hot[:2] = SEVERAL[:2]
    assert_close(metrics.accuracy(LOGITS, one_hot, mask).compute(), (LOGITS.argmax(-1) == LABELS)[2:].mean())


def test_a_row_with_nan_is_wrong_in_every_metric() -> None:
    spoilt = LOGITS + np.where(np.arange(CLASSES) > 2, np.nan, 0).astype(np.float32)
    for outputs, targets in ((spoilt, LABELS), (np.full_like(SCORES, np.nan), BITS)):
        assert float(metrics.accuracy(outputs, targets)) == float(metrics.f1(outputs, targets)) == 0
        counts = np.asarray(metrics.confusion_matrix(outputs, targets).compute())
        assert counts.sum() == N and np.trace(counts) == 0
    assert float(metrics.top_k(1)(spoilt, LABELS)) == 0


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
    empty = states_of(0, N, np.zeros(N, np.float32))[name]
    assert np.isnan(float(empty))
    assert_close((empty + whole()[name]).compute(), whole()[name].compute())


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
        total = whole()[name] + whole()[name]
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
        (
            lambda: metrics.accuracy(LOGITS, SEVERAL),
            r"rows add up to 0 to 2.*accuracy\(outputs\[..., None\], targets\)",
        ),
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

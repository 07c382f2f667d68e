"""What losses promise beyond their formulas: masks, extremes, dtypes, settings as values, and what they refuse."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdl import losses
from jdl.check import InputError

EYE = jnp.eye(4)
LABELS = jnp.array([2, 0, 1, 3])
BITS = jnp.array([1, 0, 1, 0])
X = jnp.array([[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -4.0], [3.0, 1.0, -2.0, 0.7], [0.0, 0.0, 0.0, 1.0]])

# name: (loss, outputs, targets) of four examples; the first outputs are logits or values
CALLS: dict[str, tuple[Callable[..., jax.Array], Any, Any]] = {
    "mse": (losses.mse, X, 2 * EYE),
    "mae": (losses.mae, X, 2 * EYE),
    "huber": (losses.huber, X, 2 * EYE),
    "binary_cross_entropy": (losses.binary_cross_entropy, X[:, 0], BITS),
    "binary_cross_entropy, several labels": (losses.binary_cross_entropy, X, EYE),
    "binary, probabilities": (losses.binary_cross_entropy_on_probabilities, jax.nn.sigmoid(X[:, 0]), BITS),
    "cross_entropy": (losses.cross_entropy, X, LABELS),
    "cross_entropy, one-hot": (losses.cross_entropy, X, EYE[LABELS]),
    "cross_entropy, smoothed": (losses.configured(losses.cross_entropy, label_smoothing=0.1), X, LABELS),
    "cross_entropy, probabilities": (losses.cross_entropy_on_probabilities, jax.nn.softmax(X), LABELS),
    "hinge": (losses.hinge, X[:, 0], 2 * BITS - 1),
    "hinge, classes": (losses.hinge, X, LABELS),
    "squared_hinge": (losses.squared_hinge, X[:, 0], 2 * BITS - 1),
    "kl_divergence": (losses.kl_divergence, X, EYE[LABELS]),
    "focal": (losses.configured(losses.focal, gamma=0.5, alpha=0.25), X[:, 0], BITS),
    "focal, classes": (losses.configured(losses.focal, gamma=0.5), X, LABELS),
    "dice": (losses.dice, X, EYE),
    "dice, classes": (losses.dice, X[:, None, :], LABELS[:, None]),
    "contrastive": (losses.contrastive, (X, X[::-1]), BITS),
    "triplet": (losses.triplet, (X, X[::-1], X[:, ::-1]), None),
    "info_nce": (losses.info_nce, (X, X[::-1]), None),
    "ctc": (losses.ctc, jnp.stack([X, -X, 2 * X, X], 1), jnp.array([[1, 2, 0], [3, 3, 0], [0, 0, 0], [1, 2, 3]])),
}
every_loss = pytest.mark.parametrize("name", CALLS)


def scaled(outputs: Any, size: float) -> Any:
    """Outputs of ±size, with the signs they had and zeros."""
    return jax.tree.map(lambda x: size * jnp.sign(x), outputs)


@functools.cache
def run(name: str) -> dict[str, Any]:
    """Everything about one loss, in one program."""
    loss, outputs, targets = CALLS[name]
    mask = jnp.array([1.0, 0.0, 2.0, 0.5])

    def mean(outputs: Any, mask: Any = None) -> jax.Array:
        return loss(outputs, targets, mask)

    def everything(outputs: Any, mask: jax.Array) -> dict[str, Any]:
        return {
            "extreme": jax.value_and_grad(mean)(scaled(outputs, 1e4)),
            "all masked": jax.value_and_grad(mean)(outputs, jnp.zeros(4)),
            "weighted": mean(outputs, mask),
            "sum": loss(outputs, targets, mask, "sum"),
            "none": loss(outputs, targets, mask, "none"),
            "bool": mean(outputs, mask > 0),
            "ones": mean(outputs, (mask > 0).astype(jnp.float32)),
            "bfloat16": mean(jax.tree.map(lambda x: x.astype(jnp.bfloat16), outputs)),
            "rounded": mean(jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), outputs)),
        }

    return jax.device_get(jax.jit(everything)(outputs, mask))


@every_loss
def test_values_and_gradients_are_finite_at_logits_of_1e4(name: str) -> None:
    for leaf in jax.tree.leaves(run(name)["extreme"]):
        assert np.isfinite(leaf).all()


@every_loss
def test_without_weight_the_loss_and_its_gradient_are_zero(name: str) -> None:
    for leaf in jax.tree.leaves(run(name)["all masked"]):
        assert (leaf == 0).all()


@every_loss
def test_reductions_agree(name: str) -> None:
    results = run(name)
    assert results["none"].shape == (4,)
    assert results["none"][1] == 0
    np.testing.assert_allclose(results["sum"], results["none"].sum(), rtol=1e-6)
    np.testing.assert_allclose(results["weighted"], results["none"].sum() / 3.5, rtol=1e-6)
    assert results["bool"] == results["ones"]


@every_loss
def test_low_precision_outputs_are_computed_in_float32(name: str) -> None:
    results = run(name)
    assert results["bfloat16"].dtype == np.float32
    assert results["bfloat16"] == results["rounded"]


@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.mse, losses.binary_cross_entropy], ids=lambda f: f.__name__
)
def test_a_mask_over_examples_covers_their_tokens(loss: Any) -> None:
    outputs = jnp.arange(12.0).reshape(2, 3, 2) / 7
    targets = jnp.array([[0, 1, 1], [1, 0, 0]]) if loss is losses.cross_entropy else jnp.round(outputs / 2)
    by_example = loss(outputs, targets, jnp.array([1.0, 3.0]))
    by_token = loss(outputs, targets, jnp.array([[1.0] * 3, [3.0] * 3]))
    np.testing.assert_allclose(by_example, by_token, rtol=1e-6)


@pytest.mark.slow
def test_hidden_targets_may_be_anything() -> None:
    mask = jnp.array([1.0, 0.0, 1.0, 1.0])
    nan = jnp.array([0.3, jnp.nan, 0.1, 0.9])
    calls = [  # loss, outputs, targets with something strange where the mask is 0, and without
        (losses.mse, X[:, 0], nan, nan.at[1].set(0)),
        (losses.binary_cross_entropy, X[:, 0], nan, nan.at[1].set(0)),
        (losses.cross_entropy, X, LABELS.at[1].set(-100), LABELS),
        (losses.cross_entropy, X, EYE.at[1].set(jnp.nan), EYE),
        (losses.focal, X, LABELS.at[1].set(255), LABELS),
        (losses.dice, X[:, None, :], LABELS.at[1].set(255)[:, None], LABELS[:, None]),
    ]
    for loss, outputs, hidden, _ in calls:
        assert jnp.isfinite(loss(outputs, hidden, mask))  # where values are known, these are not refused

    @jax.jit
    def gradients(targets: list[jax.Array]) -> list[Any]:
        pairs = zip(calls, targets, strict=True)
        return [jax.value_and_grad(loss)(outputs, target, mask) for (loss, outputs, _, _), target in pairs]

    hidden, shown = gradients([call[2] for call in calls]), gradients([call[3] for call in calls])
    jax.tree.map(np.testing.assert_array_equal, hidden, shown)


@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.hinge, losses.focal, losses.dice], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("label", [-1, 4])
def test_a_traced_label_out_of_range_gives_nan(loss: Any, label: int) -> None:
    pixels = (X[:, None], LABELS[:, None].at[1].set(label)) if loss is losses.dice else (X, LABELS.at[1].set(label))
    assert jnp.isnan(jax.jit(loss)(*pixels))


@pytest.mark.slow
@given(st.lists(st.lists(st.floats(0, 3), min_size=4, max_size=4), min_size=1, max_size=4))
def test_microbatches_weighted_by_their_masks_add_up(masks: list[list[float]]) -> None:
    """Σ w·mean / Σ w over microbatches is the mean of all, microbatches of weight 0 included."""
    whole = losses.cross_entropy(jnp.tile(X, (len(masks), 1)), jnp.tile(LABELS, len(masks)), jnp.array(masks).ravel())
    means = np.array([losses.cross_entropy(X, LABELS, jnp.array(mask)) for mask in masks])
    weights = np.array(masks, np.float32).sum(1)
    np.testing.assert_allclose(whole, (weights * means).sum() / max(weights.sum(), 1e-30), rtol=1e-5, atol=1e-6)


def test_huber_is_the_handbook_formula() -> None:
    error = np.array([0.0, 0.3, -0.5, 0.5, 2.0, -7.0], np.float32)
    wanted = np.where(np.abs(error) <= 0.5, error**2 / 2, 0.5 * np.abs(error) - 0.5 * 0.5**2)
    ours = losses.huber(jnp.asarray(error), jnp.zeros(6), None, "none", delta=0.5)
    np.testing.assert_allclose(ours, wanted, rtol=1e-6)
    slope = jax.grad(lambda e: losses.huber(e, jnp.zeros(6), None, "sum", delta=0.5))(jnp.asarray(error))
    np.testing.assert_allclose(slope, np.clip(error, -0.5, 0.5), rtol=1e-6)


@pytest.mark.slow
def test_logistic_derivatives_at_zero() -> None:
    """σ - t and σ(1 - σ): max and abs, of which stable forms are often made, have none of their own there."""
    loss = functools.partial(losses.binary_cross_entropy, targets=jnp.ones(1))
    assert jax.grad(loss)(jnp.zeros(1)) == -0.5
    assert jax.hessian(loss)(jnp.zeros(1)) == 0.25


def test_cross_entropy_is_exact_far_from_zero() -> None:
    """At logits near 1e4 a float32 has steps of 1e-3: the loss must not come from the difference of two of them."""
    near = losses.cross_entropy(X, LABELS)
    far = losses.cross_entropy(jnp.round(X) + 1e4, LABELS)
    np.testing.assert_allclose(far, losses.cross_entropy(jnp.round(X), LABELS), rtol=1e-6)
    assert far != near


def test_cross_entropy_of_integers_makes_no_one_hot() -> None:
    """Besides its result, the gradient holds at most one more array of the logits' size, and the loss alone none."""
    logits, labels = jax.ShapeDtypeStruct((8, 32, 512), jnp.float32), jax.ShapeDtypeStruct((8, 32), jnp.int32)
    size = 8 * 32 * 512 * 4

    def temporary(function: Callable[..., Any]) -> int:
        memory = jax.jit(function).lower(logits, labels).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(losses.cross_entropy) < 0.1 * size
    assert temporary(jax.value_and_grad(losses.cross_entropy)) < 1.1 * size


@pytest.mark.slow
def test_equal_embeddings_have_a_gradient() -> None:
    for targets in (jnp.zeros(4, jnp.int32), jnp.ones(4, jnp.int32)):
        for grad in jax.grad(losses.contrastive)((X, X), targets):
            assert (grad == 0).all()
    for grad in jax.grad(losses.triplet)((X, X, X)):
        assert (grad == 0).all()


@pytest.mark.slow
def test_ctc_of_labels_that_cannot_fit() -> None:
    """Two equal labels need three frames; loss infinity says so, and the others still train."""
    logits = jnp.stack([X, -X])[:, :2]
    labels = jnp.array([[1, 1], [1, 2]])
    run = jax.jit(jax.value_and_grad(lambda x, labels, mask: losses.ctc(x, labels, mask, "sum")))
    value, grad = run(logits, labels, jnp.ones(2))
    assert value == jnp.inf
    assert (grad[0] == 0).all()
    hidden, grad_of_second = run(logits, labels, jnp.array([0.0, 1.0]))
    assert jnp.isfinite(hidden)
    assert (grad == grad_of_second).all()
    assert (grad[1] != 0).any()
    assert jnp.isnan(run(logits, labels.at[0, 0].set(4), jnp.ones(2))[0])


@pytest.mark.slow
def test_ctc_of_very_unlikely_labels() -> None:
    """Eight labels in eight frames sure of blank by 2e4: no shortcut through what stands for log 0 is cheaper."""
    logits = jnp.full((1, 8, 3), -1e4).at[:, :, 0].set(1e4)
    np.testing.assert_allclose(losses.ctc(logits, jnp.array([[1, 2] * 4])), 8 * 2e4, rtol=1e-6)


def test_settings_may_be_traced() -> None:
    def run(smoothing: jax.Array) -> jax.Array:
        return losses.cross_entropy(X, LABELS, label_smoothing=smoothing)  # pyright: ignore[reportArgumentType]

    swept = jax.vmap(run)(jnp.array([0.0, 0.1]))
    wanted = [losses.cross_entropy(X, LABELS), losses.cross_entropy(X, LABELS, label_smoothing=0.1)]
    np.testing.assert_allclose(swept, wanted, rtol=1e-6)


def test_one_example_at_a_time_by_vmap() -> None:
    mask = jnp.array([1.0, 0.0, 1.0, 0.5])
    for loss, targets in ((losses.cross_entropy, LABELS), (losses.mse, EYE), (losses.binary_cross_entropy, EYE)):
        each = jax.vmap(lambda x, t, m, loss=loss: loss(x, t, m, "sum"))(X, targets, mask)
        np.testing.assert_allclose(each, loss(X, targets, mask, "none"), rtol=1e-6)


class TestConfigured:
    def test_equal_settings_are_equal_values(self) -> None:
        one, other = losses.configured(losses.huber, delta=2.0), losses.configured(losses.huber, delta=2)
        assert one == other
        assert hash(one) == hash(other)
        assert one != losses.configured(losses.huber, delta=3.0)
        assert one != losses.configured(losses.huber)
        assert losses.configured(losses.focal, alpha=0.1, gamma=1) == losses.configured(
            losses.focal, gamma=1, alpha=0.1
        )

    def test_a_rebuilt_value_does_not_compile_again(self) -> None:
        traces = []

        @functools.partial(jax.jit, static_argnums=0)
        def call(loss: Any, x: jax.Array) -> jax.Array:
            traces.append(loss)
            return loss(x, jnp.zeros(4))

        for delta in (2.0, 2.0, 0.5):
            call(losses.configured(losses.huber, delta=delta), X[0])
        assert len(traces) == 2

    def test_it_calls_the_loss(self) -> None:
        loss = losses.configured(losses.huber, delta=0.5, reduction="sum")
        assert loss(X, EYE) == losses.huber(X, EYE, None, "sum", delta=0.5)
        assert loss(X, EYE, reduction="mean") == losses.huber(X, EYE, delta=0.5)
        again = losses.configured(losses.configured(losses.focal, gamma=1.0), alpha=0.3)
        assert again == losses.configured(losses.focal, alpha=0.3, gamma=1.0)

    def test_it_has_a_name_and_a_print(self) -> None:
        loss = losses.configured(losses.focal, gamma=1.0, alpha=0.3)
        assert loss.__name__ == loss.name == "focal"
        assert repr(loss) == "focal(alpha=0.3, gamma=1.0)"
        assert losses.configured(losses.focal, name="hard").name == "hard"
        assert pickle.loads(pickle.dumps(loss)) == loss

    def test_lists_become_tuples(self) -> None:
        def weighted(outputs: Any, targets: Any, *, weights: Any) -> Any:
            return weights

        assert losses.configured(weighted, weights=[1, 2])(0, 0) == (1, 2)

    @pytest.mark.parametrize(
        ("function", "settings", "message"),
        [
            (losses.huber, {"detla": 1.0}, "huber has no setting 'detla', it has reduction, delta"),
            (losses.huber, {"delta": np.ones(2)}, r"delta=float64\[2\], wanted something hashable"),
            (lambda o, t: 0.0, {}, "wanted a function with a name; use def"),
            (functools.partial(losses.huber, delta=1.0), {}, "wanted a function with a name; use def"),
        ],
    )
    def test_what_it_refuses(self, function: Any, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            losses.configured(function, **settings)


B, COLUMN = jnp.zeros(32), jnp.zeros((32, 1))
BAD: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = {
    "float labels": (
        losses.cross_entropy, (X, LABELS.astype(jnp.float32)), {},
        r"targets got float32\[4\], wanted an integer dtype; labels are class numbers: use targets.astype",
    ),
    "labels out of range": (
        losses.cross_entropy, (X, LABELS.at[1].set(4)), {},
        r"labels from 1 to 4, wanted 0 to 3 for 4 classes \(1 of 4 out of range\); they count from 1",
    ),
    "negative labels": (losses.focal, (X, LABELS - 1), {}, r"labels from -1 to 2, wanted 0 to 3 for 4 classes"),
    "labels on the host": (losses.check_labels, (np.array([0, 10]), 10), {}, "labels from 0 to 10, wanted 0 to 9"),
    "other batch": (
        losses.cross_entropy, (X, LABELS[:3]), {},
        r"outputs got float32\[4, 4\] and targets got int32\[3\], wanted the same batch size",
    ),
    "other batch, values": (losses.mse, (X, X[:3]), {}, r"wanted the same batch size; one target for each output"),
    "other batch, pairs": (losses.contrastive, ((X, X), BITS[:3]), {}, "wanted the same batch size"),
    "column of outputs": (
        losses.mse, (COLUMN, B), {},
        r"outputs got float32\[32, 1\] and targets got float32\[32\], wanted equal shapes; use targets\[..., None\]",
    ),
    "column of targets": (losses.huber, (B, COLUMN), {}, r"wanted equal shapes; use targets\[..., 0\]"),
    "other features": (losses.mae, (X, X[:, :2]), {}, "wanted equal shapes; reshape one of them"),
    "column of labels": (losses.cross_entropy, (X, LABELS[:, None]), {}, r"one-hot \[4, 4\]; use targets\[..., 0\]"),
    "one class": (losses.cross_entropy, (COLUMN, B), {}, "C at least 2; for one logit an example use binary_cross"),
    "class numbers as outputs": (
        losses.cross_entropy, (LABELS, LABELS), {},
        r"outputs got int32\[4\], wanted a floating dtype; give the model's logits or predictions",
    ),
    "integer values": (losses.mse, (LABELS, LABELS), {}, "wanted a floating dtype"),
    "lists": (losses.mse, (X, [1.0, 2.0]), {}, "targets got list .* wanted an array; use jnp.asarray"),
    "reduction": (losses.mse, (X, X), {"reduction": "avg"}, "reduction got 'avg', wanted one of 'mean', 'sum', 'none'"),
    "mask, wrong batch": (losses.mse, (X, X, jnp.ones(3)), {}, r"mask got float32\[3\], wanted \[4\] or \[4, 4\]"),
    "mask column": (losses.cross_entropy, (X, LABELS, jnp.ones((4, 1))), {}, r"float32\[4, 1\], wanted \[4\]"),
    "mask, column of tokens": (losses.mse, (X, X, jnp.ones((4, 1))), {}, r"use mask\[..., 0\]"),
    "mask, frames": (losses.ctc, (X[:, None], LABELS[:, None] * 0, X), {}, r"mask got float32\[4, 4\], wanted \[4\]"),
    "mask, list": (losses.mse, (X, X, [1, 1, 1, 1]), {}, "mask got list"),
    "binary targets of ±1": (
        losses.binary_cross_entropy, (X[:, 0], 2 * BITS - 1), {}, "from -1.* to 1.*, wanted 0 to 1; targets are 0 or 1"
    ),
    "binary loss of classes": (losses.binary_cross_entropy, (X, LABELS), {}, "for one of 4 classes use cross_entropy"),
    "hinge targets of 0": (losses.hinge, (X[:, 0], BITS), {}, "wanted -1 and 1; use 2 [*] targets - 1"),
    "kl of labels": (losses.kl_divergence, (X, LABELS), {}, "wanted probabilities .* the same as cross_entropy"),
    "kl of logits": (losses.kl_divergence, (X, X), {}, "wanted 0 to 1; give probabilities"),
    "alpha of classes": (losses.focal, (X, LABELS), {"alpha": 0.5}, "give class weights as the mask"),
    "smoothing of 1": (losses.cross_entropy, (X, LABELS), {"label_smoothing": 1.0}, "at least 0.0 and below 1.0"),
    "delta of 0": (losses.huber, (X, X), {"delta": 0}, "delta got 0, wanted more than 0"),
    "dice without pixels": (losses.dice, (B, B), {}, r"wanted \[B, ...\] with at least one axis of pixels"),
    "dice of one-hot": (losses.dice, (X[None], EYE[None]), {}, r"all add up to 1, .*give labels: targets.argmax\(-1\)"),
    "pair of one": (losses.contrastive, (X, BITS), {}, r"wanted \(first, second\), each \[B, D\]"),
    "triplet of two sizes": (losses.triplet, ((X, X, X[:3]),), {}, "anchor got .* and negative got .* equal shapes"),
    "flat embeddings": (losses.info_nce, ((B, B),), {}, r"first got float32\[32\], wanted \[B, D\]"),
    "blank among the labels": (
        losses.ctc, (X[:, None], jnp.array([[0, 1]] * 4)), {}, r"labels got \[0\] before .*without the blank 0"
    ),
    "blank of no class": (losses.ctc, (X[:, None], LABELS[:, None]), {"blank": 4}, "blank got 4, wanted 0 to 3"),
    "ctc of frames": (losses.ctc, (X, LABELS[:, None]), {}, r"logits got float32\[4, 4\], wanted \[B, T, C\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_the_fix(name: str) -> None:
    function, arguments, options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        function(*arguments, **options)


@pytest.mark.parametrize("name", ["float labels", "other batch", "column of outputs", "integer values"])
def test_shapes_and_dtypes_are_refused_while_tracing(name: str) -> None:
    function, arguments, _, message = BAD[name]
    with pytest.raises(InputError, match=message):
        jax.eval_shape(function, *arguments)

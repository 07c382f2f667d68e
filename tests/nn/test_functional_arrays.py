"""What PyTorch's golden values do not say of dense, convolution, pooling, norms, embedding, resizing and dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jdl.nn import functional as F
from tests.nn.toys import assert_close

KEY = jax.random.key(0)


def test_dense_contracts_one_flat_matrix():
    """Its kernel's gradient over [B, T, D] is then one plain matrix product, twice as fast on CPU."""
    program = jax.make_jaxpr(F.dense)(jnp.ones((2, 3, 4)), jnp.ones((4, 5)))
    (product,) = (eqn for eqn in program.eqns if eqn.primitive.name == "dot_general")
    assert product.invars[0].aval.shape == (6, 4)


def test_dense_of_an_empty_batch():
    assert F.dense(jnp.ones((0, 3, 4)), jnp.ones((4, 5))).shape == (0, 3, 5)


TRANSPOSED = [
    ((9,), (4,), {"stride": 3, "padding": "SAME"}),
    ((8, 6), (3, 2), {"stride": 2, "padding": "SAME"}),
    ((6, 6), (2, 1), {"stride": 3, "padding": "SAME"}),
    ((6, 8), (3, 3), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}),
    ((4, 4, 4), (2, 2, 2), {"stride": 2, "padding": "VALID"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "window", "options"), TRANSPOSED)
def test_conv_transpose_is_the_gradient_of_conv(sizes, window, options):
    @jax.jit
    def both(x, kernel):
        y, pull_back = jax.vjp(lambda x: F.conv(x, kernel, **options), x)
        return pull_back(y)[0], F.conv_transpose(y, kernel.swapaxes(-1, -2), **options)

    gradient, transposed = both(jax.random.normal(KEY, (1, *sizes, 3)), jax.random.normal(KEY, (*window, 3, 2)))
    np.testing.assert_allclose(transposed, gradient, atol=1e-5)


def test_same_padding_keeps_the_size_or_divides_it_by_the_stride():
    for n in range(3, 9):
        for stride in (1, 2, 3):
            for width in (1, 2, 3, 4):
                x, kernel = jnp.ones((1, n, 1)), jnp.ones((width, 1, 1))
                y = jax.eval_shape(lambda x, kernel, stride=stride: F.conv(x, kernel, stride=stride), x, kernel)
                assert y.shape[1] == -(-n // stride)
                up = jax.eval_shape(
                    lambda x, kernel, stride=stride: F.conv_transpose(x, kernel, stride=stride), x, kernel
                )
                assert up.shape[1] == n * stride


TIES = jnp.zeros((1, 4, 4, 1))


def test_max_pool_shares_the_gradient_of_ties_where_windows_do_not_overlap():
    gradient = jax.grad(lambda x: F.max_pool(x, 2).sum())(TIES)
    np.testing.assert_array_equal(gradient, np.full((1, 4, 4, 1), 0.25))


def test_max_pool_gives_the_gradient_of_ties_to_the_first_where_windows_overlap():
    gradient = jax.grad(lambda x: F.max_pool(x, 3, stride=1).sum())(TIES)
    np.testing.assert_array_equal(gradient[0, :, :, 0], np.pad(np.ones((2, 2)), ((0, 2), (0, 2))))


@pytest.mark.parametrize("pool", [F.max_pool, F.average_pool])
def test_pooling_by_reshape_needs_no_window_reduction(pool):
    """Also of a size that does not divide, which is cropped; a SAME padding of nothing counts as none."""
    for padding, size in (("VALID", 7), ("SAME", 6)):
        x = jnp.ones((2, size, size, 3))
        program = jax.make_jaxpr(jax.grad(lambda x, padding=padding: pool(x, 2, padding=padding).sum()))(x)
        assert "window" not in str(program)


def test_average_pool_counts_no_padding():
    np.testing.assert_allclose(F.average_pool(jnp.ones((1, 3, 3, 1)), 2, padding="SAME"), np.ones((1, 2, 2, 1)))


def test_average_pool_sums_in_float32():
    x = jnp.ones((1, 4096, 1), jnp.bfloat16)
    for stride in (None, 1):
        assert F.average_pool(x, 4096, stride).item() == 1  # in bfloat16 the sum stops growing at 256
    assert F.global_average_pool(x).item() == 1


def test_batch_statistics_over_devices_are_those_of_the_whole_batch():
    x = 3 * jax.random.normal(KEY, (4, 8, 5)) + 2
    mean, var = jax.vmap(lambda x: F.batch_statistics(x, "devices"), axis_name="devices")(x)
    whole = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(mean, np.tile(whole.mean(0), (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(var, np.tile(whole.var(0), (4, 1)), rtol=1e-6)


def of_its_parts(x, scale, bias, eps=1e-5, axis_name=None):
    mean, var = F.batch_statistics(x, axis_name)
    return F.batch_norm(x, mean, var, scale, bias, eps), mean, var


@pytest.mark.parametrize("axis_name", [None, "devices"])
def test_batch_norm_in_training_is_that_of_its_parts_in_value_and_derivatives_of_first_and_second_order(axis_name):
    x, weights = jax.random.normal(KEY, (2, 2, 6, 3, 4))
    arrays, along = (x + 5, jnp.arange(4.0), jnp.ones(4)), (x, jnp.ones(4), jnp.arange(4.0))

    def all_of(norm):
        def one(x, scale, bias, weights):
            y, mean, var = norm(x, scale, bias, 1e-5, axis_name)
            return jnp.sum(jnp.sin(y) * weights) + jnp.sum(mean**3) + jnp.sum(jnp.exp(-var))

        def objective(x, scale, bias):
            return jnp.sum(jax.vmap(one, (0, None, None, 0), axis_name=axis_name)(x, scale, bias, weights))

        value_and_grad = jax.value_and_grad(objective, (0, 1, 2))
        return jax.jit(lambda arrays, along: jax.jvp(value_and_grad, arrays, along))(arrays, along)

    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), all_of(F.batch_norm_in_training), all_of(of_its_parts))


def test_variances_survive_a_large_mean():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(256, 3)) + 1000, jnp.float32)
    _, var = F.batch_statistics(x)
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var(0), rtol=1e-4)


def test_ids_outside_of_the_table_show():
    rows = F.embedding(jnp.array([0, 6, 7, -1]), jnp.ones((7, 2)))
    np.testing.assert_array_equal(jnp.isnan(rows).all(-1), [False, False, True, True])


def test_dropout_drops_its_rate_and_keeps_the_mean():
    x = jnp.full((200, 500), 3.0)
    y = np.asarray(F.dropout(x, 0.25, KEY))
    dropped = (y == 0).mean()
    deviation = np.sqrt(0.25 * 0.75 / y.size)
    assert abs(dropped - 0.25) < 4 * deviation
    assert set(np.unique(y)) == {0.0, 4.0}
    assert F.dropout(x, 0.0, KEY) is x
    assert F.dropout(x.astype(jnp.bfloat16), 0.5, KEY).dtype == jnp.bfloat16


def test_dropout_masks_the_gradient_as_it_masked_the_value():
    x = jax.random.normal(KEY, (40,))
    y, pull_back = jax.vjp(lambda x: F.dropout(x, 0.5, KEY), x)
    np.testing.assert_array_equal(pull_back(jnp.ones(40))[0], np.where(y != 0, 2.0, 0.0))


def test_jit_and_numpy_arrays():
    """Plain functions take what jnp takes."""
    x, kernel = np.ones((2, 6, 6, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)
    np.testing.assert_allclose(
        F.max_pool(F.conv(x, kernel), 2), jax.jit(lambda x, k: F.max_pool(F.conv(x, k), 2))(x, kernel)
    )


WIDE = {"reduce_sum", "reduce_window_sum", "rsqrt", "exp", "log"}


@pytest.mark.parametrize(
    "function",
    [
        F.layer_norm,
        F.rms_norm,
        F.instance_norm,
        F.batch_statistics,
        lambda x: F.group_norm(x, 2),
        lambda x: F.batch_norm(x, jnp.zeros(4), jnp.ones(4)),
        lambda x: F.average_pool(x, 3, 1),
        lambda x: F.average_pool(x, 2),
        F.global_average_pool,
        F.softmax,
        F.log_softmax,
    ],
)
def test_statistics_and_sums_of_bfloat16_are_taken_in_float32(function):
    """Read off the program: XLA for CPU computes in float32 whatever it is told, an accelerator does not."""

    def equations(jaxpr):
        for eqn in jaxpr.eqns:
            yield eqn
            for inner in jaxprs_in_params(eqn.params):
                yield from equations(inner)

    program = jax.make_jaxpr(function)(jnp.ones((2, 6, 6, 4), jnp.bfloat16))
    wide = [eqn for eqn in equations(program.jaxpr) if eqn.primitive.name in WIDE]
    assert wide
    assert {str(variable.aval.dtype) for eqn in wide for variable in eqn.invars} == {"float32"}

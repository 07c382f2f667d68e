"""Input that a function cannot use is refused while tracing, in words that say what came and what to do."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from jdl.check import InputError
from jdl.nn import functional as F


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


IMAGES, KERNEL = array(2, 8, 8, 4), array(3, 3, 4, 6)
CASES = {
    "dense_width": (F.dense, (array(2, 5), array(4, 3)), {}, "float32[2, 5], wanted 4 entries on axis -1"),
    "dense_int": (F.dense, (array(2, 4, dtype=jnp.int32), array(4, 3)), {}, "x.astype(jnp.float32)"),
    "dense_number": (F.dense, (array(), array(4, 3)), {}, "float32[], wanted [..., D]"),
    "dense_kernel": (F.dense, (array(2, 4), array(4)), {}, "kernel got float32[4], wanted [D, F]"),
    "dense_bias": (F.dense, (array(2, 4), array(4, 3), array(4)), {}, "bias got float32[4], wanted 3 entries"),
    "conv_no_channels": (
        F.conv,
        (array(2, 8, 8), KERNEL),
        {},
        "wanted [B, H, W, C]; add a channel axis with x[..., None]",
    ),
    "conv_rank": (F.conv, (array(2, 8), KERNEL), {}, "wanted [B, H, W, C]; the window has 2 spatial axes"),
    "conv_kernel_rank": (
        F.conv,
        (IMAGES, array(4, 6)),
        {},
        "kernel got float32[4, 6], wanted [*window, C / groups, F]",
    ),
    "conv_channels": (F.conv, (array(2, 4, 8, 8), KERNEL), {}, "wanted 4 channels on the last axis"),
    "conv_int": (
        F.conv,
        (array(2, 8, 8, 4, dtype=jnp.uint8), KERNEL),
        {},
        "input got uint8[2, 8, 8, 4], wanted a floating",
    ),
    "conv_groups": (F.conv, (IMAGES, KERNEL), {"groups": 3}, "groups got 3, wanted a divisor of the 4 channels"),
    "conv_groups_zero": (F.conv, (IMAGES, KERNEL), {"groups": 0}, "groups got 0"),
    "conv_groups_out": (F.conv, (IMAGES, array(3, 3, 1, 6)), {"groups": 4}, "and the 6 that go"),
    "conv_group_kernel": (F.conv, (IMAGES, KERNEL), {"groups": 2}, "wanted 8 channels on the last axis"),
    "conv_large": (F.conv, (array(2, 2, 8, 4), KERNEL), {"padding": "VALID"}, "kernel covers (3, 3) cells but"),
    "conv_dilated": (
        F.conv,
        (IMAGES, KERNEL),
        {"padding": 0, "dilation": 4},
        "covers (9, 9) cells but the padded input has",
    ),
    "conv_padding": (F.conv, (IMAGES, KERNEL), {"padding": "same"}, 'padding got "same", wanted "SAME", "VALID"'),
    "conv_paddings": (F.conv, (IMAGES, KERNEL), {"padding": (1, 1, 1)}, "wanted a non-negative int, or 2 ints or"),
    "conv_negative": (F.conv, (IMAGES, KERNEL), {"padding": -1}, "wanted a non-negative int"),
    "conv_stride": (F.conv, (IMAGES, KERNEL), {"stride": 0}, "stride got 0, wanted integers of at least 1"),
    "conv_strides": (F.conv, (IMAGES, KERNEL), {"stride": (1, 1, 1)}, "wanted one int or 2 of them"),
    "conv_float_stride": (F.conv, (IMAGES, KERNEL), {"stride": (1.0, 1.0)}, "wanted integers of at least 1"),
    "conv_bias": (F.conv, (IMAGES, KERNEL, array(4)), {}, "bias got float32[4], wanted 6 entries"),
    "transpose_extra": (
        F.conv_transpose,
        (IMAGES, KERNEL),
        {"stride": 2, "output_padding": 2},
        "output_padding got (2, 2)",
    ),
    "transpose_crop": (F.conv_transpose, (array(2, 1, 1, 4), KERNEL), {"padding": 2}, "crops away all"),
    "transpose_rank": (F.conv_transpose, (array(2, 8, 8), KERNEL), {}, "wanted [B, H, W, C]"),
    "pool_large": (F.max_pool, (array(2, 2, 4, 3), 3), {}, "the window covers (3, 3) cells but"),
    "pool_rank": (F.max_pool, (array(2, 4), 2), {}, "wanted [B, *spatial, C] with 1 to 3 spatial axes"),
    "pool_window": (F.average_pool, (IMAGES, (2, 2, 2)), {}, "wanted [B, D, H, W, C]; add a channel axis"),
    "pool_windows": (
        F.average_pool,
        (IMAGES, (2, 2, 2, 2)),
        {},
        "window got (2, 2, 2, 2), wanted one int for each of 1 to 3",
    ),
    "pool_padding": (F.max_pool, (IMAGES, 2), {"padding": 2}, "would hold only padding"),
    "pool_int": (F.average_pool, (array(2, 4, 4, 1, dtype=jnp.int32), 2), {}, "wanted a floating dtype"),
    "global_rank": (F.global_average_pool, (array(2, 4),), {}, "wanted [B, *spatial, C]"),
    "batch_norm_mean": (F.batch_norm, (IMAGES, array(3), array(4)), {}, "mean got float32[3], wanted 4 entries"),
    "layer_norm_scale": (F.layer_norm, (IMAGES, array(3)), {}, "one for each channel of float32[2, 8, 8, 4]"),
    "layer_norm_int": (F.layer_norm, (array(2, 4, dtype=jnp.int32),), {}, "wanted a floating dtype"),
    "rms_norm_number": (F.rms_norm, (array(),), {}, "wanted [..., C]"),
    "group_norm_groups": (F.group_norm, (IMAGES, 3), {}, "groups got 3, wanted a divisor of the 4 channels"),
    "instance_norm_cell": (F.instance_norm, (array(2, 1, 1, 4),), {}, "more than one cell; use layer_norm"),
    "glu_odd": (F.glu, (array(2, 5),), {}, "float32[2, 5], wanted an even last axis"),
    "softmax_int": (F.softmax, (array(2, 5, dtype=jnp.int32),), {}, "wanted a floating dtype"),
    "relu_list": (F.relu, ([1.0, 2.0],), {}, "wanted an array; use jnp.asarray"),
    "embedding_float": (F.embedding, (array(2, 3), array(7, 4)), {}, "ids got float32[2, 3], wanted an integer dtype"),
    "embedding_table": (
        F.embedding,
        (array(2, 3, dtype=jnp.int32), array(7)),
        {},
        "table got float32[7], wanted [V, D]",
    ),
    "upsample_rank": (F.upsample, (array(2, 4), 2), {}, "wanted [B, *spatial, C]"),
    "upsample_factor": (F.upsample, (IMAGES, 0), {}, "factor got 0, wanted integers of at least 1"),
    "resize_method": (
        F.resize,
        (IMAGES, 4, "bilinear"),
        {},
        'wanted "nearest" or "linear" (which on images is bilinear)',
    ),
    "resize_int": (F.resize, (array(2, 4, 4, 1, dtype=jnp.int32), 2), {}, "wanted a floating dtype"),
    "dropout_rate": (
        F.dropout,
        (IMAGES, 1.0, jax.random.key(0)),
        {},
        "rate got 1.0, wanted at least 0 and less than 1",
    ),
    "dropout_negative": (F.dropout, (IMAGES, -0.1, jax.random.key(0)), {}, "rate got -0.1"),
    "dropout_key": (F.dropout, (IMAGES, 0.1, None), {}, "jax.random.key(seed)"),
    "dropout_int": (F.dropout, (array(3, dtype=jnp.int32), 0.1, jax.random.key(0)), {}, "wanted a floating dtype"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_plain_words(name):
    function, arguments, options, words = CASES[name]
    arrays = {k: v for k, v in enumerate(arguments) if isinstance(v, jax.ShapeDtypeStruct)}

    def traced(arrays):
        return function(*(arrays.get(k, v) for k, v in enumerate(arguments)), **options)

    with pytest.raises(InputError, match=re.escape(words)):
        jax.eval_shape(traced, arrays)


@pytest.mark.parametrize(
    "name", ["step", "linear", "sigmoid", "relu", "gelu", "softplus", "mish", "hard_silu", "swiglu"]
)
def test_activations_refuse_integers(name):
    with pytest.raises(InputError, match="wanted a floating dtype"):
        getattr(F, name)(jnp.arange(4))

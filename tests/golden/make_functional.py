"""Values and gradients of PyTorch for what `jdl.nn.functional` computes: ``python tests/golden/make_functional.py``.

Writes conv.npz, pool.npz, norm.npz, activation.npz and dense.npz beside itself. A case NAME is kept as

    NAME/call           JSON: [name of the function in jdl.nn.functional, its keyword options]
    NAME/in/ARGUMENT    inputs by the argument names of that function, in our layouts
    NAME/out            PyTorch's output in our layout
    NAME/weights        random weights r of the output, so that
    NAME/grad/ARGUMENT  is the gradient of sum(r * output) for each floating input

Needs torch==2.13.0; the tests that read the files do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
Cases = dict[str, np.ndarray]


def first(t: torch.Tensor) -> torch.Tensor:
    """Channels last to channels first."""
    return t.movedim(-1, 1)


def last(t: torch.Tensor) -> torch.Tensor:
    return t.movedim(1, -1)


def add(
    cases: Cases,
    name: str,
    function: str,
    options: dict[str, Any],
    inputs: dict[str, np.ndarray],
    call: Callable[..., Any],
) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    tensors = {k: torch.tensor(v, requires_grad=v.dtype == np.float32) for k, v in inputs.items()}
    out = call(*tensors.values())
    weights = rng.normal(size=tuple(out.shape)).astype(np.float32)
    (out * torch.tensor(weights)).sum().backward()
    cases[f"{name}/call"] = np.array(json.dumps([function, options]))
    cases[f"{name}/out"], cases[f"{name}/weights"] = out.detach().numpy(), weights
    for k, tensor in tensors.items():
        cases[f"{name}/in/{k}"] = inputs[k]
        if tensor.grad is not None:
            cases[f"{name}/grad/{k}"] = tensor.grad.numpy()


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


# Convolution: name, input [B, *spatial, C], window, features, our options. Numbers are PyTorch's paddings too.
CONV: list[tuple[str, Sequence[int], Sequence[int], int, dict[str, Any]]] = [
    ("1d", (2, 9, 4), (3,), 6, {"padding": "VALID"}),
    ("1d_same_even", (2, 9, 4), (4,), 6, {"padding": "SAME"}),
    ("1d_all", (2, 13, 4), (3,), 6, {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}),
    ("2d", (2, 7, 6, 3), (3, 3), 4, {"padding": "VALID"}),
    ("2d_same", (2, 7, 6, 3), (3, 3), 4, {"padding": "SAME"}),
    ("2d_same_even", (2, 7, 6, 3), (2, 4), 4, {"padding": "SAME", "dilation": [1, 2]}),
    ("2d_stride", (2, 8, 7, 3), (3, 3), 4, {"stride": 2, "padding": 1}),
    ("2d_uneven", (2, 8, 9, 3), (2, 3), 4, {"stride": [1, 3], "padding": [0, 2]}),
    ("2d_pairs", (2, 6, 6, 3), (3, 3), 4, {"padding": [[0, 2], [1, 0]]}),
    ("2d_dilation", (2, 9, 8, 3), (3, 2), 4, {"dilation": [2, 3], "padding": 2}),
    ("2d_groups", (2, 6, 6, 6), (3, 3), 9, {"groups": 3, "padding": 1}),
    ("2d_depthwise", (2, 6, 6, 4), (3, 3), 8, {"groups": 4, "padding": "SAME"}),
    ("2d_pointwise", (2, 5, 5, 4), (1, 1), 7, {"stride": 2, "padding": "VALID"}),
    ("3d", (2, 5, 4, 6, 2), (2, 3, 3), 4, {"padding": "VALID"}),
    (
        "3d_all",
        (2, 5, 6, 5, 4),
        (3, 2, 3),
        4,
        {"stride": [1, 2, 2], "padding": [2, 1, 0], "dilation": [2, 1, 1], "groups": 2},
    ),
]

TRANSPOSE: list[tuple[str, Sequence[int], Sequence[int], int, dict[str, Any]]] = [
    ("1d", (2, 5, 4), (3,), 6, {"padding": "VALID"}),
    ("1d_all", (2, 5, 4), (3,), 6, {"stride": 3, "padding": 1, "output_padding": 2, "dilation": 2, "groups": 2}),
    ("2d", (2, 4, 5, 3), (3, 3), 4, {"padding": "VALID"}),
    ("2d_double", (2, 4, 5, 3), (4, 4), 4, {"stride": 2, "padding": 1}),
    ("2d_gap", (2, 4, 3, 3), (2, 1), 4, {"stride": 3, "padding": 0, "output_padding": [1, 2]}),
    ("2d_uneven", (2, 4, 5, 3), (2, 3), 4, {"stride": [1, 2], "padding": [0, 1], "output_padding": [0, 1]}),
    ("2d_groups", (2, 4, 4, 6), (3, 3), 9, {"stride": 2, "padding": 1, "groups": 3}),
    ("2d_dilation", (2, 4, 4, 3), (3, 2), 4, {"padding": [3, 1], "dilation": [2, 3]}),
    (
        "3d_all",
        (2, 3, 2, 3, 4),
        (3, 2, 3),
        4,
        {"stride": 2, "padding": [1, 0, 1], "output_padding": [1, 0, 1], "groups": 2},
    ),
]


def make_conv() -> Cases:
    rng, cases = np.random.default_rng(0), Cases()

    def inputs(
        shape: Sequence[int], window: Sequence[int], features: int, options: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        kernel = normal(rng, *window, shape[-1] // options.get("groups", 1), features)
        return {"x": normal(rng, *shape), "kernel": kernel, "bias": normal(rng, features)}

    for name, shape, window, features, options in CONV:

        def conv(x, kernel, bias, *, window=window, o=options):
            x, padding = first(x), o["padding"]
            if isinstance(padding, list) and isinstance(padding[0], list):
                x, padding = F.pad(x, [cells for pair in reversed(padding) for cells in pair]), 0
            padding = padding.lower() if isinstance(padding, str) else padding
            function = (F.conv1d, F.conv2d, F.conv3d)[len(window) - 1]
            weight = kernel.movedim((-1, -2), (0, 1))
            rest = {k: o[k] for k in ("stride", "dilation", "groups") if k in o}
            return last(function(x, weight, bias, padding=padding, **rest))

        add(cases, f"conv_{name}", "conv", options, inputs(shape, window, features, options), conv)

    for name, shape, window, features, options in TRANSPOSE:

        def transpose(x, kernel, bias, *, window=window, o=options):
            function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(window) - 1]
            # [*window, C / g, F], where feature block i reads channel block i, is PyTorch's [C, F / g, *window]
            blocks = kernel.chunk(o.get("groups", 1), -1)
            weight = torch.cat([block.movedim((-2, -1), (0, 1)) for block in blocks])
            rest = {k: v for k, v in o.items() if k != "padding"}
            padding = 0 if o["padding"] == "VALID" else o["padding"]
            return last(function(first(x), weight, bias, padding=padding, **rest))

        add(
            cases,
            f"conv_transpose_{name}",
            "conv_transpose",
            options,
            inputs(shape, window, features, options),
            transpose,
        )
    return cases


POOL: list[tuple[str, Sequence[int], dict[str, Any]]] = [
    ("1d", (2, 9, 3), {"window": 2}),
    ("1d_overlap", (2, 9, 3), {"window": 3, "stride": 2, "padding": 1}),
    ("2d", (2, 6, 4, 3), {"window": 2}),
    ("2d_crop", (2, 7, 8, 3), {"window": [2, 3]}),
    ("2d_overlap", (2, 7, 8, 3), {"window": 3, "stride": 2, "padding": 1}),
    ("2d_sparse", (2, 7, 8, 3), {"window": 2, "stride": [3, 1]}),
    ("2d_padded", (2, 6, 6, 3), {"window": [2, 4], "padding": [1, 2]}),
    ("3d", (2, 4, 5, 6, 2), {"window": [2, 2, 3]}),
    ("3d_overlap", (2, 4, 5, 6, 2), {"window": [2, 3, 3], "stride": [2, 1, 2], "padding": [0, 1, 1]}),
]

RESIZE: list[tuple[str, str, Sequence[int], dict[str, Any]]] = [
    ("1d_nearest", "upsample", (2, 5, 3), {"factor": 3}),
    ("2d_nearest", "upsample", (2, 3, 4, 3), {"factor": [2, 3]}),
    ("3d_nearest", "upsample", (2, 2, 3, 2, 2), {"factor": 2}),
    ("1d_linear", "upsample", (2, 5, 3), {"factor": 3, "method": "linear"}),
    ("2d_linear", "upsample", (2, 3, 4, 3), {"factor": [2, 4], "method": "linear"}),
    ("3d_linear", "upsample", (2, 2, 3, 2, 2), {"factor": 2, "method": "linear"}),
    ("2d_size_nearest", "resize", (2, 5, 8, 3), {"size": [7, 3], "method": "nearest"}),
    ("2d_size_linear", "resize", (2, 5, 4, 3), {"size": [8, 7]}),
    ("2d_shrink_linear", "resize", (2, 9, 8, 3), {"size": [4, 3]}),
]


def make_pool() -> Cases:
    rng, cases = np.random.default_rng(1), Cases()
    for name, shape, options in POOL:
        # every value once, so that no window ties
        x = (rng.permutation(math.prod(shape)).reshape(shape) / math.prod(shape) - 0.5).astype(np.float32)
        arguments = {("kernel_size" if k == "window" else k): v for k, v in options.items()}
        axes = len(shape) - 2

        def maximum(x, *, axes=axes, arguments=arguments):
            return last((F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1](first(x), **arguments))

        def average(x, *, axes=axes, arguments=arguments):
            function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
            return last(function(first(x), count_include_pad=False, **arguments))

        add(cases, f"max_{name}", "max_pool", options, {"x": x}, maximum)
        add(cases, f"average_{name}", "average_pool", options, {"x": x}, average)
    for axes in (1, 2, 3):
        shape = (*(2, 5, 4, 3)[: axes + 1], 3)
        x = {"x": normal(rng, *shape)}
        add(cases, f"global_max_{axes}d", "global_max_pool", {}, x, lambda x: x.flatten(1, -2).amax(1))
        add(cases, f"global_average_{axes}d", "global_average_pool", {}, x, lambda x: x.flatten(1, -2).mean(1))
    for name, function, shape, options in RESIZE:
        linear = ("linear", "bilinear", "trilinear")[len(shape) - 3]
        default = "linear" if function == "resize" else "nearest"
        mode = linear if options.get("method", default) == "linear" else "nearest"
        sizing: dict[str, Any] = {"mode": mode}
        if "size" in options:
            sizing["size"] = options["size"]
        else:
            factor = options["factor"]
            sizing["scale_factor"] = tuple(map(float, factor)) if isinstance(factor, list) else float(factor)
        if mode != "nearest":
            sizing["align_corners"] = False

        def interpolate(x, *, sizing=sizing):
            return last(F.interpolate(first(x), **sizing))

        add(cases, f"resize_{name}", function, options, {"x": normal(rng, *shape)}, interpolate)
    return cases


def make_norm() -> Cases:
    rng, cases = np.random.default_rng(2), Cases()

    def arrays(*shape: int, bias: bool = True, offset: float = 0.5) -> dict[str, np.ndarray]:
        found = {"x": (2 * normal(rng, *shape) + offset).astype(np.float32), "scale": normal(rng, shape[-1])}
        return found | ({"bias": normal(rng, shape[-1])} if bias else {})

    def batch(x, scale, bias, mean, var):
        # spelt out, as PyTorch does not differentiate the running statistics
        out = (x - mean) / torch.sqrt(var + 1e-5) * scale + bias
        torch.testing.assert_close(out, last(F.batch_norm(first(x), mean.detach(), var.detach(), scale, bias)))
        return out

    for name, shape in (("2", (6, 5)), ("4", (3, 4, 2, 5))):
        statistics = {"mean": normal(rng, 5), "var": rng.uniform(0.5, 2, 5).astype(np.float32)}
        add(cases, f"batch_norm_{name}", "batch_norm", {}, arrays(*shape) | statistics, batch)
    for name, shape, offset in (("2", (6, 5), 0.5), ("3", (3, 4, 5), 0.5), ("far", (3, 4, 5), 30.0)):
        x = arrays(*shape, offset=offset)
        add(cases, f"layer_norm_{name}", "layer_norm", {}, x, lambda x, scale, bias: F.layer_norm(x, (5,), scale, bias))
        bare = {"x": x["x"]}
        add(cases, f"layer_norm_bare_{name}", "layer_norm", {}, bare, lambda x: F.layer_norm(x, (5,)))
        without = {k: v for k, v in x.items() if k != "bias"}
        add(cases, f"rms_norm_{name}", "rms_norm", {}, without, lambda x, scale: F.rms_norm(x, (5,), scale, eps=1e-5))
    for groups, shape in ((1, (3, 4, 6)), (3, (3, 4, 2, 6)), (6, (3, 5, 6)), (2, (3, 6)), (2, (2, 2, 3, 2, 6))):

        def group(x, scale, bias, *, groups=groups):
            return last(F.group_norm(first(x), groups, scale, bias))

        add(cases, f"group_norm_{groups}_{len(shape)}", "group_norm", {"groups": groups}, arrays(*shape), group)
    for shape in ((3, 4, 5), (3, 4, 2, 5), (2, 3, 2, 2, 5)):

        def instance(x, scale, bias):
            return last(F.instance_norm(first(x), weight=scale, bias=bias))

        add(cases, f"instance_norm_{len(shape)}", "instance_norm", {}, arrays(*shape), instance)

    # Two training batches through BatchNorm. PyTorch keeps the unbiased variance, we the biased.
    for name, shape in (("2", (6, 5)), ("4", (3, 4, 2, 5))):
        cases |= _running(rng, name, shape)
    return cases


def _running(rng: np.random.Generator, name: str, shape: Sequence[int]) -> Cases:
    """A BatchNorm layer's output, gradients and running statistics, ours but for the variance's bias."""
    layer = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)](shape[-1], momentum=0.1)
    n = math.prod(shape[:-1])
    xs = [torch.tensor(normal(rng, *shape) + k, requires_grad=True) for k in (0.0, 1.0)]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(normal(rng, shape[-1])))
        layer.bias.copy_(torch.tensor(normal(rng, shape[-1])))
    cases, prefix = Cases(), f"running_{name}"
    var = np.ones(shape[-1], np.float32)
    for k, x in enumerate(xs):
        before = layer.running_var.clone()
        out = last(layer(first(x)))
        weights = normal(rng, *shape)
        layer.zero_grad()
        (out * torch.tensor(weights)).sum().backward()
        biased = x.detach().flatten(0, -2).var(0, unbiased=False)
        torch.testing.assert_close(layer.running_var, 0.9 * before + 0.1 * biased * n / (n - 1))
        var = 0.9 * var + 0.1 * biased.numpy()
        step = {"x": x.detach(), "out": out.detach(), "mean": layer.running_mean, "grad_x": x.grad}
        step |= {"grad_scale": layer.weight.grad, "grad_bias": layer.bias.grad}
        cases |= {f"{prefix}/{k}/{key}": value.numpy().copy() for key, value in step.items()}
        cases |= {f"{prefix}/{k}/var": var, f"{prefix}/{k}/weights": weights}
    cases |= {f"{prefix}/scale": layer.weight.detach().numpy(), f"{prefix}/bias": layer.bias.detach().numpy()}
    return cases


ELEMENTWISE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hard_sigmoid": F.hardsigmoid,
    "hard_silu": F.hardswish,
    "hard_tanh": F.hardtanh,
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "glu": F.glu,
    "reglu": lambda x: x.chunk(2, -1)[0] * F.relu(x.chunk(2, -1)[1]),
    "geglu": lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]),
    "swiglu": lambda x: x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1]),
}


def make_activation() -> Cases:
    x = np.concatenate([np.linspace(-8, 8, 54), [-20, -0.0, 0, 20, -1e-3, 1e-3]]).astype(np.float32).reshape(6, 10)
    cases = Cases()
    for name, function in ELEMENTWISE.items():
        add(cases, name, name, {}, {"x": x}, function)
    return cases


def make_dense() -> Cases:
    rng, cases = np.random.default_rng(3), Cases()
    for shape in ((4,), (3, 4), (3, 5, 4), (2, 3, 2, 4)):
        arrays = {"x": normal(rng, *shape), "kernel": normal(rng, 4, 6), "bias": normal(rng, 6)}
        add(cases, f"dense_{len(shape)}", "dense", {}, arrays, lambda x, kernel, bias: x @ kernel + bias)
    arrays = {"x": normal(rng, 3, 4), "kernel": normal(rng, 4, 6)}
    add(cases, "dense_no_bias", "dense", {}, arrays, lambda x, kernel: F.linear(x, kernel.T))
    ids = rng.integers(0, 7, (3, 5)).astype(np.int32)
    arrays = {"ids": ids, "table": normal(rng, 7, 4)}
    add(cases, "embedding", "embedding", {}, arrays, lambda ids, table: F.embedding(ids, table))
    return cases


if __name__ == "__main__":
    for subject, make in {
        "conv": make_conv, "pool": make_pool, "norm": make_norm, "activation": make_activation, "dense": make_dense
    }.items():  # fmt: skip
        np.savez_compressed(HERE / f"{subject}.npz", **make())

"""The table of a model, against counts and costs that PyTorch and XLA publish."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.show import text
from tests.nn.toys import refused


def like(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def abstract(spec: nn.Spec) -> nn.Variables:
    """Variables of these shapes, without memory."""
    return jax.tree.map(
        lambda leaf: like(*leaf.shape, dtype=leaf.dtype),
        nn.Variables(spec.params, spec.state),
        is_leaf=lambda leaf: isinstance(leaf, nn.Param),
    )


def conv_relu(*widths: int) -> list:
    return [layer for width in widths for layer in (nn.Conv(width, 3, padding=1), nn.relu)]


def classifier(*widths: int) -> list:
    hidden = [layer for width in widths for layer in (nn.Dense(width), nn.relu, nn.Dropout(0.5))]
    return [nn.Flatten(), *hidden, nn.Dense(1000)]


VGG16 = nn.Chain(
    *[
        layer
        for widths in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
        for layer in (*conv_relu(*widths), nn.MaxPool(2))
    ],
    *classifier(4096, 4096),
)
ALEXNET = nn.Chain(
    *(nn.Conv(64, 11, stride=4, padding=2), nn.relu, nn.MaxPool(3, stride=2)),
    *(nn.Conv(192, 5, padding=2), nn.relu, nn.MaxPool(3, stride=2)),
    *(*conv_relu(384, 256, 256), nn.MaxPool(3, stride=2)),
    *classifier(4096, 4096),
)


LENET5 = nn.Chain(
    *(nn.Conv(6, 5, padding=2), nn.tanh, nn.AveragePool(2)),
    *(nn.Conv(16, 5, padding=0), nn.tanh, nn.AveragePool(2)),
    *(nn.Flatten(), nn.Dense(120), nn.tanh, nn.Dense(84), nn.tanh, nn.Dense(10)),
)
MLP = nn.Chain(nn.Flatten(), nn.Dense(128), nn.relu, nn.Dense(10))
SMALL = {
    # kernels and biases, layer by layer
    "mlp": (MLP, like(32, 28, 28, 1), [784 * 128 + 128, 128 * 10 + 10], 101_770),
    "lenet5": (
        LENET5,
        like(8, 28, 28, 1),
        [25 * 6 + 6, 25 * 6 * 16 + 16, 400 * 120 + 120, 120 * 84 + 84, 84 * 10 + 10],
        61_706,
    ),
    "convs": (
        nn.Chain(
            nn.Conv(32, 3, padding=0), nn.relu, nn.Conv(32, 3, padding=0), nn.MaxPool(2), nn.Flatten(), nn.Dense(10)
        ),
        like(4, 20, 20, 16),
        [9 * 16 * 32 + 32, 9 * 32 * 32 + 32, 64 * 32 * 10 + 10],
        34_378,
    ),
}


@pytest.mark.parametrize(("model", "x", "by_layer", "total"), SMALL.values(), ids=SMALL)
def test_small_networks_by_hand_and_by_the_compiler(model, x, by_layer, total):
    summary = jdl.summary(model, x)
    assert [row.parameters for row in summary.spec.rows if row.parameters] == by_layer
    assert sum(by_layer) == summary.spec.parameters == total
    assert f"trained       {total:,} parameters\n" in str(summary)
    compiled = jax.jit(model).lower(abstract(summary.spec), x).compile()
    # The compiler leaves out what meets padding: 3% of LeNet-5.
    assert summary.spec.flops == pytest.approx(compiled.cost_analysis()["flops"], rel=0.04)


@pytest.mark.parametrize(
    ("model", "parameters", "multiply_adds"),
    # As torchvision's documentation gives them for vgg16 and alexnet.
    [(VGG16, 138_357_544, 15.47e9), (ALEXNET, 61_100_840, 0.71e9)],
    ids=["vgg16", "alexnet"],
)
def test_networks_of_torchvision(model, parameters, multiply_adds):
    summary = jdl.summary(model, like(1, 224, 224, 3))
    assert summary.spec.parameters == parameters
    assert summary.spec.flops == pytest.approx(2 * multiply_adds, rel=0.02)
    assert f"{parameters:,} parameters" in str(summary)


@pytest.mark.parametrize(
    ("layer", "x", "parameters", "state"),
    # sum(p.numel() for p in m.parameters()), and the buffers, of the PyTorch layer of this name
    [
        (nn.Dense(128), like(32, 784), 100_480, 0),  # Linear(784, 128)
        (nn.Dense(10, bias=False), like(32, 128), 1_280, 0),  # Linear(128, 10, bias=False)
        (nn.Conv(64, 7, bias=False), like(1, 32, 32, 3), 9_408, 0),  # Conv2d(3, 64, 7, bias=False)
        (nn.Conv(32, 3, groups=4), like(1, 8, 8, 16), 1_184, 0),  # Conv2d(16, 32, 3, groups=4)
        (nn.ConvTranspose(8, 3), like(1, 8, 8, 16), 1_160, 0),  # ConvTranspose2d(16, 8, 3)
        (nn.BatchNorm(), like(2, 8, 8, 64), 128, 128),  # BatchNorm2d(64), without num_batches_tracked
        (nn.LayerNorm(), like(2, 8, 512), 1_024, 0),  # LayerNorm(512)
        (nn.Embedding(1000, 64), like(2, 8, dtype=jnp.int32), 64_000, 0),  # Embedding(1000, 64)
    ],
    ids=str,
)
def test_counts_are_those_of_pytorch(layer, x, parameters, state):
    spec = jdl.summary(layer, x).spec
    assert (spec.parameters, spec.untrained) == (parameters, state)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.ConvTranspose(32, 2, stride=2), like(8, 28, 28, 3)),
        (nn.Chain(nn.Dense(64), nn.relu, nn.ConvTranspose(4, 3, stride=3)), like(2, 9, 9, 5)),
    ],
    ids=["transposed", "dense and transposed"],
)
def test_flops_are_those_of_xla(model, x):
    spec = model.spec(x)
    xla = jax.jit(model).lower(abstract(spec), x).cost_analysis()["flops"]
    assert spec.flops == pytest.approx(xla, rel=0.02)


def test_scattering_costs_one_operation_an_update():
    def histogram(x):
        dimensions = jax.lax.ScatterDimensionNumbers((), (0,), (0,))
        return jax.lax.scatter_add(jnp.zeros(7), jnp.zeros((100, 1), jnp.int32), x, dimensions)

    assert nn.Chain(histogram).spec(like(100)).flops == 100


class Head(nn.Layer):
    def forward(self, net, x):
        if net.train:
            net.child("aux", nn.Dense(3))(x)
        return net.child("out", nn.Dense(4))(x)


TABLE = """\
path       layer             output   parameters   FLOPs    bytes
─────────────────────────────────────────────────────────────────
           Chain             [8, 4]
  first    Dense(16)         [8, 16]         336  5.25 k  1.34 kB
  body     Chain             [8, 16]
    0      Residual          [8, 16]                 128
           Chain             [8, 16]
        0  Dense(16)         [8, 16]         272  4.22 k  1.09 kB
        1  tanh              [8, 16]                 128
    1      BatchNorm()       [8, 16]          32     544    256 B
    2      Dropout(0.5)      [8, 16]
  last     Head              [8, 4]
    out    Dense(4)          [8, 4]           68  1.06 k    272 B
           only in training                   51            204 B
─────────────────────────────────────────────────────────────────
trained       759 parameters
not trained   32 numbers of state
memory        3.16 kB (3,164 bytes)
forward pass  11.3 kFLOPs (11,328)"""


def test_every_layer_stands_in_the_table_in_order():
    block = nn.Residual(nn.Chain(nn.Dense(16), jnp.tanh))
    body = nn.Chain(block, nn.BatchNorm(), nn.Dropout(0.5))
    model = nn.Chain(first=nn.Dense(16), body=body, last=Head())
    assert str(jdl.summary(model, like(8, 20))) == TABLE
    assert repr(jdl.summary(model, jnp.zeros((8, 20)))) == TABLE


def test_a_shared_layer_shows_its_parameters_once_and_its_work_twice():
    class Twice(nn.Layer):
        def forward(self, net, x):
            return net.child("same", nn.Dense(5))(net.child("same", nn.Dense(5))(x))

    lines = [line.split() for line in str(jdl.summary(Twice(), like(2, 5))).splitlines() if "same" in line]
    assert lines == [
        ["same", "Dense(5)", "[2,", "5]", "30", "110", "120", "B"],
        ["same", "Dense(5)", "[2,", "5]", "110"],
    ]


@pytest.mark.parametrize(("copies", "output"), [(nn.Repeat, "[2, 5]"), (nn.Ensemble, "[7, 2, 5]")])
def test_copies_show_once_with_the_parameters_of_all(copies, output):
    table = str(jdl.summary(copies(nn.Chain(nn.Dense(5), nn.BatchNorm()), 7), like(2, 5)))
    rows = [re.split(r"  +", line.strip()) for line in table.splitlines()[2:]]
    assert rows[:4] == [
        [f"{copies.__name__}(7)", output],
        ["Chain", "[2, 5]"],
        ["0", "Dense(5)", "[2, 5]", "210", "770", "840 B"],  # 7 (25 + 5); 7 (2·50 + 10)
        ["1", "BatchNorm()", "[2, 5]", "70", rows[3][4], "560 B"],
    ]
    assert table.splitlines()[7:9] == ["trained       280 parameters", "not trained   70 numbers of state"]


def test_lines_keep_within_100_columns():
    deep = nn.Dense(10, kernel_init=nn.init.normal(0.123456789), bias_init=nn.init.normal(0.987654321))
    for level in range(12):
        deep = nn.Chain(**{f"a_rather_long_name_{level}": deep})
    wide = nn.Chain(deep, nn.Parallel(*[nn.Reshape((1, 1, 10, 1, 1, 1))] * 4))
    text_ = str(jdl.summary(wide, like(1024, 10**5)))
    assert max(map(len, text_.splitlines())) <= 100
    assert text_.count("…") > 10
    assert sum(line.lstrip().startswith("a_rather") for line in text_.splitlines()) == 12


def test_ten_billion_parameters_need_no_memory():
    before = sum(array.nbytes for array in jax.live_arrays())
    summary = jdl.summary(nn.Chain(nn.Dense(100_000), jnp.tanh, nn.Repeat(nn.Dense(100_000), 7)), like(4, 100_000))
    assert summary.spec.parameters == 8 * (100_000 * 100_000 + 100_000)
    assert "trained       80,000,800,000 parameters" in str(summary) and "320 GB (320,003,200,000 bytes)" in str(
        summary
    )
    assert sum(array.nbytes for array in jax.live_arrays()) == before


def test_options_dtypes_and_several_outputs_show():
    class Pair(nn.Layer):
        def forward(self, net, x, *, width: int):
            return x[:, :width], {"rest": x.astype(jnp.bfloat16).sum()}

    assert "([8, 2], {rest: b…" in str(jdl.summary(Pair(), like(8, 20), width=2))
    assert " int32[2, 8] " in f"{jdl.summary(nn.Chain(jnp.abs), like(2, 8, dtype=jnp.int32))} ".replace("\n", " \n")


def test_bad_input_is_said():
    with pytest.raises(InputError, match=r"model got function relu|model got <.*relu.*>, wanted a layer"):
        jdl.summary(nn.relu, like(2, 3))
    with pytest.raises(InputError, match="wanted a floating dtype"):
        jdl.summary(nn.Chain(nn.Dense(3)), like(2, 3, dtype=jnp.int32))


def test_frozen_parameters_are_counted_by_themselves():
    model, x = nn.Chain(body=nn.Chain(nn.Dense(5), nn.BatchNorm()), head=nn.Dense(4)), like(2, 3)
    variables = abstract(model.spec(x))
    frozen = jdl.freeze(variables, "body/**")
    total = ["trained       54 parameters", "not trained   10 numbers of state"]
    assert str(jdl.summary(model, x, variables=variables)).splitlines()[-4:-2] == total
    table = jdl.summary(model, x, variables=frozen)
    parts = ["trained       24 parameters", "frozen        30 parameters", "not trained   10 numbers of state"]
    assert str(table).splitlines()[-5:-2] == parts and table.frozen == 30
    with refused("variables got float32[3, 5] for body/0/kernel, wanted float32[7, 5]", "another width of input"):
        jdl.summary(model, like(2, 7), variables=frozen)
    with refused("variables got nothing for 0/bias"):
        jdl.summary(nn.Chain(nn.Dense(4)), x, variables=frozen)
    with refused("variables got dict, wanted jdl.Variables"):
        jdl.summary(model, x, variables={})  # pyright: ignore[reportArgumentType]


def test_inputs_that_a_model_does_not_take_are_refused():
    for model in (nn.Dense(3), nn.Chain(nn.Dense(3)), nn.Repeat(nn.Dense(3), 2)):
        with refused("Dense(3): takes 1 input (x), got 2: (float32[2, 3], float32[2, 3])"):
            jdl.summary(model, like(2, 3), like(2, 3))
    with refused("Chain(Dense(3)): got mode, which Chain does not take"):
        jdl.summary(nn.Chain(nn.Dense(3)), like(2, 3), mode=1)
    with pytest.raises(TypeError, match="not callable"):  # a mistake of the model's own
        jdl.summary(nn.Chain(lambda x: x(x)), like(2, 3))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "", "0"),
        (999, "", "999"),
        (999.7, "", "1 k"),
        (1_000, "B", "1 kB"),
        (12, "B", "12 B"),
        (1_234_567, "", "1.23 M"),
        (999_600, "", "1 M"),
        (123_456_789, "B", "123 MB"),
        (2.5e9, "FLOPs", "2.5 GFLOPs"),
        (7e18, "", "7e+03 P"),
    ],
)
def test_numbers_are_short(value, unit, expected):
    assert text.number(value, unit) == expected

"""The variables of one sub-layer: trained, frozen, without arrays, in a field, a tuple or a chain."""

from __future__ import annotations

import jax
import pytest

import jdl
from jdl import nn
from tests.nn.toys import KEY, Linear, Mean, Noise, assert_equal, normal, refused

X = normal(4, 3)


class Whole(nn.Layer):
    stem: nn.Layer = nn.Chain(Linear(3), Mean(), noise=Noise())
    blocks: tuple[nn.Layer, ...] = (Noise(), nn.Residual(nn.Chain(Noise(), Linear(3))))
    sizes: tuple[int, ...] = (1, 2)

    def forward(self, net, x):
        for layer in (net.stem, *net.blocks):
            x = layer(x)
        return net.child("head", Linear(2))(x)


MODEL = Whole()
VARIABLES = MODEL.init(KEY, X)
PARAMS, STATE = VARIABLES


@pytest.mark.parametrize(
    ("path", "params", "state"),
    [
        ("stem", PARAMS["stem"], STATE["stem"]),
        ("stem/0", PARAMS["stem"]["0"], {}),
        ("stem/1", {}, STATE["stem"]["1"]),
        ("stem/noise", {}, {}),
        ("blocks/0", {}, {}),
        ("blocks/1", PARAMS["blocks"]["1"], {}),
        ("blocks/1/0", {}, {}),
        ("head", PARAMS["head"], {}),
    ],
)
def test_part(path, params, state):
    assert_equal(nn.part(MODEL, VARIABLES, path), nn.Variables(params, state))


def test_a_part_is_called_by_itself_also_where_it_is_frozen():
    frozen = jdl.freeze(VARIABLES, "stem/**")
    assert "stem" not in frozen.params
    stem = [MODEL.stem(nn.part(MODEL, variables, "stem"), X) for variables in (VARIABLES, frozen)]
    assert_equal(*stem)
    with refused("in 0: Linear(3): has no array 'kernel'", "takes nn.part(model, variables, path)"):
        jax.eval_shape(MODEL.stem, VARIABLES, X)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        *[(path, "one of ['blocks', 'head', 'stem'], or a path below") for path in ("heads", "sizes", "sizes/0", "")],
        ("stem/2", "one of ['0', '1', 'noise'], which 'stem' holds"),
        ("stem/0/kernel", "nothing below 'stem/0', which holds no sub-layers"),
        ("blocks/2/0", "one of ['0', '1'], which 'blocks' holds"),
        ("blocks/1/0/x", "nothing below 'blocks/1/0'"),
        ("head/x/y", "nothing below 'head'"),
    ],
)
def test_what_is_no_sub_layer_is_refused(path, wanted):
    with refused(f"part got {path!r}, wanted {wanted}"):
        nn.part(MODEL, VARIABLES, path)


def test_variables_are_a_pair():
    with refused("variables got {}, wanted Variables(params, state)"):
        nn.part(MODEL, {}, "stem")  # pyright: ignore[reportArgumentType]

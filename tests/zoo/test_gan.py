"""GANs: PyTorch's scores and every player's gradients, what evaluation does without a key, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from experiments.gan import criticising, passing, play, pleasing, telling_apart
from jdl import nn, zoo
from tests.golden.reading import load
from tests.networks import assert_close
from tests.nn.toys import KEY, normal, refused

GOLDEN = load("gan")
KEYS = KEY, jax.random.key(1)
MODELS = {
    "GAN": zoo.GAN(zoo.DCGANGenerator(2, 2), zoo.DCGANDiscriminator(2, depth=2), latent=3),
    "WassersteinGAN": zoo.WassersteinGAN(zoo.DCGANGenerator(2, 2), zoo.DCGANDiscriminator(2, None, depth=2), latent=3),
}


def nested(prefix: str) -> Any:
    """The arrays below a path of the file, as a tree."""
    tree: dict[str, Any] = {}
    for name, value in GOLDEN.items():
        if name.startswith(prefix):
            *parts, last = name.removeprefix(prefix).split("/")
            below = tree
            for part in parts:
                below = below.setdefault(part, {})
            below[last] = jnp.asarray(value)
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradients_are_pytorchs(name: str):
    model, train = MODELS[name], name == "GAN"
    inputs, params = {"real": GOLDEN["real"], "noise": GOLDEN["noise"]}, nested(f"{name}/params/")
    state = model.init(KEY, **inputs).state
    losses = (passing, telling_apart) if train else (pleasing, criticising)

    @jax.jit
    def everything(params: Any) -> Any:
        def loss(own: Any, player: str, function: Any) -> Any:
            outputs, new = model.apply(params | {player: own}, state, **inputs, key=KEY, train=train)
            return function(outputs, None), (outputs, new)

        players = zip(("generator", "discriminator"), losses, strict=True)
        return {player: jax.grad(loss, has_aux=True)(params[player], player, of) for player, of in players}

    found = everything(params)
    for player, (gradient, (outputs, new)) in found.items():
        assert_close(gradient, nested(f"{name}/{player}/{player}/"), 1e-5)
        for output in ("real", "fake") if train else ("real", "fake", "slope"):
            assert_close(getattr(outputs, output), GOLDEN[f"{name}/{output}"], 1e-5)
        if train:
            means = jax.tree.map(lambda kept: kept["mean"], new, is_leaf=lambda kept: "mean" in kept)
            wanted = jax.tree.map(lambda kept: kept["mean"], nested(f"{name}/state/"), is_leaf=lambda k: "mean" in k)
            assert_close(means, wanted, 1e-5)


def test_the_standard_sizes():
    noise, images = np.zeros((1, 64), np.float32), np.zeros((1, 28, 28, 1), np.float32)
    assert zoo.DCGANGenerator().spec(noise).parameters == 533_889
    assert zoo.DCGANDiscriminator().spec(images).parameters == 661_313
    assert zoo.GAN().spec(images).output.images.shape == (1, 28, 28, 1)
    assert zoo.DCGANGenerator(8, size=8, channels=3).spec(noise).output.shape == (1, 32, 32, 3)
    resizing = zoo.DCGANGenerator(up=zoo.resize_convolution).spec(noise)
    assert resizing.output.shape == (1, 28, 28, 1) and resizing.params["image"]["1"]["kernel"].shape == (3, 3, 64, 1)


@pytest.mark.slow
def test_noise_is_drawn_in_training_and_is_always_the_same_in_evaluation():
    model, real = MODELS["WassersteinGAN"], jnp.asarray(GOLDEN["real"])
    variables = model.init(KEY, real)
    program = jax.jit(lambda key: model.apply(*variables, real, key=key, train=True)[0])
    first, other = program(KEY), program(jax.random.key(1))
    assert np.max(np.abs(first.images - other.images)) > 1e-3 and np.all(first.real == other.real)
    noise = jax.random.normal(jax.random.key(0), (4, 3))
    fixed, given = jax.jit(lambda noise: (model(variables, real), model(variables, real, noise=noise)))(noise)
    assert_close(fixed, given)


def test_a_critic_may_draw_where_its_slope_is_taken():
    critic = nn.Chain(nn.Flatten(), nn.Dropout(0.5), lambda x: x.sum(1))
    model = zoo.WassersteinGAN(nn.Reshape((4, 4, 1)), critic, latent=16)
    apply = jax.jit(functools.partial(model.apply, {}, {}, train=True))
    real = np.zeros((3, 4, 4, 1), np.float32)
    kept = np.stack(
        [apply(real, key=key)[0].slope ** 2 / 4 for key in KEYS]
    )  # every pixel that is kept has a slope of 2
    assert_close(kept, np.round(kept))
    assert np.ptp(kept) > 0 and np.any(kept[0] != kept[1]), "each image has a mask of its own, and each pass"


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_unknown_size_can_be_exported(name: str):
    model, real = MODELS[name], GOLDEN["real"]
    (size,) = export.symbolic_shape("b")
    variables = jax.eval_shape(model.init, KEY, real)
    for shapes in ([real.shape[1:]], [real.shape[1:], (3,)]):
        arrays = [jax.ShapeDtypeStruct((size, *shape), jnp.float32) for shape in shapes]
        assert jax.eval_shape(model, variables, *arrays).fake.shape == (size,)


@pytest.mark.slow
def test_a_penalty_where_the_critic_is_flat_has_a_gradient():
    model, real = MODELS["WassersteinGAN"], jnp.asarray(GOLDEN["real"])
    params, state = model.init(KEY, real)
    flat = params | {"discriminator": jax.tree.map(jnp.zeros_like, params["discriminator"])}
    grads, aux = jax.jit(play(model, pleasing, criticising))(flat, state, {"inputs": real}, KEY)
    assert float(aux.loss) == pytest.approx(10)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_a_steep_slope_fits_into_float16():
    class Steep(nn.Layer):
        def forward(self, net, x):
            return 300 * x.sum((1, 2, 3))  # a gradient of 300 by each of four pixels

    model, real = zoo.WassersteinGAN(nn.Reshape((2, 2, 1)), Steep(), latent=4), jnp.zeros((3, 2, 2, 1), jnp.float16)
    slope = model(nn.Variables({}, {}), real).slope
    assert slope.dtype == jnp.float16 and np.all(slope == 600), "whose square is above 65,504"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.DCGANDiscriminator(2).spec(normal(2, 3, 28, 1)), "wanted at least 8 × 8; use less depth"),
        (lambda: zoo.DCGANDiscriminator(2).spec(normal(2, 1, 28, 28)), "channels come last: x.transpose(0, 2, 3, 1)"),
        (lambda: MODELS["GAN"].spec(normal(2, 1, 8, 8)), "channels come last: x.transpose(0, 2, 3, 1)"),
        (lambda: zoo.DCGANDiscriminator(2).spec(normal(2, 28, 28)), "[B, H, W, C]"),
        (lambda: zoo.DCGANGenerator(2).spec(normal(2, 3, 3)), "[B, D]"),
        (lambda: MODELS["GAN"].spec(normal(2, 28, 28, 1)), "set the generator's size and channels"),
        (lambda: MODELS["GAN"].spec(np.zeros((2, 8, 8, 1), np.uint8)), "x / 127.5 - 1"),
        (lambda: zoo.WassersteinGAN(discriminator=zoo.DCGANDiscriminator(2)).spec(normal(2, 28, 28, 1)), "norm=None"),
        (lambda: zoo.DCGANGenerator(0), "width"),
        (lambda: zoo.GAN(latent=0), "latent"),
    ],
)
def test_what_is_refused(call: Any, message: str):
    with refused(message):
        call()

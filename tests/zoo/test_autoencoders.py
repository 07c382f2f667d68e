"""The autoencoders: PyTorch's values and gradients, what the noise of a variational one does, what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import losses, nn, zoo
from tests.golden import reading
from tests.nn.toys import KEY, assert_close, normal, refused

GOLDEN = reading.load("autoencoders")
TOLERANCE = 1e-5


def sparse(outputs: zoo.Coded, targets: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    reconstruction, code = outputs
    sparsity = 0.5 * losses.kl_sparsity(code, mask, target=0.1) + 0.25 * losses.l1_sparsity(code, mask)
    return losses.mse(reconstruction, targets, mask) + sparsity


def dense(kind: type[zoo.Autoencoder], code: int = 3) -> zoo.Autoencoder:
    return kind(zoo.DenseEncoder(code, (5,)), zoo.DenseDecoder((4, 4, 2), (5,)))


def convolutional(kind: type[zoo.Autoencoder], code: int = 3) -> zoo.Autoencoder:
    return kind(zoo.ConvolutionalEncoder(code, (2, 4)), zoo.ConvolutionalDecoder((8, 8, 1), (4, 2)))


def squashed(model: zoo.Autoencoder) -> zoo.Autoencoder:
    return type(model)(nn.Chain(model.encoder, nn.sigmoid), model.decoder)


normal_elbo = losses.configured(losses.negative_elbo, likelihood=losses.configured(losses.gaussian_nll, std=0.5))
CASES = {
    "dense": (dense(zoo.Autoencoder), losses.mse),
    "convolutional": (convolutional(zoo.Autoencoder), losses.mse),
    "sparse dense": (squashed(dense(zoo.SparseAutoencoder)), sparse),
    "sparse convolutional": (squashed(convolutional(zoo.SparseAutoencoder)), sparse),
    "variational dense": (dense(zoo.VariationalAutoencoder, 6), losses.configured(losses.negative_elbo, beta=1.5)),
    "variational convolutional": (convolutional(zoo.VariationalAutoencoder, 6), normal_elbo),
}


def below(prefix: str) -> dict[str, jax.Array]:
    return {key.removeprefix(prefix): jnp.asarray(value) for key, value in GOLDEN.items() if key.startswith(prefix)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "sparse convolutional")) for name in CASES]
)
def test_values_losses_and_gradients_are_those_of_pytorch(name: str):
    model, loss = CASES[name]
    inputs, mask, params = below(f"{name}/in/"), jnp.asarray(GOLDEN[f"{name}/mask"]), below(f"{name}/params/")
    spec = model.spec(**inputs).params
    params = jax.tree.unflatten(jax.tree.structure(spec), [params.pop(path) for path in jdl.paths(spec)])

    @jax.jit
    def program(params: Any) -> Any:
        def total(params: Any) -> Any:
            outputs = model(nn.Variables(params, {}), **inputs)
            return loss(outputs, inputs["x"], mask=mask), outputs

        (value, outputs), gradient = jax.value_and_grad(total, has_aux=True)(params)
        each = loss(outputs, inputs["x"], mask=mask, reduction="none") if f"{name}/none" in GOLDEN else None
        return value, outputs, gradient, each

    value, outputs, gradient, each = program(params)
    ours = {"loss": value} | {f"out/{index}": out for index, out in enumerate(jax.tree.leaves(outputs))}
    ours |= {f"grad/{path}": leaf for path, leaf in zip(jdl.paths(gradient), jax.tree.leaves(gradient), strict=True)}
    ours |= {} if each is None else {"none": each}
    theirs = {key: value for key, value in below(f"{name}/").items() if not key.startswith(("in/", "params/", "mask"))}
    assert ours.keys() == theirs.keys()
    for key, wanted in theirs.items():
        assert ours[key].shape == wanted.shape, key
        worst, size = np.max(np.abs(ours[key] - wanted)), np.max(np.abs(wanted))
        assert worst <= TOLERANCE * size, f"{key} differs by {worst:.1e} of {size:.1e}"


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (zoo.Autoencoder(zoo.DenseEncoder(32), zoo.DenseDecoder((28, 28, 1))), 837_424),
        (zoo.Autoencoder(zoo.ConvolutionalEncoder(32), zoo.ConvolutionalDecoder((28, 28, 1))), 241_441),
        (zoo.VariationalAutoencoder(zoo.DenseEncoder(40), zoo.DenseDecoder((28, 28, 1))), 835_384),
    ],
)
def test_the_standard_size(model: nn.Layer, parameters: int):
    spec = model.spec(jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32))
    assert spec.parameters == parameters and f"{parameters:,}" in str(type(model).__doc__)
    assert jax.tree.leaves(spec.output)[0].shape == (2, 28, 28, 1)


@pytest.mark.slow
def test_noise_is_drawn_in_training_and_zero_in_evaluation_unless_given():
    model, x, noise = dense(zoo.VariationalAutoencoder, 6), normal(3, 4, 4, 2), normal(3, 3, seed=1)
    variables = model.init(KEY, x)

    @jax.jit
    def program(variables: nn.Variables) -> Any:
        still, given = model(variables, x), model(variables, x, noise=noise)
        drawn = [model.apply(*variables, x, key=jax.random.key(k), train=True)[0] for k in (0, 1)]
        means, deviations = still.mean, jnp.exp(still.log_variance / 2)
        decoded = [model.decoder(nn.part(model, variables, "decoder"), z) for z in (means, means + deviations * noise)]
        return still, given, drawn, decoded

    still, given, (first, second), (at_means, at_noise) = program(variables)
    assert np.any(first.reconstruction != second.reconstruction) and np.any(first.reconstruction != still[0])
    assert_close(first[1:], still[1:])
    assert_close(still.reconstruction, at_means)
    assert_close(given.reconstruction, at_noise)


def test_the_noise_has_the_standard_deviation_that_the_encoder_says():
    class Says(nn.Layer):
        def forward(self, net, x):
            return jnp.concatenate([x, jnp.full_like(x, 2 * np.log(0.5))], -1)

    class Same(nn.Layer):
        def forward(self, net, x):
            return x

    x = jnp.full((20_000, 2), 3.0)
    z = zoo.VariationalAutoencoder(Says(), Same()).apply({}, {}, x, key=KEY, train=True)[0].reconstruction
    assert abs(float(z.mean()) - 3) < 0.01 and abs(float(z.std()) - 0.5) < 0.01


def test_a_part_is_called_by_itself():
    model, x = dense(zoo.SparseAutoencoder), normal(2, 4, 4, 2)
    variables = model.init(KEY, x)

    @jax.jit
    def program(variables: nn.Variables) -> Any:
        code = model.encoder(nn.part(model, variables, "encoder"), x)
        return model(variables, x), zoo.Coded(model.decoder(nn.part(model, variables, "decoder"), code), code)

    whole, parts = program(variables)
    assert_close(whole, parts)
    with refused("in 0: Dense(5): has no array 'kernel'", "takes nn.part(model, variables, path)"):
        model.decoder(variables, parts.code)


def test_networks_are_values():
    model = convolutional(zoo.VariationalAutoencoder, 6)
    assert pickle.loads(pickle.dumps(model)) == model == convolutional(zoo.VariationalAutoencoder, 6)
    assert zoo.DenseEncoder(3, (5,), nn.tanh) != zoo.DenseEncoder(3, (5,))


@pytest.mark.slow
def test_fit_evaluate_and_predict_take_several_outputs_and_noise_beside_the_input():
    model = dense(zoo.VariationalAutoencoder, 6)
    grey = np.random.default_rng(0).uniform(size=(40, 4, 4, 2)).astype(np.float32)
    objective = jdl.augmented(
        jdl.supervised(model, losses.negative_elbo, [losses.bits_per_dimension], targets="inputs"), jdl.data.Binarise()
    )
    run = jdl.fit(model, objective, optax.adam(1e-2), {"inputs": grey}, epochs=20, batch_size=8, steps_per_call=5)
    history = [row["loss"] for row in run.history]
    assert history[-1] < 0.9 * history[0]
    assert run.history[-1]["bits_per_dimension"] == pytest.approx(history[-1] / 32 / np.log(2), rel=1e-5)
    predicted = run.predict(grey)
    assert isinstance(predicted, zoo.Variational) and predicted.mean.shape == (40, 3)
    data = {"inputs": {"x": grey, "noise": normal(40, 3)}, "targets": grey}
    elbo = jdl.evaluate(jdl.supervised(model, losses.negative_elbo), run.variables, data, batch_size=16)["loss"]
    whole = losses.negative_elbo(jax.jit(model)(run.variables, **data["inputs"]), jnp.asarray(grey))
    assert elbo == pytest.approx(float(whole), rel=1e-5)


def test_what_cannot_be_used_is_refused():
    x = normal(2, 8, 8, 1)
    with refused("the reconstruction got float32[2, 4, 4, 2] and the input got float32[2, 8, 8, 1]", "[8, 8, 1]"):
        dense(zoo.Autoencoder).init(KEY, x)
    with refused("the encoder made float32[2, 3], wanted an even last axis", "2·L"):
        convolutional(zoo.VariationalAutoencoder, 3).init(KEY, x)
    with refused("noise got list ((0.0, 0.0", "wanted an array"):
        convolutional(zoo.VariationalAutoencoder, 6).spec(x, noise=[[0.0] * 3] * 2)
    with refused("noise got float32[2, 6] and the means got float32[2, 3]"):
        convolutional(zoo.VariationalAutoencoder, 6).init(KEY, x, noise=normal(2, 6))
    with refused("input got float32[2, 3, 8, 1], whose sides the network divides by 4"):
        convolutional(zoo.Autoencoder).init(KEY, normal(2, 3, 8, 1))
    with refused("input got float32[8, 8, 1], wanted [B, H, W, C]"):
        convolutional(zoo.Autoencoder).init(KEY, normal(8, 8, 1))
    with refused("ConvolutionalDecoder.shape got (28, 28, 1)", "multiples of 8"):
        zoo.ConvolutionalDecoder((28, 28, 1), (4, 4, 4))

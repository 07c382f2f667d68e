"""jdl.game: each player's gradient of its own objective, states and reports as one, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.metrics import Mean
from tests.networks import assert_close, batch_of, classify, mlp
from tests.test_games import DISCRIMINATOR, GENERATOR, REAL, Game, game, made, optimizer_of

KEY = jax.random.key(7)
BATCH = {"inputs": jnp.asarray(REAL[:32])}


# The game that test_games writes by hand, as objectives of two players


@dataclasses.dataclass(frozen=True)
class Judging(jdl.Objective):
    """What both players share: the logits of real and made numbers, and the discriminator's state."""

    def judge(self, params: Any, state: Any, batch: Any, key: Any) -> Any:
        fake = made(GENERATOR, params["generator"], batch["inputs"].shape, key)
        both = jnp.concatenate([batch["inputs"], fake])
        logits, new = DISCRIMINATOR.apply(params["discriminator"], state["discriminator"], both, train=True)
        return *jnp.split(logits, 2), fake, state | {"discriminator": new}


class TellingApart(Judging):
    def __call__(self, params, state, batch, key, train):
        real, fake, _, state = self.judge(params, state, batch, key)
        loss = jnp.mean(nn.softplus(-real)) + jnp.mean(nn.softplus(fake))
        right = jnp.concatenate([real > 0, fake <= 0]).astype(jnp.float32)
        return loss, jdl.Aux(loss, float(len(real)), state, {"accuracy": Mean.of(right)})


class Passing(Judging):
    def __call__(self, params, state, batch, key, train):
        _, fake, numbers, state = self.judge(params, state, batch, key)
        loss = jnp.mean(nn.softplus(-fake))
        return loss, jdl.Aux(loss, float(len(fake)), state, {"mean": Mean.of(numbers)})


GAME = jdl.game({"generator/**": Passing(), "discriminator/**": TellingApart()})


@pytest.mark.slow
def test_a_game_is_the_one_written_by_hand():
    variables = Game().init(KEY, BATCH["inputs"])
    written = game(GENERATOR, DISCRIMINATOR)
    (grads, aux), (by_hand, of_hand) = jax.jit(lambda *given: (GAME(*given), written(*given)))(*variables, BATCH, KEY)
    assert_close(grads, by_hand)
    assert_close((aux.loss, aux.weight, aux.state), (of_hand.loss, of_hand.weight, of_hand.state))
    ours, theirs = ({name: metric.compute() for name, metric in each.report.items()} for each in (aux, of_hand))
    assert_close(ours, theirs)


def flops(gradient: Any, *arguments: Any) -> float:
    costs: Any = jax.jit(lambda *given: gradient(*given)[0]).lower(*arguments).compile().cost_analysis()
    return costs["flops"]


@pytest.mark.slow
def test_what_players_compute_alike_is_computed_once():
    wide = nn.Chain(nn.Dense(256), nn.tanh, nn.Dense(64))
    model = Both(wide, wide)
    x = {"inputs": jnp.zeros((64, 64))}
    params, state = model.init(KEY, x["inputs"])

    def shared(params: Any, state: Any, batch: Any, key: Any) -> tuple[Any, None]:
        """Both gradients from one forward pass, by hand."""
        noise = jax.random.normal(key, (64, 64))
        images, back_to_generator = jax.vjp(lambda own: wide.apply(own, {}, noise)[0], params["a"])
        score, back = jax.vjp(lambda own, images: wide.apply(own, {}, images)[0], params["b"], images)
        own, _ = back(-score)
        _, onwards = back(score)
        return {"a": back_to_generator(onwards)[0], "b": own}, None

    played = jdl.game({"a/**": Half(model, 1.0), "b/**": Half(model, -1.0)})
    assert flops(played, params, state, x, KEY) == pytest.approx(flops(shared, params, state, x, KEY), rel=0.02)
    grads, _ = played(params, state, x, KEY)
    assert_close(grads, shared(params, state, x, KEY)[0], 1e-5)


class Both(nn.Layer):
    """``b`` of ``a`` of noise; the input only says how large it is."""

    a: nn.Layer
    b: nn.Layer

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        return net.b(net.a(jax.random.normal(net.key(), x.shape)))


@dataclasses.dataclass(frozen=True)
class Half(jdl.Objective):
    model: Both
    sign: float

    def __call__(self, params, state, batch, key, train):
        assert key is not None
        noise = jax.random.normal(key, batch["inputs"].shape)
        a, b = self.model.a, self.model.b
        score = b.apply(params["b"], {}, a.apply(params["a"], {}, noise)[0])[0]
        loss = self.sign * 0.5 * jnp.sum(jnp.square(score))
        return loss, jdl.Aux(loss, 1.0, state, {})


# Who owns what


class Two(nn.Layer):
    """Two networks side by side, one with batch statistics, and a scale that both use."""

    def params(self, x):
        return {"scale": nn.Param((), nn.init.ones())}

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        first = net.child("first", nn.Chain(nn.Dense(4), nn.BatchNorm(), nn.tanh, nn.Dense(3)))
        return net.scale * (first(x) + net.child("second", mlp(0.5))(x))


TWO, DATA = Two(), batch_of(24)
START = TWO.init(KEY, DATA["inputs"])
PLAYERS = {"first/**": classify(TWO), "**": 2.0 * classify(TWO, metrics=[jdl.metrics.accuracy])}


def test_every_player_has_the_gradient_of_its_own_objective_and_its_own_state():
    played, alone = jdl.game(PLAYERS), jdl.gradient(classify(TWO))
    (grads, aux), (one, of_one) = jax.jit(lambda *given: (played(*given), alone(*given)))(*START, DATA, KEY)
    assert_close(grads["first"], one["first"], 1e-5)
    doubled = jax.tree.map(lambda g: 2 * g, one)
    assert_close(
        {name: grads[name] for name in ("second", "scale")}, {n: doubled[n] for n in ("second", "scale")}, 1e-5
    )
    assert_close(aux.state, of_one.state)
    assert aux.weight == 24.0 and float(aux.loss) == pytest.approx(3 * float(of_one.loss), rel=1e-6)
    values = {name: float(metric.compute()) for name, metric in aux.report.items()}
    assert values.keys() == {"loss", "first_loss", "others_loss", "accuracy"}
    assert values["others_loss"] == pytest.approx(2 * values["first_loss"], rel=1e-6)
    assert values["loss"] == pytest.approx(3 * values["first_loss"], rel=1e-6)


def test_an_array_of_the_state_is_its_owners():
    with_momentum = lambda momentum: nn.Chain(a=nn.BatchNorm(momentum), b=nn.Dense(3))  # noqa: E731
    params, state = with_momentum(0.5).init(KEY, DATA["inputs"])
    quick, slow = classify(with_momentum(0.0)), classify(with_momentum(1.0))

    def left(players: Any) -> Any:
        return jax.jit(lambda *given: jdl.game(players)(*given)[1].state["a"]["mean"])(params, state, DATA, KEY)

    old, new = state["a"]["mean"], np.mean(DATA["inputs"], axis=0)
    assert_close(left({"b/**": quick, "a/**": slow}), old)
    assert_close(left({"a/**": quick, "b/**": slow}), new, 1e-5)
    # where no pattern says whose it is, the only player that changes it has it
    assert_close(left({"a/scale": jdl.l1(), "a/bias": quick, "b/*": jdl.l2()}), new, 1e-5)
    with pytest.raises(InputError, match="the state 'a/mean' is changed by a_scale, a_bias"):
        left({"a/scale": quick, "a/bias": slow, "b/*": jdl.l2()})


@pytest.mark.slow
def test_what_is_frozen_stays_and_the_others_play_on():
    frozen = jdl.freeze(START, "first/0/*")
    optimizer = optax.multi_transform(
        {"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, jdl.label({"first/**": "a", "**": "b"})
    )
    run = jdl.fit(TWO, jdl.game(PLAYERS), optimizer, DATA, steps=3, batch_size=8, variables=frozen)
    assert_close(run.variables.state["first"]["0"], START.params["first"]["0"], 0)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), run.params, frozen.params)
    assert all(jax.tree.leaves(moved))


def every_third(step: Any, **extra: Any) -> Any:
    return step % 3 == 2


def test_a_player_may_move_at_every_third_step_only():
    third = optax.conditionally_mask(optax.sgd(0.1), every_third)
    optimizer = optax.multi_transform({"a": third, "b": optax.sgd(0.1)}, jdl.label({"first/**": "a", "**": "b"}))
    step = jax.jit(jdl.make_step(jdl.game(PLAYERS), optimizer))
    state, moved = jdl.init_state(TWO, optimizer, DATA), []
    for _ in range(6):
        before, (state, _) = state.params, step(state, DATA)
        moved.append([bool(np.any(state.params[name]["0"]["kernel"] != before[name]["0"]["kernel"])) for name in PAIR])
    assert moved == [[False, True], [False, True], [True, True]] * 2


PAIR = ("first", "second")


# With the rest of jdl


@pytest.mark.slow
def test_evaluation_reports_what_training_does_without_a_key():
    optimizer = optax.sgd(0.1)
    run = jdl.fit(TWO, jdl.game(PLAYERS), optimizer, DATA, validation=batch_of(7, seed=1), epochs=1, batch_size=8)
    names = ["first_loss", "others_loss", "accuracy"]
    assert all(f"validation_{name}" in run.history[-1] for name in ["loss", *names])
    held_out = batch_of(7, seed=1)
    scores, alone = run.evaluate(held_out, batch_size=4), jdl.evaluate(classify(TWO), run.variables, held_out)
    assert scores["first_loss"] == pytest.approx(alone["loss"], rel=1e-6), "the padded last batch counts once"
    assert scores["loss"] == pytest.approx(3 * alone["loss"], rel=1e-6)


def test_losses_that_average_over_other_examples_add_up():
    rng = np.random.default_rng(0)
    data = DATA | {name: jnp.asarray(rng.integers(2, size=24), jnp.float32) for name in ("these", "those")}
    these, those = (classify(TWO, mask=name) for name in ("these", "those"))
    players = jdl.game({"first/**": these, "**": those})
    scores = jdl.evaluate(players.objective, START, data, batch_size=5)
    wanted = [jdl.evaluate(one, START, data)["loss"] for one in (these, those)]
    assert [scores["first_loss"], scores["others_loss"]] == pytest.approx(wanted, rel=1e-6)
    assert scores["loss"] == pytest.approx(sum(wanted), rel=1e-6)
    with pytest.raises(InputError, match="players of a game, that average over weights of their own"):
        jax.eval_shape(jdl.accumulate(players, 2), *START, data, KEY)


@pytest.mark.slow
def test_a_game_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    optimizer = optimizer_of(optax.adam(1e-3), optax.conditionally_mask(optax.adam(1e-3), every_third))

    def play(folder, **options):
        options |= {"steps": 8, "batch_size": 32, "validate_every": 3}
        return jdl.fit(
            Game(), GAME, optimizer, {"inputs": REAL}, checkpoint=jdl.Checkpoints(folder, every=2), **options
        )

    def fail(run):
        if len(run.history) == 2:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        play(tmp_path / "a", callbacks=[fail])
    again, whole = play(tmp_path / "a"), play(tmp_path / "b")
    assert again.resumed in (2, 4) and whole.resumed is None
    jax.tree.map(np.testing.assert_array_equal, *(run.state.params for run in (again, whole)))


def test_microbatches_accumulate_to_the_whole_batch():
    model = nn.Chain(a=nn.Dense(4), b=nn.Dense(3))
    params, state = model.init(KEY, DATA["inputs"])
    players = jdl.game({"a/**": classify(model), "b/**": 0.5 * classify(model) + jdl.l2()})
    both = (jdl.accumulate(players, microbatches=3), players)
    data = DATA | {"mask": jnp.arange(24) % 3 > 0}  # both average by it, so it is one weight
    (parts, of_parts), (whole, of_whole) = jax.jit(lambda *given: [one(*given) for one in both])(
        params, state, data, KEY
    )
    assert of_parts.weight == of_whole.weight == 16
    assert_close(parts, whole, 1e-5)
    assert_close(of_parts.loss, of_whole.loss, 1e-5)
    assert_close(of_parts.metrics["a_loss"].compute(), of_whole.metrics["a_loss"].compute(), 1e-5)


def test_a_frozen_player_is_to_be_left_out():
    frozen = jdl.freeze(START, "first/**")
    with pytest.raises(InputError, match=r"'first/\*\*' is frozen: .*leave it out of the game"):
        jax.eval_shape(jdl.game(PLAYERS), *frozen, DATA, KEY)


def test_equal_games_are_equal():
    assert jdl.game(dict(PLAYERS)) == jdl.game(PLAYERS) and hash(jdl.game(dict(PLAYERS))) == hash(jdl.game(PLAYERS))
    assert dataclasses.replace(jdl.game(PLAYERS)) == jdl.game(PLAYERS)
    assert jdl.game(PLAYERS) != jdl.game(dict(reversed(PLAYERS.items()))), "the first match wins"


# What it refuses


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ({}, "wanted a dict of path patterns to objectives"),
        (classify(TWO), "wanted a dict of path patterns to objectives"),
        ({"first/**": jdl.losses.mse}, "'first/\\*\\*': .*wanted an objective"),
        ({1: classify(TWO)}, "the pattern 1, wanted a string"),
        ({"a/**": classify(TWO), "**/a": classify(TWO)}, "'a/\\*\\*' and '\\*\\*/a', both players by the name 'a'"),
        ((("**", classify(TWO)), ("**", classify(TWO))), "'\\*\\*' and '\\*\\*', both players by the name 'others'"),
        ((1, 2), "game got \\(1, 2\\), wanted a dict of path patterns"),
        ((("**",),), "game got .*, wanted a dict of path patterns"),
        (([["**"], classify(TWO)],), "game got .*, wanted a dict of path patterns"),
        (((["**"], classify(TWO)),), "the pattern \\['\\*\\*'\\], wanted a string"),
    ],
)
def test_what_is_no_game(players: Any, message: str):
    with pytest.raises(InputError, match=message):
        jdl.game(players)


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ({"first/**": classify(TWO)}, "no pattern of \\['first/\\*\\*'\\] matches 'scale'"),
        ({"firts/**": classify(TWO), "**": classify(TWO)}, "'firts/\\*\\*' matches none of 11 paths"),
        ({"**": classify(TWO), "first/**": classify(TWO)}, "'first/\\*\\*' owns nothing: .*belongs to \\['\\*\\*'\\]"),
        ({name: classify(TWO, metrics=[jdl.metrics.accuracy]) for name in PLAYERS}, "report the metrics \\['accuracy'"),
    ],
)
def test_what_nobody_owns_or_two_report(players: Any, message: str):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(jdl.game(players), *START, DATA, KEY)

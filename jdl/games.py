"""Games: several networks that train at once, each by an objective of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jdl import check
from jdl.check import InputError
from jdl.gradients import Gradient
from jdl.nn.paths import label, matches, paths
from jdl.nn.settings import Tree
from jdl.objectives import Aux, Batch, Objective, joint_weight

Array = jax.Array
Players = tuple[tuple[str, Objective], ...]


@dataclasses.dataclass(frozen=True)
class game(Gradient):
    """Each player's gradient of its own objective, by its own parameters, all taken at the same point.

    A player is a path pattern to an objective, and owns the parameters that the pattern is the first to match. Its
    objective sees all parameters, so that it may use the other networks; to these no gradient goes. An array of the
    state (batch statistics) is what the objective of the player whose pattern matches it makes of it; one that matches
    none may be changed by one player.

    All players draw from the same key. What they compute alike, the images of a generator and what a discriminator says
    of them, XLA then computes once.

    Reported are the metrics of all objectives, as ``loss`` the sum of their losses, and the loss of each player by its
    pattern without wildcards: ``generator_loss`` for ``"generator/**"``, ``others_loss`` for ``"**"``. ``evaluate``,
    and ``validation=`` of ``fit``, report the same in evaluation mode.

    >>> players = {"generator/**": supervised(gan, passing), "discriminator/**": supervised(gan, telling_apart)}
    >>> rules = {"generator/**": optax.adam(2e-4), "discriminator/**": optax.adam(1e-4)}
    >>> optimizer = optax.multi_transform(rules, jdl.label({pattern: pattern for pattern in rules}))
    >>> jdl.fit(gan, jdl.game(players), optimizer, data, epochs=10)

    Raises:
        InputError: what is no objective; two players of one name; and, while tracing, a pattern that owns nothing, a
            player that is frozen, a parameter that nobody owns, a metric name used twice, or a state array that two
            players change.
    """

    players: Mapping[str, Objective] | Players

    def __post_init__(self) -> None:
        players = tuple(self.players.items()) if isinstance(self.players, Mapping) else self.players
        pairs = isinstance(players, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in players)
        if not pairs or not players:
            raise InputError(f"game got {check.describe(self.players)}, wanted a dict of path patterns to objectives")
        known: dict[str, str] = {}
        for pattern, objective in players:
            if not isinstance(objective, Objective):
                raise InputError(
                    f"game got {pattern!r}: {check.describe(objective)}, wanted an objective: supervised(model, loss)"
                )
            if (name := _name(pattern)) in known:
                raise InputError(
                    f"game got {known[name]!r} and {pattern!r}, both players by the name {name!r}; make them differ"
                )
            known[name] = pattern
        object.__setattr__(self, "players", players)

    @property
    def objective(self) -> Objective:
        """What is reported of the game in evaluation: see :class:`Report`."""
        return Report(self._players)

    @property
    def _players(self) -> Players:
        return self.players  # pyright: ignore[reportReturnType]

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        _check_none_frozen(self._players, params, state)
        owners = jax.tree.leaves(_owners(self._players)(params))
        leaves, structure = jax.tree.flatten(params)
        grads: list[Any] = list(leaves)
        reports = []
        for pattern, objective in self._players:
            own = [place for place, owner in enumerate(owners) if owner == pattern]
            if not own:
                first = {owner for name, owner in zip(paths(params), owners, strict=True) if matches(pattern, name)}
                raise InputError(
                    f"the player {pattern!r} owns nothing: all that it matches belongs to {sorted(first)}, which stand "
                    "before it, and the first match wins; put the narrower pattern first"
                )

            def loss(values: list[Array], objective: Objective = objective, own: list[int] = own) -> tuple[Array, Aux]:
                whole = list(leaves)
                for place, value in zip(own, values, strict=True):
                    whole[place] = value
                return objective(jax.tree.unflatten(structure, whole), state, batch, key, True)

            found, aux = jax.grad(loss, has_aux=True)([leaves[place] for place in own])
            for place, gradient in zip(own, found, strict=True):
                grads[place] = gradient
            reports.append(aux)
        return jax.tree.unflatten(structure, grads), _together(self._players, reports, state)


@dataclasses.dataclass(frozen=True)
class Report(Objective):
    """What the players of a :class:`game` report together, for evaluation; as a loss it is the sum of theirs."""

    players: Players

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        aux = _together(
            self.players, [player(params, state, batch, key, train)[1] for _, player in self.players], state
        )
        return aux.loss, aux


def _check_none_frozen(players: Players, params: Tree, state: Tree) -> None:
    """Every player has something to train; ``freeze`` moves parameters into the state."""
    trained, kept = paths(params), paths(state)
    for pattern, _ in players:
        if any(matches(pattern, name) for name in kept) and not any(matches(pattern, name) for name in trained):
            raise InputError(
                f"the player {pattern!r} is frozen: all that it matches stands in the state; leave it out of the game, "
                "whose other players still see its network"
            )


def _owners(players: Players) -> Any:
    return label({pattern: pattern for pattern, _ in players})


def _name(pattern: str) -> str:
    """What of a pattern says whose it is: ``generator`` of ``generator/**``, ``others`` of ``**``."""
    if not isinstance(pattern, str):
        raise InputError(f"game got the pattern {pattern!r}, wanted a string such as 'generator/**'")
    return "_".join(part for part in pattern.split("/") if not set(part) & set("*?[")) or "others"


def _together(players: Players, reports: list[Aux], state: Tree) -> Aux:
    """The reports of all players as one."""
    metrics: dict[str, Any] = {}
    for (pattern, _), aux in zip(players, reports, strict=True):
        new = {f"{_name(pattern)}_loss": aux.mean} | aux.metrics
        if both := metrics.keys() & new.keys():
            raise InputError(f"two players of a game report the metrics {sorted(both)}; give one another name")
        metrics |= new
    loss: Any = sum(aux.loss for aux in reports)
    weight, terms = joint_weight([objective for _, objective in players], reports)
    return Aux(loss, weight, _state_of(players, reports, state), metrics, terms)


def _state_of(players: Players, reports: list[Aux], old: Tree) -> Tree:
    """Every array of the state as its owner leaves it, or else as the one player that changes it does."""
    leaves, structure = jax.tree.flatten(old)
    news = [jax.tree.leaves(aux.state) for aux in reports]
    for place, name in enumerate(paths(old)):
        owner = next((player for player, (pattern, _) in enumerate(players) if matches(pattern, name)), None)
        changed = [player for player, new in enumerate(news) if new[place] is not leaves[place]]
        if owner is None and len(changed) > 1:
            names = ", ".join(_name(players[player][0]) for player in changed)
            raise InputError(f"the state {name!r} is changed by {names}, and no pattern says whose it is; add one")
        mover = owner if owner is not None else next(iter(changed), 0)
        leaves[place] = news[mover][place]
    return jax.tree.unflatten(structure, leaves)

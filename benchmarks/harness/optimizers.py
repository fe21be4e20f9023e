"""Every optimizer of the comparison by name, behind one interface.

An optimizer is an initial state and one step ``(state, batch) -> (state, loss)``, both
pure. What a step costs is counted in sample-forwards: one candidate evaluated on one
example. A backward pass counts as two forward passes, because it has two matrix
products where a forward pass has one; so a gradient step costs 3 per example.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import optax

from benchmarks.harness import evolution, transformations
from benchmarks.harness.interface import Objective, Optimizer, Setting, State
from benchmarks.harness.networks import Batch, Network

OptimizerName = Literal[
    "sgd", "momentum", "adam", "nadam", "rmsprop", "adamw", "lion", "sophia", "muon",
    "cma-es", "sep-cma-es", "open-es", "snes", "pgpe",
    "qiaso-paper", "qiaso", "qiaso-low-rank", "node-qiaso", "hybrid", "hybrid-muon",
]  # fmt: skip
NAMES: tuple[str, ...] = get_args(OptimizerName)

GRADIENT = 3.0
# Sophia estimates the Hessian's diagonal every tenth step by forward-over-reverse
# differentiation, twice the cost of a gradient.
SOPHIA = GRADIENT + 2 * GRADIENT / 10

MakeTransformation = Callable[[Setting, jax.Array], optax.GradientTransformation]
ValueFn = Callable[[Any, Any, Batch], jax.Array]
ValueFnOf = Callable[[Objective, Setting], ValueFn]
Tuned = Literal["learning_rate", "sigma"]


class Entry(NamedTuple):
    """One row of the registry.

    ``tunes`` names the one number of this optimizer that is tuned, ``grid`` the five
    values that are tried. ``sample_forwards(setting)`` is the cost of one step per
    example, without the pass that refreshes batch statistics. ``takes`` are the
    settings of an experiment that it has a use for and not every optimizer has, with
    their defaults; None where the default is the tuned one, or to leave it out.
    """

    make: Callable[[Objective, Setting, Any], Optimizer]
    grid: tuple[float, ...]
    takes: dict[str, Any]
    tunes: Tuned = "learning_rate"
    uses_gradients: bool = False
    sample_forwards: Callable[[Setting], float] = lambda setting: setting.num_candidates


def build(
    name: str, network: Network, setting: Setting, params_shape: Any
) -> Optimizer:
    """The optimizer called ``name`` for ``network``, whose parameters are so shaped."""
    if network.convolutional and jax.default_backend() == "cpu":
        # All candidates' activations at once leave the cache, and need gigabytes.
        setting = setting._replace(candidate_batch_size=1)
    objective = Objective(network.apply, setting.label_smoothing)
    return REGISTRY[name].make(objective, setting, params_shape)


def sample_forwards(name: str, setting: Setting, batch_norm: bool) -> float:
    """Sample-forwards per example of a minibatch, for one step."""
    entry = REGISTRY[name]
    refresh = batch_norm and not entry.uses_gradients
    return entry.sample_forwards(setting) + refresh


def mean_loss(objective: Objective, _: Setting) -> ValueFn:
    """Of a minibatch."""
    return objective.loss


def losses(objective: Objective, _: Setting) -> ValueFn:
    """Of each example."""
    return objective.losses


def loss_of_the_first(objective: Objective, setting: Setting) -> ValueFn:
    """The mean loss of a minibatch's first, as many as ``setting.examples`` says."""

    def loss(params: Any, batch_stats: Any, batch: Batch) -> jax.Array:
        size = math.ceil(setting.examples * len(batch.labels))
        first = jax.tree.map(lambda x: x[:size], batch)
        return objective.loss(params, batch_stats, first)

    return loss


def _from_optax(
    make: MakeTransformation,
    value_fn_of: ValueFnOf,
    gradient: bool,
    objective: Objective,
    setting: Setting,
    _: Any,
) -> Optimizer:
    """Wraps a transformation fed with the back-propagated gradient, or with zeros."""
    value_fn = value_fn_of(objective, setting)

    def init(key: jax.Array, params: Any, batch_stats: Any) -> State:
        return State(params, batch_stats, make(setting, key).init(params))

    # Only `init` reads the key; a state carries its own from there on.
    tx = optax.with_extra_args_support(make(setting, jax.random.key(0)))

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        params, batch_stats, inner = state
        loss, gradients = None, optax.tree.zeros_like(params)
        if gradient:
            (loss, batch_stats), gradients = jax.value_and_grad(
                objective.loss_and_stats, has_aux=True
            )(params, state.batch_stats, batch)
        updates, inner = tx.update(
            gradients,
            inner,
            params,
            value_fn=value_fn,
            obj_fn=lambda p: objective.loss(p, state.batch_stats, batch),
            batch_stats=state.batch_stats,
            batch=batch,
        )
        params = optax.apply_updates(params, updates)
        if loss is None:
            loss = optax.tree.get(inner, "expected_loss")
            batch_stats = objective.refreshed(params, batch_stats, batch)
        return State(params, batch_stats, inner), loss

    return Optimizer(init, step)


_RATE = {"learning_rate": None, "schedule": "cosine"}
_CANDIDATES = {"candidates": 30, "sigma": 0.02}
_TUNED_CANDIDATES = _CANDIDATES | {"sigma": None}


def _gradient(
    make: MakeTransformation, grid: tuple[float, ...], cost: float = GRADIENT
) -> Entry:
    return Entry(
        partial(_from_optax, make, mean_loss, True),
        grid,
        _RATE,
        uses_gradients=True,
        sample_forwards=lambda _: cost,
    )


def _rate_alone(
    make: Callable[[optax.Schedule], optax.GradientTransformation],
    grid: tuple[float, ...],
) -> Entry:
    return _gradient(lambda setting, _: make(setting.learning_rate), grid)


def _candidates(
    make: MakeTransformation,
    grid: tuple[float, ...],
    value_fn_of: ValueFnOf = mean_loss,
    **more: Any,
) -> Entry:
    takes = _RATE | _CANDIDATES | more
    return Entry(partial(_from_optax, make, value_fn_of, False), grid, takes)


def _hybrid(make: MakeTransformation, grid: tuple[float, ...]) -> Entry:
    return Entry(
        partial(_from_optax, make, loss_of_the_first, True),
        grid,
        # Their spread is a share of the rate.
        _RATE | {"candidates": 30, "examples": 1.0},
        uses_gradients=True,
        sample_forwards=lambda s: GRADIENT + s.num_candidates * s.examples,
    )


def _evolution(make: evolution.MakeAlgorithm, grid: tuple[float, ...]) -> Entry:
    return Entry(partial(evolution.from_evosax, make), grid, _RATE | _CANDIDATES)


def _spread_alone(make: evolution.MakeAlgorithm) -> Entry:
    return _evolution(make, _SIGMAS)._replace(takes=_TUNED_CANDIDATES, tunes="sigma")


def _node_sample_forwards(setting: Setting) -> float:
    # A clean pass of all; where some are selected, another of those, and candidates.
    if setting.examples < 1:
        return 1 + setting.examples * (1 + setting.num_candidates)
    return 1 + setting.num_candidates


_SMALL = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_MIDDLE = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_MUON = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_LARGE = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
_SIGMAS = (3e-3, 1e-2, 2e-2, 5e-2, 1e-1)

REGISTRY: dict[str, Entry] = {
    "sgd": _rate_alone(optax.sgd, _LARGE),
    "momentum": _rate_alone(
        partial(optax.sgd, momentum=0.9), (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    ),
    "adam": _rate_alone(optax.adam, _MIDDLE),
    "nadam": _rate_alone(optax.nadam, _MIDDLE),
    "rmsprop": _rate_alone(optax.rmsprop, _MIDDLE),
    "adamw": _rate_alone(optax.adamw, _MIDDLE),
    "lion": _rate_alone(optax.lion, (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
    "sophia": _gradient(transformations.sophia, _SMALL, SOPHIA),
    "muon": _gradient(transformations.muon, _MUON),
    "cma-es": _spread_alone(evolution.cma_es),
    "sep-cma-es": _spread_alone(evolution.sep_cma_es),
    "open-es": _evolution(evolution.open_es, _MIDDLE),
    "snes": _spread_alone(evolution.snes),
    "pgpe": _evolution(evolution.pgpe, _MIDDLE),
    "qiaso-paper": _candidates(transformations.qiaso_paper, _SIGMAS)._replace(
        takes=_TUNED_CANDIDATES | {"without": None}, tunes="sigma"
    ),
    "qiaso": _candidates(
        transformations.qiaso, _MIDDLE, directions="rademacher", groups=1
    ),
    "qiaso-low-rank": _candidates(
        transformations.qiaso, _MIDDLE, directions="low_rank", groups=1
    ),
    "node-qiaso": _candidates(
        transformations.node_qiaso, _SMALL, losses, examples=0.25
    )._replace(sample_forwards=_node_sample_forwards),
    "hybrid": _hybrid(transformations.hybrid_adam, _MIDDLE),
    "hybrid-muon": _hybrid(transformations.hybrid_muon, _MUON),
}

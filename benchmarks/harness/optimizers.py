"""Every optimizer of the comparison by name, behind one interface.

An optimizer is an initial state and one step ``(state, batch) -> (state, loss)``, both
pure. What a step costs is counted in sample-forwards: one candidate evaluated on one
example. A backward pass counts as two forward passes, because it has two matrix
products where a forward pass has one; so a gradient step costs 3 per example.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import optax

import qiaso_jax
from benchmarks.harness import evolution
from benchmarks.harness.data import CLASSES
from benchmarks.harness.interface import Objective, Optimizer, Setting, State
from benchmarks.harness.networks import Batch, Network

OptimizerName = Literal[
    "sgd", "momentum", "adam", "nadam", "rmsprop", "adamw", "lion", "sophia", "muon",
    "cma-es", "sep-cma-es", "open-es", "snes", "pgpe",
    "qiaso-paper", "qiaso", "node-qiaso", "hybrid", "hybrid-muon",
]  # fmt: skip
NAMES: tuple[str, ...] = get_args(OptimizerName)

GRADIENT = 3.0
# Sophia estimates the Hessian's diagonal every tenth step by forward-over-reverse
# differentiation, twice the cost of a gradient.
SOPHIA = GRADIENT + 2 * GRADIENT / 10

Tuned = Literal["learning_rate", "sigma"]
MakeTransformation = Callable[[Setting, jax.Array], optax.GradientTransformation]


class Entry(NamedTuple):
    """One row of the registry.

    ``tunes`` names the one number of this optimizer that is tuned, ``grid`` the five
    values that are tried. ``sample_forwards(setting)`` is the cost of one step per
    example, without the pass that refreshes batch statistics. ``examples`` is the
    default share of a minibatch that candidates see, None where it is not a setting.
    """

    make: Callable[[Objective, Setting, Any], Optimizer]
    uses_gradients: bool
    has_candidates: bool
    sample_forwards: Callable[[Setting], float]
    tunes: Tuned
    grid: tuple[float, ...]
    examples: float | None = None


def build(
    name: str, network: Network, setting: Setting, params_shape: Any
) -> Optimizer:
    """The optimizer called ``name`` for ``network``, whose parameters are so shaped."""
    batch_size = None
    if network.convolutional and jax.default_backend() == "cpu":
        # All candidates' activations at once leave the cache, and need gigabytes.
        batch_size = 1
    setting = setting._replace(candidate_batch_size=batch_size)
    objective = Objective(network.apply, setting.label_smoothing)
    return REGISTRY[name].make(objective, setting, params_shape)


def sample_forwards(name: str, setting: Setting, batch_norm: bool) -> float:
    """Sample-forwards per example of a minibatch, for one step."""
    entry = REGISTRY[name]
    refresh = batch_norm and not entry.uses_gradients
    return entry.sample_forwards(setting) + refresh


def _from_optax(
    make: MakeTransformation,
    objective: Objective,
    setting: Setting,
    gradient: bool,
    value_fn: Callable[[Any, Any, Batch], jax.Array],
) -> Optimizer:
    """Wraps a transformation fed with the back-propagated gradient, or with zeros."""

    def init(key: jax.Array, params: Any, batch_stats: Any) -> State:
        return State(params, batch_stats, make(setting, key).init(params))

    # Only `init` reads the key; a state carries its own from there on.
    tx = optax.with_extra_args_support(make(setting, jax.random.key(0)))

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        params, batch_stats, inner = state
        loss, gradients = None, jax.tree.map(jax.numpy.zeros_like, params)
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


def _gradient(
    make: MakeTransformation, grid: tuple[float, ...], cost: float = GRADIENT
) -> Entry:
    return Entry(
        make=lambda objective, setting, _: _from_optax(
            make, objective, setting, True, objective.loss
        ),
        uses_gradients=True,
        has_candidates=False,
        sample_forwards=lambda _: cost,
        tunes="learning_rate",
        grid=grid,
    )


def _paper(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    # The paper's t counts epochs, ours update steps.
    steps = setting.steps_per_epoch
    settings: dict[str, Any] = (
        dict(qiaso_jax.PAPER)
        | {
            "num_candidates": setting.num_candidates,
            "sigma": setting.sigma,
            "eta": optax.exponential_decay(1.0, steps, 1 / 0.995, end_value=1e3),
            "tunnelling": qiaso_jax.gaussian_tunnelling(
                0.02, 1.0, 0.995, transition_steps=steps
            ),
            "candidate_batch_size": setting.candidate_batch_size,
        }
        | setting.ablation
    )
    return qiaso_jax.qiaso(**settings, key=key)


def _working(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    return qiaso_jax.qiaso(
        setting.num_candidates,
        setting.sigma,
        optimizer=optax.adam(setting.learning_rate),
        candidate_batch_size=setting.candidate_batch_size,
        key=key,
    )


def _muon(setting: Setting, _: Any) -> optax.GradientTransformation:
    def nadam_rate(step: Any) -> Any:
        return MUON_ADAM * setting.learning_rate(step)

    return optax.contrib.muon(
        setting.learning_rate,
        weight_decay=MUON_WEIGHT_DECAY,
        adam_learning_rate=nadam_rate,
        muon_weight_dimension_numbers=_hidden_kernels,
    )


MUON_ADAM = 0.1
"""Nadam's rate, for what is not a hidden layer's kernel, in units of Muon's."""
MUON_WEIGHT_DECAY = 0.03


def _hidden_kernels(params: Any) -> Any:
    """The axes of each hidden layer's kernel as a matrix, None for other leaves.

    The output layer is told by its width, as many units as there are classes.
    """

    def axes(leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2 or leaf.shape[-1] == CLASSES:
            return None
        return optax.contrib.MuonDimensionNumbers(
            tuple(range(leaf.ndim - 1)), leaf.ndim - 1
        )

    return jax.tree.map(axes, params)


def _hybrid(
    gradient: MakeTransformation, spread: float, setting: Setting, key: jax.Array
) -> optax.GradientTransformation:
    # The displacement of a step is about sigma / sqrt(K) per weight, mostly noise. It
    # has to be small beside the gradient's step, and to end with it.
    def sigma(step: Any) -> Any:
        return spread * setting.learning_rate(step) + 1e-8

    # As many candidates at a time as see one minibatch's number of examples.
    at_a_time = setting.candidate_batch_size
    if at_a_time is not None:
        at_a_time = int(at_a_time / setting.examples)
        at_a_time = at_a_time if at_a_time < setting.num_candidates else None
    return optax.chain(
        gradient(setting, key),
        qiaso_jax.qiaso(
            setting.num_candidates,
            sigma,
            candidate_batch_size=at_a_time,
            key=key,
        ),
    )


def _adam(setting: Setting, _: Any) -> optax.GradientTransformation:
    return optax.adam(setting.learning_rate)


# Adam moves a weight by the learning rate, Muon by a fiftieth of it where 2,304 numbers
# enter a layer.
_HYBRID_ADAM = functools.partial(_hybrid, _adam, 0.1)
_HYBRID_MUON = functools.partial(_hybrid, _muon, 0.002)


def _loss_of_the_first(
    objective: Objective, setting: Setting
) -> Callable[[Any, Any, Batch], jax.Array]:
    """The mean loss of a minibatch's first, as many as ``setting.examples`` says."""

    def loss(params: Any, batch_stats: Any, batch: Batch) -> jax.Array:
        size = math.ceil(setting.examples * len(batch.labels))
        first = jax.tree.map(lambda x: x[:size], batch)
        return objective.loss(params, batch_stats, first)

    return loss


def _node(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    return qiaso_jax.node_qiaso(
        setting.num_candidates,
        setting.sigma,
        optimizer=optax.adam(setting.learning_rate),
        examples=setting.examples,
        batch_argnames=("batch",),
        # The statistics of batch normalisation are held; a multilayer perceptron is
        # in node space anyway.
        space="node",
        key=key,
    )


def _node_sample_forwards(setting: Setting) -> float:
    # A clean pass of all; where some are selected, another of those, and candidates.
    if setting.examples < 1:
        return 1 + setting.examples * (1 + setting.num_candidates)
    return 1 + setting.num_candidates


def _qiaso(
    make: MakeTransformation,
    tunes: Tuned,
    grid: tuple[float, ...],
) -> Entry:
    return Entry(
        make=lambda objective, setting, _: _from_optax(
            make, objective, setting, False, objective.loss
        ),
        uses_gradients=False,
        has_candidates=True,
        sample_forwards=lambda setting: setting.num_candidates,
        tunes=tunes,
        grid=grid,
    )


def _evolution(
    make: evolution.MakeAlgorithm,
    tunes: Tuned,
    grid: tuple[float, ...],
) -> Entry:
    return Entry(
        make=lambda objective, setting, shape: evolution.from_evosax(
            make, objective, setting, shape
        ),
        uses_gradients=False,
        has_candidates=True,
        sample_forwards=lambda setting: setting.num_candidates,
        tunes=tunes,
        grid=grid,
    )


def _hybrid_entry(make: MakeTransformation, grid: tuple[float, ...]) -> Entry:
    return _gradient(make, grid)._replace(
        make=lambda objective, setting, _: _from_optax(
            make, objective, setting, True, _loss_of_the_first(objective, setting)
        ),
        has_candidates=True,
        sample_forwards=lambda s: GRADIENT + s.num_candidates * s.examples,
        examples=1.0,
    )


_SMALL = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_MIDDLE = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_MUON = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_LARGE = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
_SIGMAS = (3e-3, 1e-2, 2e-2, 5e-2, 1e-1)

REGISTRY: dict[str, Entry] = {
    "sgd": _gradient(lambda s, _: optax.sgd(s.learning_rate), _LARGE),
    "momentum": _gradient(
        lambda s, _: optax.sgd(s.learning_rate, momentum=0.9),
        (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    ),
    "adam": _gradient(_adam, _MIDDLE),
    "nadam": _gradient(lambda s, _: optax.nadam(s.learning_rate), _MIDDLE),
    "rmsprop": _gradient(lambda s, _: optax.rmsprop(s.learning_rate), _MIDDLE),
    "adamw": _gradient(lambda s, _: optax.adamw(s.learning_rate), _MIDDLE),
    "lion": _gradient(
        lambda s, _: optax.lion(s.learning_rate), (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    ),
    "sophia": _gradient(
        lambda s, key: optax.contrib.sophia(
            s.learning_rate,
            hessian_diagonal_fn=optax.contrib.hutchinson_estimator_diag_hessian(
                jax.random.key_data(key)
            ),
        ),
        _SMALL,
        SOPHIA,
    ),
    "muon": _gradient(_muon, _MUON),
    "cma-es": _evolution(evolution.cma_es, "sigma", _SIGMAS),
    "sep-cma-es": _evolution(evolution.sep_cma_es, "sigma", _SIGMAS),
    "open-es": _evolution(evolution.open_es, "learning_rate", _MIDDLE),
    "snes": _evolution(evolution.snes, "sigma", _SIGMAS),
    "pgpe": _evolution(evolution.pgpe, "learning_rate", _MIDDLE),
    "qiaso-paper": _qiaso(_paper, "sigma", _SIGMAS),
    "qiaso": _qiaso(_working, "learning_rate", _MIDDLE),
    "node-qiaso": _qiaso(_node, "learning_rate", _SMALL)._replace(
        make=lambda objective, setting, _: _from_optax(
            _node, objective, setting, False, objective.losses
        ),
        sample_forwards=_node_sample_forwards,
        examples=0.25,
    ),
    "hybrid": _hybrid_entry(_HYBRID_ADAM, _MIDDLE),
    "hybrid-muon": _hybrid_entry(_HYBRID_MUON, _MUON),
}

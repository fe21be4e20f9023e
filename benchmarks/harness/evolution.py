"""Population methods of evosax: its ask and tell as one step, and their settings.

evosax's defaults assume parameters of order one (an initial standard deviation of 1),
so the spread is set here; so is Adam for Open-ES and PGPE, whose default steps have a
fixed length that does not grow with the number of weights. All of them minimise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import CMA_ES, PGPE, SNES, Open_ES, Sep_CMA_ES

from benchmarks.cli import UserError
from benchmarks.harness.interface import Objective, Optimizer, Setting, State
from benchmarks.harness.networks import Batch

CMA_ES_LIMIT = 4_000

# An algorithm, and its hyper-parameters.
MakeAlgorithm = Callable[[Setting, Any], tuple[Any, Any]]


def from_evosax(
    make: MakeAlgorithm, objective: Objective, setting: Setting, params_shape: Any
) -> Optimizer:
    """One generation on one minibatch is one step; the network is the mean."""
    solution = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params_shape)
    algorithm, hyper = make(setting, solution)

    def init(key: jax.Array, params: Any, batch_stats: Any) -> State:
        key, init_key = jax.random.split(key)
        inner = algorithm.init(init_key, params, hyper)
        return State(params, batch_stats, (jax.random.key_data(key), inner))

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        key_data, inner = state.inner
        key, ask_key, tell_key = jax.random.split(jax.random.wrap_key_data(key_data), 3)
        population, inner = algorithm.ask(ask_key, inner, hyper)

        def loss(candidate: Any) -> jax.Array:
            return objective.loss(candidate, state.batch_stats, batch)

        losses = jax.lax.map(
            loss,
            population,
            batch_size=setting.candidate_batch_size or setting.num_candidates,
        )
        inner, _ = algorithm.tell(tell_key, population, losses, inner, hyper)
        params = algorithm.get_mean(inner)
        batch_stats = objective.refreshed(params, state.batch_stats, batch)
        inner = (jax.random.key_data(key), inner)
        return State(params, batch_stats, inner), jnp.mean(losses)

    return Optimizer(init, step)


def cma_es(setting: Setting, solution: Any) -> tuple[Any, Any]:
    """Full covariance: N² numbers and an eigendecomposition in every step."""
    size = sum(leaf.size for leaf in jax.tree.leaves(solution))
    if size > CMA_ES_LIMIT:
        raise UserError(
            f"cma-es keeps an N × N covariance, and this network has N = {size:,} "
            f"weights; it is offered up to N = {CMA_ES_LIMIT:,}: take sep-cma-es, or a "
            "smaller network (--hidden 8)"
        )
    algorithm = CMA_ES(setting.num_candidates, solution)
    return algorithm, _with_sigma(algorithm, setting.sigma)


def sep_cma_es(setting: Setting, solution: Any) -> tuple[Any, Any]:
    """Diagonal covariance.

    evosax keeps the learning rates of the full covariance, of order 1/N². With N
    unknowns in place of N²/2, Ros and Hansen (2008) multiply them by (N + 2)/3.
    """
    algorithm = Sep_CMA_ES(setting.num_candidates, solution)
    hyper = _with_sigma(algorithm, setting.sigma)
    factor = (algorithm.num_dims + 2) / 3
    c_1 = jnp.minimum(1.0, factor * hyper.c_1)
    return algorithm, hyper.replace(
        c_1=c_1, c_mu=jnp.minimum(1 - c_1, factor * hyper.c_mu)
    )


def open_es(setting: Setting, solution: Any) -> tuple[Any, Any]:
    """Antithetic pairs, centred ranks, a fixed spread, Adam."""
    algorithm = Open_ES(
        setting.num_candidates,
        solution,
        optimizer=optax.adam(setting.learning_rate),
        std_schedule=optax.constant_schedule(setting.sigma),
    )
    return algorithm, algorithm.default_params


def snes(setting: Setting, solution: Any) -> tuple[Any, Any]:
    """Its own utilities, a spread per weight, the natural gradient at rate 1."""
    algorithm = SNES(setting.num_candidates, solution)
    return algorithm, _with_sigma(algorithm, setting.sigma)


def pgpe(setting: Setting, solution: Any) -> tuple[Any, Any]:
    """Antithetic pairs, centred ranks, a spread per weight, Adam."""
    algorithm = PGPE(
        setting.num_candidates, solution, optimizer=optax.adam(setting.learning_rate)
    )
    return algorithm, _with_sigma(algorithm, setting.sigma)


def _with_sigma(algorithm: Any, sigma: float) -> Any:
    return algorithm.default_params.replace(std_init=jnp.asarray(sigma))

"""The methods, each called with a function, its dimension, a budget and a seed.

All begin at 0 with a spread of 2, a fifth of the box [−5, 5] that the optima lie in,
and restart within [−4, 4], as far as they restart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import cma
import numpy as np
import scipy.optimize

import qiaso_jax

SIGMA = 2.0
RESTART = 4.0
Method = Callable[[Callable[[np.ndarray], float], int, int, int], Any]


def searched(**settings: Any) -> Method:
    """``qiaso_jax.minimize`` as it is, on the host."""

    def method(fun, dimension, budget, seed):
        qiaso_jax.minimize(
            fun,
            np.zeros(dimension),
            sigma=SIGMA,
            max_evaluations=budget,
            workers=map,
            key=seed,
            **settings,
        )

    return method


def pycma(**settings: Any) -> Method:
    """Of the package cma, with nine restarts, each with twice the candidates."""

    def method(fun, dimension, budget, seed):
        rng = np.random.default_rng(seed)
        starts = [np.zeros(dimension)]

        def start():
            return starts.pop() if starts else anywhere(rng, dimension)

        options = {"verbose": -9, "maxfevals": budget, "seed": seed + 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cma.fmin2(fun, start, SIGMA, options, restarts=9, **settings)

    return method


def nelder_mead(
    fun: Callable[[np.ndarray], float], dimension: int, budget: int, seed: int
) -> None:
    """scipy's, restarted while the budget lasts."""
    rng = np.random.default_rng(seed)
    start = np.zeros(dimension)
    while True:
        options = {"maxfev": budget, "xatol": 1e-9, "fatol": 1e-9, "adaptive": True}
        scipy.optimize.minimize(fun, start, method="Nelder-Mead", options=options)
        start = anywhere(rng, dimension)


def differential_evolution(
    fun: Callable[[np.ndarray], float], dimension: int, budget: int, seed: int
) -> None:
    """scipy's, in the box, restarted while the budget lasts."""
    for number in range(budget):
        scipy.optimize.differential_evolution(
            fun, [(-5, 5)] * dimension, maxiter=budget, rng=1000 * seed + number
        )


def random_search(
    fun: Callable[[np.ndarray], float], dimension: int, budget: int, seed: int
) -> None:
    """Uniform in the box."""
    rng = np.random.default_rng(seed)
    while True:
        fun(rng.uniform(-5, 5, dimension))


def anywhere(rng: np.random.Generator, dimension: int) -> np.ndarray:
    """A point to begin again from."""
    return rng.uniform(-RESTART, RESTART, dimension)


METHODS: dict[str, Method] = {
    "minimize": searched(),
    "minimize, no restarts": searched(restarts=0),
    "minimize, diagonal": searched(covariance="diagonal"),
    "cma": pycma(),
    "cma, bipop": pycma(bipop=True),
    "Nelder-Mead": nelder_mead,
    "differential evolution": differential_evolution,
    "random search": random_search,
}

"""Rastrigin's, Rosenbrock's and Ackley's functions, shifted and rotated."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.black_box.problem import Instance, Problem

HALF_WIDTH = 5.0
FARTHEST = 4.0
"""Of the optimum, in each coordinate."""
NOISE = 1.0
"""Standard deviation of what is added to a value."""


def rastrigin(x: np.ndarray) -> np.ndarray:
    """Least at 0; of the last axis, as all of them."""
    return np.sum(x**2 + 20 * np.sin(np.pi * x) ** 2, axis=-1)


def rosenbrock(x: np.ndarray) -> np.ndarray:
    """Least at 0 too: its variable is 1 more."""
    x = x + 1
    steps = 100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2
    return np.sum(steps, axis=-1)


def ackley(x: np.ndarray) -> np.ndarray:
    """Least at 0."""
    distance = np.sqrt(np.mean(x**2, axis=-1))
    waves = np.mean(np.cos(2 * np.pi * x), axis=-1)
    return -20 * np.expm1(-0.2 * distance) - np.exp(1) * np.expm1(waves - 1)


FUNCTIONS = {"Rastrigin": rastrigin, "Rosenbrock": rosenbrock, "Ackley": ackley}


def rotation(rng: np.random.Generator, dimension: int) -> np.ndarray:
    """An orthogonal matrix, uniformly: QR of a normal one, with signs (Mezzadri 2007).

    Args:
      rng: that draws.
      dimension: of it.
    """
    q, r = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return q * np.sign(np.diag(r))


def instance(name: str, dimension: int, noise: float, seed: int) -> Instance:
    """f(R (x − s)) with a shift s, and 𝒩(0, noise²) on top of each value."""
    rng = np.random.default_rng([seed, dimension])
    function = FUNCTIONS[name]
    matrix = rotation(rng, dimension)
    shift = rng.uniform(-FARTHEST, FARTHEST, dimension)
    box = np.full(dimension, HALF_WIDTH)

    def true(x: np.ndarray) -> np.ndarray:
        return function((x - shift) @ matrix.T)

    def values(x: np.ndarray) -> np.ndarray:
        return true(x) + noise * rng.standard_normal(len(x))

    return Instance(
        values,
        start=rng.uniform(-box, box),
        lower=-box,
        upper=box,
        is_bounded=False,
        integers=np.zeros(dimension, bool),
        measures=lambda x: {"value": float(true(x))},
    )


def problems(dimension: int, noise: float, times: int) -> tuple[Problem, ...]:
    """Of all functions, with ``times`` evaluations for each dimension."""
    return tuple(
        Problem(name, partial(instance, name, dimension, noise), times * dimension)
        for name in FUNCTIONS
    )

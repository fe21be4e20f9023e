"""Swing-up of a pendulum whose motor is too weak to lift it at once.

Gymnasium's Pendulum-v1 as a pure function: a rod of m = 1 kg and l = 1 m that turns
about its end under g = 10 m/s² and a torque u of at most 2 N m,

    θ'' = 3 g / (2 l) sin θ + 3 / (m l²) u,    |θ'| ≤ 8 rad/s,

with θ = 0 upright, in 200 steps of 0.05 s. A step costs θ² + 0.1 θ'² + 0.001 u²; the
return is minus their sum.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.black_box.problem import Instance, Problem

GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0
TORQUE, FASTEST = 2.0, 8.0
SECONDS, STEPS = 0.05, 200
LAYERS = (3, 32, 32, 1)
SIZE = sum((n + 1) * m for n, m in pairwise(LAYERS))
"""Weights of the policy."""
HALF_WIDTH = 10.0
"""Of the box, in standard deviations of how weights begin; spreads below one seldom
find a swing-up in so few evaluations."""
TRAINING, HELD_OUT = 4, 101
"""Episodes."""


def moved(
    state: jax.Array, torque: jax.Array | float, seconds: float = SECONDS
) -> jax.Array:
    """The state (θ, θ') a step later; the new speed moves the angle."""
    angle, speed = state
    turn = 1.5 * GRAVITY / LENGTH * jnp.sin(angle) + 3 / (MASS * LENGTH**2) * torque
    speed = jnp.clip(speed + seconds * turn, -FASTEST, FASTEST)
    return jnp.stack([angle + seconds * speed, speed])


def cost(state: jax.Array, torque: jax.Array) -> jax.Array:
    """Of a step from a state."""
    angle, speed = state
    angle = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
    return angle**2 + 0.1 * speed**2 + 0.001 * torque**2


def policy(weights: jax.Array, state: jax.Array) -> jax.Array:
    """The torque: a perceptron with tanh, of (cos θ, sin θ, θ' / 8 s).

    Weights are in units of 1/√n, of n inputs and a bias, so that they begin as 𝒩(0, 1).
    """
    angle, speed = state
    signal, taken = jnp.stack([jnp.cos(angle), jnp.sin(angle), speed / FASTEST]), 0
    for n, m in pairwise(LAYERS):
        kernel = weights[taken : taken + (n + 1) * m].reshape(n + 1, m)
        taken += (n + 1) * m
        signal = jnp.tanh((signal @ kernel[:-1] + kernel[-1]) / math.sqrt(n + 1))
    return TORQUE * signal[0]


def mean_return(weights: jax.Array, angles: jax.Array) -> jax.Array:
    """Over episodes that begin at rest at these angles."""

    def episode(angle: jax.Array) -> jax.Array:
        def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            torque = policy(weights, state)
            return moved(state, torque), -cost(state, torque)

        first = jnp.stack([angle, jnp.zeros_like(angle)])
        return jnp.sum(jax.lax.scan(step, first, length=STEPS)[1])

    return jnp.mean(jax.vmap(episode)(angles))


def angles(number: int) -> np.ndarray:
    """All around, at equal distances, and not at the ends of ±π."""
    return np.pi * (2 * np.arange(number) + 1 - number) / number


@cache
def returns(number: int):
    """``[K, N] -> [K]`` over so many episodes, compiled once for each K."""
    first = jnp.asarray(angles(number), jnp.float32)
    return jax.jit(jax.vmap(lambda weights: mean_return(weights, first)))


def instance(seed: int) -> Instance:
    """The same task for every seed, from other weights."""

    def of(number: int, points: np.ndarray) -> np.ndarray:
        return np.asarray(returns(number)(points.astype(np.float32)), float)

    def measures(x: np.ndarray) -> dict[str, float]:
        return {
            "return": float(of(TRAINING, x[None])[0]),
            "held-out return": float(of(HELD_OUT, x[None])[0]),
        }

    start = np.random.default_rng(seed).standard_normal(SIZE)
    return Instance(
        lambda points: -of(TRAINING, points),
        start=start,
        lower=np.full(SIZE, -HALF_WIDTH),
        upper=np.full(SIZE, HALF_WIDTH),
        is_bounded=False,
        integers=np.zeros(SIZE, bool),
        measures=measures,
    )


PROBLEM = Problem("pendulum", instance, evaluations=3_000, sign=-1)

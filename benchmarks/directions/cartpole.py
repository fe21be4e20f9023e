"""CartPole-v1 as a pure function: gymnasium's constants, Euler's steps and limits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

GRAVITY = 9.8
CART, POLE = 1.0, 0.1
"""Masses, kg."""
HALF_LENGTH = 0.5
FORCE = 10.0
SECONDS = 0.02
"""Of a step."""
FARTHEST = 2.4
STEEPEST = 12 * jnp.pi / 180
STEPS = 200
"""Of an episode, at most."""
HIDDEN = 16


def policy(key: jax.Array) -> dict[str, jax.Array]:
    """A perceptron 4-16-2 at the start."""
    first, second = jax.random.split(key)
    return {
        "kernel_1": jax.random.normal(first, (4, HIDDEN)) / 2,
        "bias_1": jnp.zeros(HIDDEN),
        "kernel_2": jax.random.normal(second, (HIDDEN, 2)) / 4,
        "bias_2": jnp.zeros(2),
    }


def pushes_right(params: Any, state: jax.Array) -> jax.Array:
    """The greedy action at (x, x', angle, angle')."""
    hidden = jnp.tanh(state @ params["kernel_1"] + params["bias_1"])
    left, right = hidden @ params["kernel_2"] + params["bias_2"]
    return right > left


def starts(key: jax.Array, number: int) -> jax.Array:
    """Where episodes begin, shape ``[number, 4]``."""
    return jax.random.uniform(key, (number, 4), minval=-0.05, maxval=0.05)


def moved(state: jax.Array, right: jax.Array) -> jax.Array:
    """The state a step later."""
    _, speed, angle, turning = state
    force = jnp.where(right, FORCE, -FORCE)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass = CART + POLE
    push = (force + POLE * HALF_LENGTH * turning**2 * sine) / mass
    turn = (GRAVITY * sine - cosine * push) / (
        HALF_LENGTH * (4 / 3 - POLE * cosine**2 / mass)
    )
    shove = push - POLE * HALF_LENGTH * turn * cosine / mass
    return state + SECONDS * jnp.stack([speed, shove, turning, turn])


def upright(state: jax.Array) -> jax.Array:
    """Whether the episode goes on."""
    return (abs(state[0]) <= FARTHEST) & (abs(state[2]) <= STEEPEST)


def mean_return(params: Any, first: jax.Array) -> jax.Array:
    """Steps until the pole falls, the mean over episodes that begin at ``first``."""

    def episode(state: jax.Array) -> jax.Array:
        def step(carry: Any, _: None) -> Any:
            state, goes_on = carry
            following = moved(state, pushes_right(params, state))
            return (following, goes_on & upright(following)), goes_on

        carry = (state, jnp.array(True))
        return jnp.sum(jax.lax.scan(step, carry, length=STEPS)[1], dtype=jnp.float32)

    return jnp.mean(jax.vmap(episode)(first))

"""The steps of a search: annealed, within bounds, until it ends."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import amplitudes, weight_space
from qiaso_jax._arguments import PyTree
from qiaso_jax._transformation import Algorithm, algorithm
from qiaso_jax._trees import moving, whole
from qiaso_jax.collapse import READOUTS
from qiaso_jax.evaluation import checked_losses
from qiaso_jax.search import stopping
from qiaso_jax.search.bounds import Box, into
from qiaso_jax.search.method import Method
from qiaso_jax.search.result import MinimizeResult, MinimizeStatus
from qiaso_jax.search.stopping import Stretch
from qiaso_jax.superposition import (
    Candidates,
    Listed,
    Superposition,
    arrays,
    displaced,
    stored,
)
from qiaso_jax.weight_space import QIASOState

SLOW_RATE = 0.5
"""c of the first three quarters of the steps, in each of which σ falls by e^{−c/N}."""

FAST_RATE = 1.4
"""c of the last quarter."""


class Problem(NamedTuple):
    """What is searched, and until when.

    Attributes:
      fun: the function, of x and of further arguments.
      within: the box that its arguments lie in.
      moves: which leaves are searched, a pytree of booleans like x.
      target: a value that is good enough.
      num_steps: what the budget affords.
      patience: how many steps without a difference end the search.
    """

    fun: Callable[..., Any]
    within: Box
    moves: PyTree
    target: Any
    num_steps: int
    patience: int


class Carry(NamedTuple):
    """What goes from step to step; after the end it stays as it is.

    Attributes:
      x: the centre.
      state: of the algorithm.
      best_x: the best point so far.
      best_value: its value, ``inf`` before the first finite one.
      stretch: steps whose values all equal the best one.
      status: a ``MinimizeStatus``, int32.
    """

    x: PyTree
    state: QIASOState
    best_x: PyTree
    best_value: jax.Array
    stretch: Stretch
    status: jax.Array


def settings(
    num_candidates: int, sigma: PyTree, num_steps: int, size: int
) -> weight_space.Settings:
    """Ranks, and a spread that anneals over the budget from σ of each coordinate."""

    def spread(step):
        factor = annealed(step, num_steps, size)
        return jax.tree.map(lambda s: jnp.asarray(s) * factor, sigma)

    return weight_space.Settings(
        Superposition(num_candidates, antithetic=True, keeps_centre=False),
        sigma=spread,
        eta=5.0,
        kl_strength=1.0,
        scale=amplitudes.LOSS_SCALINGS["rank"],
        readout=READOUTS["expectation"],
        collapse_every=1,
        tunnelling=None,
        batch_size=None,
    )


def method(
    problem: Problem,
    x0: PyTree,
    sigma: PyTree,
    num_candidates: int,
    size: int,
    key: Any,
    args: tuple[Any, ...],
) -> Method:
    """A search whose spread is annealed over its budget.

    Args:
      problem: whose function takes x and further arguments.
      x0: the start.
      sigma: spread of each coordinate, a pytree like ``x0``.
      num_candidates: K.
      size: N, the number of coordinates.
      key: seed or PRNG key.
      args: the further arguments.
    """
    search = algorithm(
        weight_space.KERNEL,
        settings(num_candidates, sigma, problem.num_steps, size),
        optimizer=None,
        key=key,
    )

    def step(carry, args):
        fun = partial(_with_arguments, problem.fun, args)
        return _step(search, problem._replace(fun=fun), carry)

    def result(carry, history):
        return MinimizeResult(
            x=carry.best_x,
            fun=carry.best_value,
            violation=jnp.where(jnp.isfinite(carry.best_value), 0.0, jnp.inf),
            mean=carry.x,
            nfev=num_candidates * carry.state.step,
            nit=jnp.array(carry.state.step),  # its own buffer, if all are donated
            status=carry.status,
            history=history,
            state=carry.state,
        )

    return Method(
        before(search, x0),
        step,
        operands=args,
        is_kept=False,
        status=lambda carry: carry.status,
        made=lambda carry: carry.state.step,
        info=lambda carry: carry.state.info,
        result=result,
        num_steps=problem.num_steps,
    )


def _with_arguments(fun: Callable[..., Any], args: tuple[Any, ...], x: PyTree) -> Any:
    return fun(x, *args)


def before(search: Algorithm, x0: PyTree) -> Carry:
    """Before the first step."""
    state = search.init(x0)
    dtype = state.log_amplitudes.dtype
    return Carry(
        x=x0,
        state=state,
        best_x=x0,
        best_value=jnp.asarray(jnp.inf, dtype),
        stretch=stopping.empty(dtype),
        status=jnp.asarray(int(MinimizeStatus.RUNNING), jnp.int32),
    )


def _step(search: Algorithm, problem: Problem, carry: Carry) -> Carry:
    """One step of the algorithm, within the bounds; keeps the best candidate."""
    x, state, best_x, best_value, stretch, _ = carry

    def point(moved):
        return into(problem.within, whole(x, moved))

    centre = moving(x, problem.moves)
    asked = search.ask(state, centre)
    candidates = _from_start(asked.candidates, state.step)
    asked = asked._replace(candidates=candidates)
    candidates = jax.vmap(point)(arrays(candidates, centre))
    values = jax.vmap(lambda x: checked_losses(problem.fun(x), (), "fun"))(candidates)
    displacement, state = search.move(search.tell(state, centre, asked, values), centre)
    x = point(displaced(centre, displacement))
    epsilon = max(float(jnp.finfo(v.dtype).eps) for v in (values, best_value))
    values = values.astype(best_value.dtype)
    values = jnp.where(jnp.isfinite(values), values, jnp.inf)
    winner = jnp.argmin(values)
    best_x = optax.tree.where(
        values[winner] < best_value,
        jax.tree.map(lambda c: c[winner], candidates),
        best_x,
    )
    best_value = jnp.minimum(best_value, values[winner])
    stretch = stopping.extended(stretch, values, best_value, epsilon)
    status = stopping.status(
        best_value,
        stretch,
        problem.num_steps - state.step,
        problem.target,
        problem.patience,
    )
    return Carry(x, state, best_x, best_value, stretch, status)


def _from_start(candidates: Candidates, step: jax.Array) -> Listed:
    """With the start as candidate 0 of the first step."""
    offsets = candidates.map(lambda offset: offset)

    def moved(offset):
        return offset.at[0].multiply(jnp.where(step > 0, 1, 0).astype(offset.dtype))

    return stored(jax.tree.map(moved, offsets), candidates.number)


def annealed(step: jax.Array, num_steps: int, size: int) -> jax.Array:
    """σ_t / σ_0: slowly at first, to find the basin; faster in the last quarter."""
    refining = jnp.maximum(step - 0.75 * num_steps, 0)
    exponent = -(SLOW_RATE * (step - refining) + FAST_RATE * refining) / size
    # Not below the resolution of single precision at the scale of sigma.
    return jnp.exp(jnp.maximum(exponent, math.log(1e-8)))

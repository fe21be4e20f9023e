"""Black-box search in one call."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from qiaso_jax import _arguments, weight_space
from qiaso_jax._arguments import PyTree
from qiaso_jax._transformation import algorithm
from qiaso_jax._trees import moves
from qiaso_jax.search import stopping
from qiaso_jax.search.bounds import box, num_free, projected, spread
from qiaso_jax.search.result import MinimizeResult, MinimizeStatus
from qiaso_jax.search.start import start
from qiaso_jax.search.steps import (
    SLOW_RATE,
    Carry,
    Problem,
    before,
    settings,
    step_unless_ended,
)
from qiaso_jax.weight_space import QIASOInfo


def minimize(
    fun: Callable[[Any], Any],
    x0: PyTree,
    *,
    max_evaluations: int,
    sigma: Any = None,
    bounds: tuple[Any, Any] | None = None,
    num_candidates: int | None = None,
    target: float | None = None,
    key: Any = 0,
    callback: Callable[[MinimizeResult], Any] | None = None,
) -> MinimizeResult:
    r"""Minimises a function of any pytree from its values alone.

    Collapses to the expectation (Eq 2) at every step, on centred ranks with η = 5,
    while the spread of the superposition is annealed,

    .. math::
        σ_{t+1} = σ_t e^{−c/N}, \qquad c = 0.5, \text{ and } 1.4
        \text{ in the last quarter of the steps},

    where N is the number of coordinates that are searched. Unless given, K is such that
    the E evaluations make :math:`10 N (E / 1000 N)^{0.3}` steps, and at least
    4 + 3 log N: more candidates rather than more steps find the global minimum of a
    rugged function, and the last quarter refines it. ``benchmarks/rastrigin`` measures
    this. The candidates spread alike in all directions, so a long curved valley, such
    as Rosenbrock's, is better searched with CMA-ES.

    The search ends before its budget is spent when ``target`` is reached, or when it
    has converged: values had differed, and then, while σ halves and for at least five
    steps, all equal the best one L to within 4 ε |L|, ε of their precision.

    Args:
      fun: ``fun(x) -> scalar``, traceable by JAX; ``ask`` and ``tell`` are for others.
      x0: the start, a pytree. Python numbers, of integers too, are searched as floats,
        and so are floating and complex arrays in their dtype; arrays of integers stay
        as they are, with a warning, and booleans do. The first candidate is x0 itself.
      max_evaluations: E; as many whole steps of K evaluations as fit in are made.
      sigma: initial spread, in units of x: about the distance to be searched. A number,
        an array, or a pytree prefix of ``x0`` of these. ``None`` for a third of the
        width of the bounds in each coordinate, which all must be finite.
      bounds: ``(lower, upper)``, each a number, an array, or a pytree prefix of ``x0``
        of these, ±inf where there is none. Candidates beyond a bound are reflected into
        the box. Where the two are equal, the coordinate is fixed, and not searched,
        whatever ``x0`` has there.
      num_candidates: K, or ``None`` for the rule above.
      target: a value that is good enough: the search ends once ``fun`` is at most this.
      key: seed or PRNG key.
      callback: called after every step with the ``MinimizeResult`` so far, whose
        ``history`` is of that step alone; the search ends if it returns something true
        or raises ``StopIteration``.

    Returns:
      A ``MinimizeResult``. With the same arguments it is the same, bit by bit. Every
      call compiles anew, as ``fun`` may close over what has changed. Without
      ``callback``, ``minimize`` may be called under ``jax.jit`` and ``jax.vmap``, for
      instance over ``x0``, ``sigma`` and ``key``. Values that are traced are then not
      checked: an x0 beyond the bounds starts from the point of the box next to it, and
      N counts coordinates that traced bounds fix. Under ``jax.vmap`` a search that has
      ended changes no more, but goes on being computed with the others.

    Raises:
      TypeError: if an argument has the wrong type, ``fun`` cannot be traced or returns
        no real floating number, or there is a ``callback`` under ``jax.jit``.
      ValueError: if an argument is out of its range, bounds cross or fix everything,
        ``x0`` is outside of them, or there is neither ``sigma`` nor finite bounds.

    Warns:
      UserWarning: if ``x0`` has arrays of integers, which stay as they are.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> def rastrigin(x):
      ...     return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))
      >>> result = qiaso_jax.minimize(
      ...     rastrigin, jnp.full(5, 3.0), sigma=2.5, max_evaluations=30_000)
      >>> print(f"{result.fun:.2f}", result.x.round(2) + 0.0)
      0.00 [0. 0. 0. 0. 0.]
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function x -> scalar, got {fun!r}.")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function or None, got {callback!r}.")
    x0 = start(x0)
    within = box(bounds, x0)
    size = num_free(within, x0)
    sigma = spread(sigma, within, x0)
    if target is not None:
        _arguments.scalar("target", target)
    max_evaluations = _arguments.positive_int("max_evaluations", max_evaluations)
    if max_evaluations >= 2**31:
        raise ValueError(
            "max_evaluations must be below 2**31, as they are counted in int32; got "
            f"{max_evaluations}."
        )
    if num_candidates is None:
        num_candidates = _default_candidates(max_evaluations, size)
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    if num_candidates > max_evaluations:
        raise ValueError(
            "max_evaluations must be enough for one step of num_candidates = "
            f"{num_candidates}, got {max_evaluations}."
        )
    num_steps = max_evaluations // num_candidates
    search = algorithm(
        weight_space.KERNEL,
        settings(num_candidates, sigma, num_steps, size),
        optimizer=None,
        key=key,
    )
    problem = Problem(
        fun,
        within,
        moves(x0, None),
        target=-math.inf if target is None else target,
        num_steps=num_steps,
        patience=stopping.patience(size, SLOW_RATE),
    )

    @partial(jax.jit, static_argnums=1)
    def steps(carry, length):
        step = partial(step_unless_ended, search, problem)
        return jax.lax.scan(step, carry, length=length)

    carry = before(search, projected(within, x0))
    if callback is None:
        carry, history = _traceable(steps, carry, num_steps)
    else:
        carry, history = _watched(steps, carry, callback)
    nit = carry.state.step
    if not isinstance(nit, Tracer):
        history = jax.tree.map(lambda reports: reports[: int(nit)], history)
    return _result(carry, history)


def _watched(
    steps: Callable[..., Any],
    carry: Carry,
    callback: Callable[[MinimizeResult], Any],
) -> tuple[Carry, QIASOInfo]:
    """Step by step, until the search ends or ``callback`` ends it."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(carry)):
        raise TypeError(
            "callback must be None under jax.jit and jax.vmap, which do not run step "
            f"by step; got {callback!r}."
        )
    reports = []
    while carry.status == MinimizeStatus.RUNNING:
        carry, report = _traceable(steps, carry, 1)
        reports.append(report)
        wants_to_stop = _wants_to_stop(callback, _result(carry, report))
        if wants_to_stop and carry.status == MinimizeStatus.RUNNING:
            stopped = jnp.full_like(carry.status, MinimizeStatus.STOPPED_BY_CALLBACK)
            carry = carry._replace(status=stopped)
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *reports)


def _wants_to_stop(
    callback: Callable[[MinimizeResult], Any], so_far: MinimizeResult
) -> bool:
    try:
        return bool(callback(so_far))
    except StopIteration:
        return True


def _traceable(steps: Callable[..., Any], carry: Carry, length: int) -> Any:
    try:
        return steps(carry, length)
    except (
        jax.errors.TracerArrayConversionError,
        jax.errors.ConcretizationTypeError,
    ) as error:
        raise TypeError(
            "fun must be traceable by JAX, and needed a concrete value; use "
            "qiaso_jax.ask and qiaso_jax.tell for functions outside of JAX."
        ) from error


def _result(carry: Carry, history: QIASOInfo) -> MinimizeResult:
    num_candidates = carry.state.log_amplitudes.shape[-1]
    return MinimizeResult(
        x=carry.best_x,
        fun=carry.best_value,
        mean=carry.x,
        nfev=num_candidates * carry.state.step,
        nit=jnp.array(carry.state.step),  # a buffer of its own, if all are donated
        status=carry.status,
        history=history,
        state=carry.state,
    )


def _default_candidates(max_evaluations: int, size: int) -> int:
    """K for E evaluations of a function of N weights: an even number, at most E."""
    num_steps = 10 * size * (max_evaluations / (1000 * size)) ** 0.3
    wanted = max(max_evaluations / num_steps, 4 + 3 * math.log(size))
    return min(2 * round(wanted / 2), max_evaluations)

"""Functions that JAX does not trace: simulators, measurements, other processes."""

import math
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax._arguments import PyTree
from qiaso_jax.losses import real_numbers
from qiaso_jax.search import adaptive, feasibility
from qiaso_jax.search.coordinates import Coordinates
from qiaso_jax.search.method import Callback, wants_to_stop
from qiaso_jax.search.plan import Plan
from qiaso_jax.search.result import MinimizeResult, MinimizeStatus
from qiaso_jax.search.state import SearchState

Workers = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""As ``map``: calls a function of one argument on each of many, in any process."""

EPSILON = float(np.finfo(np.float64).eps)

_asked = jax.jit(adaptive.asked, static_argnums=0)
_told = jax.jit(adaptive.told, static_argnums=0)


class Failed(NamedTuple):
    """In the place of a value.

    Attributes:
      reason: the exception in words.
    """

    reason: str


class Infeasible(NamedTuple):
    """In the place of a value where the constraint is violated.

    Attributes:
      violation: above 0.
    """

    violation: float


class Caught(NamedTuple):
    """A function whose exceptions are values; it can be pickled if the function can.

    Attributes:
      fun: the function of x and further arguments.
      args: these.
      constraint: another function of the same arguments, or ``None``.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    constraint: Callable[..., Any] | None = None

    def __call__(self, x: PyTree) -> float | Infeasible | Failed:
        """The value at ``x``."""
        try:
            if self.constraint is not None:
                found = self.constraint(x, *self.args)
                violation = float(feasibility.violation(found, np))
                if violation != 0:
                    return Infeasible(violation)
            return float(real_numbers([self.fun(x, *self.args)])[0])
        except Exception as error:
            return Failed(f"{type(error).__name__}: {error}")


def run(
    plan: Plan,
    where: Coordinates,
    state: SearchState,
    fun: Caught,
    workers: Callable[..., list[Any]],
    callback: Callback | None,
    max_seconds: float | None,
) -> MinimizeResult:
    """The result of a search whose candidates ``workers`` evaluate.

    Raises:
      RuntimeError: if none of the first evaluations gives a value.
      ValueError: if ``workers`` returns other than a value for each.
    """
    points = jax.jit(jax.vmap(where.point))
    reports = []
    until = math.inf if max_seconds is None else monotonic() + max_seconds
    while state.status == MinimizeStatus.RUNNING:
        number = int(state.run.candidates)
        parts = [_asked(plan, state, i) for i in range(number // plan.least)]
        candidates = [x for part in parts for x in listed_points(points(part))]
        found = _answers(fun, workers, candidates)
        values, violations = measured(plan, fun, found, is_first=int(state.step) == 0)
        state = _told(plan, where.space, state, values, EPSILON, violations)
        reports.append(state.info)
        if state.status == MinimizeStatus.RUNNING and monotonic() >= until:
            state = ended(state, MinimizeStatus.TIME_SPENT)
        if callback is None:
            continue
        if wants_to_stop(callback, result(where, state, reports[-1:])):
            state = ended(state, MinimizeStatus.STOPPED_BY_CALLBACK)
    return result(where, state, reports)


def listed(workers: Workers) -> Callable[..., list[Any]]:
    """``workers`` that are done when they return."""
    return lambda fun, points: list(workers(fun, points))


def at_once(fun: Any, points: Iterable[PyTree]) -> list[Any]:
    """Workers that call a function of many points once; exceptions are the caller's.

    Args:
      fun: a ``Caught`` function of points with a leading axis.
      points: one by one.

    Raises:
      TypeError: if ``fun`` returns no real numbers.
      ValueError: if ``fun`` or the constraint returns other than one for each point.
    """
    points = list(points)
    x = jax.tree.map(lambda *parts: np.stack(parts), *points)
    values = np.asarray(fun.fun(x, *fun.args))
    if values.shape != (len(points),):
        raise ValueError(
            f"fun must return an array of shape ({len(points)},) with vectorized=True, "
            f"one value for each point; got shape {values.shape}."
        )
    values = real_numbers(values)
    if fun.constraint is None:
        return values
    found = np.asarray(fun.constraint(x, *fun.args))
    if found.shape[:1] != (len(points),):
        raise ValueError(
            "constraint must return an array whose first axis is of length "
            f"{len(points)} with vectorized=True, one row for each point; got shape "
            f"{found.shape}."
        )
    violations = [float(feasibility.violation(row, np)) for row in found]
    return [
        Infeasible(violation) if violation != 0 else value
        for value, violation in zip(values, violations, strict=True)
    ]


def in_precision_of_caller(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``fun``, to be called where JAX is configured as it is here.

    The search is in double precision; what JAX does in ``fun`` is as ever.
    """
    is_double = bool(jnp.result_type(float) == jnp.float64)

    def called(*args):
        with jax.enable_x64(is_double):
            return fun(*args)

    return called


def ended(state: SearchState, status: MinimizeStatus) -> SearchState:
    """With what has ended it."""
    return state._replace(status=jnp.asarray(int(status), jnp.int32))


def result(
    where: Coordinates, state: SearchState, reports: list[Any]
) -> MinimizeResult:
    """What ``state`` has found, as NumPy has it.

    JAX takes double precision ill where it is not configured to; and of a history it
    would compile, and keep, a copy for every length that there is.
    """
    found = adaptive.result(where, state, state.info)
    found = found._replace(history=stacked(state.info, reports))
    return jax.tree.map(np.asarray, found)


def stacked(like: Any, reports: list[Any]) -> Any:
    """Reports with a leading axis, which may be none; each is one like ``like``."""

    def on_leaf(x, *parts):
        return np.stack(parts) if parts else np.empty((0, *x.shape), x.dtype)

    return jax.tree.map(on_leaf, like, *reports)


def listed_points(points: PyTree) -> list[PyTree]:
    """Points with a leading axis, one by one, as NumPy has them."""
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, points))
    return [treedef.unflatten(parts) for parts in zip(*leaves, strict=True)]


def _answers(
    fun: Caught, workers: Callable[..., list[Any]], candidates: list[PyTree]
) -> list[Any]:
    """What ``fun`` returns of each."""
    found = workers(fun, candidates)
    if len(found) != len(candidates):
        raise ValueError(
            "workers must return a value for each of the candidates, as map does; got "
            f"{len(found)} for {len(candidates)}."
        )
    return found


def measured(
    plan: Plan, fun: Caught, found: list[Any], is_first: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Values and violations, NaN where unknown and beyond them; shape ``[most]``.

    Args:
      plan: of the search.
      fun: the function; without a constraint there are no violations.
      found: what it has returned of each candidate, at most ``most`` of them.
      is_first: whether they are of the first step.

    Raises:
      RuntimeError: if none of the first has a value.
    """
    failed = [value for value in found if isinstance(value, Failed)]
    if is_first and len(failed) == len(found):
        name = "fun" if fun.constraint is None else "constraint, or fun,"
        raise RuntimeError(f"{name} fails wherever it is called: {failed[0].reason}")
    pairs = np.full((plan.most, 2), math.nan)
    pairs[: len(found)] = [value_and_violation(each) for each in found]
    values, violations = jnp.asarray(pairs.T, plan.dtype)
    return values, None if fun.constraint is None else violations


def value_and_violation(found: float | Infeasible | Failed) -> tuple[float, float]:
    """Of a candidate, NaN where unknown."""
    if isinstance(found, Failed):
        return math.nan, math.nan
    if isinstance(found, Infeasible):
        return math.nan, found.violation
    return found, 0.0

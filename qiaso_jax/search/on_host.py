"""Functions that JAX does not trace: simulators, measurements, other processes."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax._arguments import PyTree
from qiaso_jax.losses import real_numbers
from qiaso_jax.search import adaptive
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


class Caught(NamedTuple):
    """A function whose exceptions are values; it can be pickled if the function can.

    Attributes:
      fun: the function of x and further arguments.
      args: these.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]

    def __call__(self, x: PyTree) -> float | Failed:
        """The value at ``x``."""
        try:
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
) -> MinimizeResult:
    """The result of a search whose candidates ``workers`` evaluate.

    Raises:
      RuntimeError: if none of the first evaluations gives a value.
      ValueError: if ``workers`` returns other than a value for each.
    """
    points = jax.jit(jax.vmap(where.point))
    reports = []
    while state.status == MinimizeStatus.RUNNING:
        number = int(state.run.candidates)
        parts = [_asked(plan, state, i) for i in range(number // plan.least)]
        candidates = [x for part in parts for x in _listed(points(part))]
        found = _measured(fun, workers, candidates, is_first=int(state.step) == 0)
        values = np.pad(found, (0, plan.most - number), constant_values=math.nan)
        values = jnp.asarray(values, plan.dtype)
        state = _told(plan, where.space, state, values, EPSILON)
        reports.append(state.info)
        if callback is None:
            continue
        if wants_to_stop(callback, _result(where, state, reports[-1:])):
            stopped = int(MinimizeStatus.STOPPED_BY_CALLBACK)
            state = state._replace(status=jnp.asarray(stopped, jnp.int32))
    return _result(where, state, reports)


def listed(workers: Workers) -> Callable[..., list[Any]]:
    """``workers`` that are done when they return."""
    return lambda fun, points: list(workers(fun, points))


def in_precision_of_caller(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``fun``, to be called where JAX is configured as it is here.

    The search is in double precision; what JAX does in ``fun`` is as ever.
    """
    is_double = bool(jnp.result_type(float) == jnp.float64)

    def called(*args):
        with jax.enable_x64(is_double):
            return fun(*args)

    return called


def _result(
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


def _listed(points: PyTree) -> list[PyTree]:
    """Points with a leading axis, one by one, as NumPy has them."""
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, points))
    return [treedef.unflatten(parts) for parts in zip(*leaves, strict=True)]


def _measured(
    fun: Caught,
    workers: Callable[..., list[Any]],
    candidates: list[PyTree],
    is_first: bool,
) -> np.ndarray:
    """Their values; NaN where ``fun`` has failed."""
    found = workers(fun, candidates)
    if len(found) != len(candidates):
        raise ValueError(
            "workers must return a value for each of the candidates, as map does; got "
            f"{len(found)} for {len(candidates)}."
        )
    failed = [value for value in found if isinstance(value, Failed)]
    if is_first and len(failed) == len(found):
        raise RuntimeError(f"fun fails wherever it is called: {failed[0].reason}")
    return np.array([math.nan if isinstance(v, Failed) else v for v in found], float)

"""Black-box search in one call."""

import contextlib
import math
import reprlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from qiaso_jax import _arguments
from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import moves
from qiaso_jax.search import adaptive, asynchronous, on_host, stopping
from qiaso_jax.search.bounds import box, num_free, projected, spread
from qiaso_jax.search.coordinates import coordinates
from qiaso_jax.search.covariance import DIAGONAL, FULL, Kind
from qiaso_jax.search.futures import Asynchronous, Executor, remote_of
from qiaso_jax.search.integers import tightened, which
from qiaso_jax.search.low_rank import LOW_RANK
from qiaso_jax.search.method import run
from qiaso_jax.search.on_host import Caught, Workers
from qiaso_jax.search.plan import Plan, default_candidates, largest
from qiaso_jax.search.result import MinimizeResult
from qiaso_jax.search.start import start
from qiaso_jax.search.state import SearchState, begun, resumed
from qiaso_jax.search.steps import SLOW_RATE, Problem
from qiaso_jax.search.steps import method as annealing
from qiaso_jax.words import two_words

FULL_UP_TO = 200
"""Coordinates whose covariance is learnt as a whole by default."""

AGAINST_NOISE = 4
"""Under noise there are so many times the candidates by default."""

FEWEST_STEPS = 30
"""Neither noise nor workers make them more, by default, than leave so many steps."""


def minimize(
    fun: Callable[..., Any],
    x0: PyTree,
    *,
    max_evaluations: int,
    args: tuple[Any, ...] = (),
    sigma: Any = None,
    bounds: tuple[Any, Any] | None = None,
    integers: Any = None,
    constraint: Callable[..., Any] | None = None,
    noisy: bool = False,
    covariance: Literal["auto", "full", "low_rank", "diagonal"] | None = "auto",
    restarts: int | None = None,
    num_candidates: int | None = None,
    target: float | None = None,
    workers: Workers | Executor | Asynchronous | None = None,
    vectorized: bool = False,
    max_seconds: float | None = None,
    resume: MinimizeResult | SearchState | None = None,
    key: Any = 0,
    callback: Callable[[MinimizeResult], Any] | None = None,
) -> MinimizeResult:
    r"""Minimises a function of any pytree from its values alone.

    The superposition is a normal distribution 𝒩(m, σ² C). K candidates are drawn from
    it, their ranks give exponential weights p (Eq 16, centred ranks, η = 5), and it
    collapses to their expectations: of the displacement (Eq 2),
    :math:`m + \sum_k p_k δ_k`, and of the second moment,

    .. math::
        C + c_1 (\mathrm{path\,path}^\top - C)
          + c_μ \sum_k (p_k - 1/K)\, δ_k δ_k^\top / σ^2 ,

    where candidates that are worse than the prior's 1/K push C away. σ follows the
    length of the path of m, and all rates those of CMA-ES (Hansen 2016) with
    :math:`μ_\mathrm{eff} = 1/\sum p^2`; C keeps its determinant, and where
    :math:`μ_\mathrm{eff} > N` candidates tell of N variances, log σ takes its part of

    .. math::
        \min(μ_\mathrm{eff}/N - 1,\, 1)\; \tfrac{c_μ}{2}
          \sum_k \max(p_k - 1/K,\, 0) \left(\|z_k\|^2/N - 1\right),
          \qquad δ_k = σ \sqrt{C} z_k,

    which has the expectation 0 where nothing is selected. σ is halved whenever a run
    has found nothing better in 10 + 2 N steps: on a rugged function ranks say little
    as long as candidates are far apart.

    The tunnelling of the search are restarts. A run ends where values, or points,
    differ no more; on a rough function where they do so in the seventh digit only, or
    of ten coordinates and more the points alone; on a plateau; without any gain
    for long; or far behind the best run. Three arms share what is left of the budget:
    runs with ever twice the candidates, small ones in between (BIPOP, Hansen 2009), and
    runs that anneal σ, the same in all directions, with four times the candidates of
    the one before: these find the global minimum of a rugged function, and go on as
    long as they lead by far. ``benchmarks/coco`` and ``benchmarks/convergence`` measure
    this.

    The search ends before its budget is spent when ``target`` is reached, when five
    runs have converged to the best value, or when there are no ``restarts`` left.

    Args:
      fun: ``fun(x, *args) -> scalar``, traceable by JAX; any function with ``workers``.
      x0: the start, a pytree. Python numbers, of integers too, are searched as floats,
        and so are floating and complex arrays in their dtype; arrays of integers stay
        as they are, with a warning, and booleans do. The first candidate is x0 itself.
      max_evaluations: E; as many whole steps as fit in are made.
      args: further arguments of ``fun``, a tuple of pytrees.
      sigma: initial spread, in units of x: about the distance to be searched. A number,
        an array, or a pytree prefix of ``x0`` of these. ``None`` for a third of the
        width of the bounds in each coordinate, which all must be finite.
      bounds: ``(lower, upper)``, each a number, an array, or a pytree prefix of ``x0``
        of these, ±inf where there is none. Candidates beyond a bound are reflected into
        the box. Where the two are equal, the coordinate is fixed, and not searched,
        whatever ``x0`` has there.
      integers: which coordinates are whole numbers: a boolean, an array, or a pytree
        prefix of ``x0`` of these. ``fun`` sees them rounded, and their bounds are.
        The standard deviation of each stays so wide that a candidate leaves the present
        integer with a probability of 1/(N K) (Hamano et al. 2022).
      constraint: ``constraint(x, *args)``, a number or an array, at most 0 where it is
        met. Candidates that meet it are better than all others, which are compared by
        the sum of what is above 0 (Deb 2000); let its entries be of one scale. What
        ``fun`` is where it is violated does not matter; with ``workers`` it is not
        called there.
      noisy: whether ``fun`` has another value whenever it is called at the same point,
        as a measurement or a Monte Carlo estimate has. K is then four times as large by
        default, as far as that leaves 30 steps, and no run ends for want of gain: once
        the mean value of candidates has fallen no more for 80 steps, K is doubled and σ
        tripled, as ranks that noise decides say more of points farther apart. ``mean``
        of the result is the average of m since then.
      covariance: ``"full"``; ``"diagonal"``; ``"low_rank"``, which sees correlations
        along 4 + 3 log N directions beside the scales of the coordinates, at a cost
        that grows as N log N; or ``"auto"``: full for up to 200 coordinates, and
        diagonal for more. ``None`` for one annealed search without covariance or
        restarts, on pairs of candidates,

        .. math::
            σ_{t+1} = σ_t e^{−c/N}, \qquad c = 0.5, \text{ and } 1.4
            \text{ in the last quarter of the steps},

        with so many candidates that there are :math:`10 N (E / 1000 N)^{0.3}` steps,
        and at least 4 + 3 log N.
      restarts: how many there may be; ``None`` for as many as the budget affords. They
        begin within 2 σ of x0 in each coordinate, within the bounds.
      num_candidates: K of the first run, which those of others are multiples of;
        ``None`` for 4 + ⌊3 log N⌋, or four times that if ``noisy``, and no fewer than
        an executor has workers, as far as that leaves 30 steps.
      target: a value that is good enough: the search ends once ``fun`` is at most this.
      workers: ``None`` for a function that JAX traces. A function like ``map``, which
        calls ``fun`` on each of many points, in this process or others
        (``multiprocessing.Pool().map``): points are then of NumPy in double precision,
        and so is the search, whatever JAX is configured to; an exception is a missing
        value. An executor with ``submit``, or ``Asynchronous``, which says more of how
        it is used: likewise, but the slowest evaluations are not waited for.
      vectorized: whether ``fun`` is a function of many points at once that JAX does
        not trace: ``x`` has a leading axis K, which changes from run to run, and
        ``fun`` returns ``[K]``, NaN for a missing value, and ``constraint`` ``[K]`` or
        ``[K, ...]``. Points are as with ``workers``; exceptions are the caller's.
      max_seconds: with ``workers`` or ``vectorized=True``, the search ends after the
        step in which so many have passed.
      resume: a result, or the ``state`` of one, of an earlier call with the same
        ``x0``, ``sigma``, ``bounds`` and ``integers``: the search goes on from there,
        whatever ``key``, until ``max_evaluations`` with those before. ``history`` is
        that of the further steps. One that ``callback`` or time has ended goes on as if
        it had not been.
      key: seed or PRNG key.
      callback: called after every step with the ``MinimizeResult`` so far, whose
        ``history`` is of that step alone; the search ends if it returns something true
        or raises ``StopIteration``.

    Returns:
      A ``MinimizeResult``. With the same arguments it is the same, bit by bit, unless
      evaluations by an executor come in another order. ``fun`` is traced in every call,
      as it may close over what has changed; nothing is compiled anew where its
      operations are those of an earlier call with the same shapes, bounds, budget and
      candidates, whatever the values of arrays, but with ``covariance=None``, and where
      ``fun`` prints. Without ``callback``, ``workers`` and ``vectorized``, ``minimize``
      may be called under ``jax.jit`` and ``jax.vmap``, for instance over ``x0``,
      ``sigma``, ``args`` and ``key``. Values that are traced are then not checked: an
      x0 beyond the bounds starts from the point of the box next to it, and N counts
      coordinates that traced bounds fix. Under ``jax.vmap`` a search that has ended
      changes no more, but goes on being computed with the others.

    Raises:
      TypeError: if an argument has the wrong type, ``fun`` cannot be traced or returns
        no real floating number, or there is a ``callback`` under ``jax.jit``.
      ValueError: if an argument is out of its range, bounds cross or fix everything,
        ``x0`` is outside of them, there is neither ``sigma`` nor finite bounds, or one
        argument does not go with another.
      RuntimeError: with ``workers``, if ``fun`` fails on all of the first candidates.

    Warns:
      UserWarning: if ``x0`` has arrays of integers, which stay as they are, or workers
        of an executor fail.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, qiaso_jax
      >>> def rosenbrock(x):
      ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
      >>> result = qiaso_jax.minimize(
      ...     rosenbrock, jnp.zeros(5), sigma=1.0, max_evaluations=5_000)
      >>> print(f"{result.fun:.4f}", result.x.round(2))
      0.0000 [1. 1. 1. 1. 1.]

      A simulator; the ``map`` of a pool in the place of this one runs it on all cores:

      >>> def simulator(x):
      ...     return float(np.abs(x - 3.0).sum())
      >>> result = qiaso_jax.minimize(
      ...     simulator, np.zeros(2), sigma=1.0, max_evaluations=1_000, workers=map)
      >>> print(result.x.round(2))
      [3. 3.]

      The point of a half-plane next to the origin, and the same among whole numbers:

      >>> def fun(x):
      ...     return jnp.sum(x**2)
      >>> given = {"sigma": 1.0, "max_evaluations": 2_000}
      >>> def constraint(x):
      ...     return 3.0 - x[0] - x[1]
      >>> result = qiaso_jax.minimize(
      ...     fun, jnp.zeros(2), constraint=constraint, **given)
      >>> print(result.x.round(2), result.violation)
      [1.5 1.5] 0.0
      >>> result = qiaso_jax.minimize(
      ...     fun, jnp.zeros(2), constraint=constraint, integers=True, **given)
      >>> print(result.fun)
      5.0
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function x -> scalar, got {fun!r}.")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function or None, got {callback!r}.")
    remote = remote_of(workers)
    if workers is not None and remote is None and not callable(workers):
        raise TypeError(
            "workers must be a function like map, or an executor with submit; got "
            f"{workers!r}."
        )
    if constraint is not None and not callable(constraint):
        raise TypeError(
            "constraint must be a function x -> numbers that are at most 0 where it is "
            f"met, or None; got {constraint!r}."
        )
    for name, value in {"noisy": noisy, "vectorized": vectorized}.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a boolean, got {value!r}.")
    if vectorized and workers is not None:
        raise ValueError(
            "workers must be None with vectorized=True, as fun gets all points at "
            f"once; got {workers!r}."
        )
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {args!r}.")
    given = jax.tree.leaves((x0, sigma, bounds, args, key, target, resume))
    is_traced = any(isinstance(leaf, Tracer) for leaf in given)
    if is_traced:
        _refuse(
            TypeError,
            "under jax.jit and jax.vmap, which do not run step by step",
            callback=callback,
            workers=workers,
            vectorized=vectorized,
        )
    workers = on_host.at_once if vectorized else workers
    if max_seconds is not None:
        _arguments.scalar("max_seconds", max_seconds, above=0)
    if max_seconds is not None and workers is None:
        raise ValueError(
            "max_seconds must be None without workers or vectorized=True, as JAX runs "
            f"a search as one program, which a callback can end; got {max_seconds!r}."
        )
    on_workers = None
    if remote is None and callable(workers):
        on_workers = on_host.in_precision_of_caller(on_host.listed(workers))
    if workers is not None and callback is not None:
        callback = on_host.in_precision_of_caller(callback)
    with contextlib.nullcontext() if workers is None else jax.enable_x64(True):
        x0 = start(x0 if workers is None else _doubles(x0))
        whole = which(False if integers is None else integers, x0)
        within = tightened(whole, box(bounds, x0))
        size = num_free(within, x0)
        sigma = spread(sigma, within, x0)
        if target is not None:
            _arguments.scalar("target", target)
        kind = _kind(covariance, size)
        max_evaluations, num_candidates, most_restarts = _counts(
            kind,
            size,
            max_evaluations,
            num_candidates,
            restarts,
            num_workers=1 if remote is None else remote.number,
            noisy=noisy,
        )
        target = -math.inf if target is None else target
        target = target if isinstance(target, Tracer) else float(target)
        moved, begin = moves(x0, None), projected(within, x0)
        if kind is None:
            _refuse(
                ValueError,
                "with covariance=None",
                resume=resume,
                noisy=noisy,
                vectorized=vectorized,
                workers=workers,
                constraint=constraint,
                integers=integers,
            )
            problem = Problem(
                fun,
                within,
                moved,
                target,
                num_steps=max_evaluations // num_candidates,
                patience=stopping.patience(size, SLOW_RATE),
            )
            method = annealing(problem, begin, sigma, num_candidates, size, key, args)
        else:
            where = coordinates(begin, moved, within, sigma, whole)
            plan = Plan(
                kind,
                size=where.size,
                dtype=where.space.origin.dtype,
                least=num_candidates,
                most=largest(num_candidates, max_evaluations),
                budget=max_evaluations,
                restarts=most_restarts,
                target=target,
                noisy=noisy,
            )
            if resume is None:
                before = begun(plan, where.space, _two_words(key))
            else:
                before = resumed(plan, where.space, resume)
            caught = Caught(fun, args, constraint)
            if remote is not None:
                return asynchronous.run(
                    plan, where, before, caught, remote, callback, max_seconds
                )
            if on_workers is not None:
                return on_host.run(
                    plan, where, before, caught, on_workers, callback, max_seconds
                )
            method = adaptive.method(plan, fun, constraint, args, where, before)
        return run(method, callback)


def _refuse(error: type[Exception], where: str, **arguments: Any) -> None:
    """Raises ``error`` of the first argument that is given."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            without = False if isinstance(value, bool) else None
            raise error(f"{name} must be {without} {where}; got {reprlib.repr(value)}.")


def _doubles(x0: PyTree) -> PyTree:
    """Floating numbers in double precision; what is none stays."""

    def double(leaf):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            return leaf
        is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
        return np.asarray(leaf, np.complex128 if is_complex else np.float64)

    return jax.tree.map(double, x0)


def _counts(
    kind: Kind | None,
    size: int,
    max_evaluations: Any,
    num_candidates: Any,
    restarts: Any,
    num_workers: int,
    noisy: bool,
) -> tuple[int, int, float]:
    """E, K and the most restarts by the arguments of these names, or our error."""
    max_evaluations = _arguments.positive_int("max_evaluations", max_evaluations)
    if max_evaluations >= 2**31:
        raise ValueError(
            "max_evaluations must be below 2**31, as they are counted in int32; got "
            f"{max_evaluations}."
        )
    if restarts is not None:
        restarts = _arguments.int_from(0, "restarts", restarts)
    if restarts and kind is None:
        raise ValueError(
            "restarts must be None or 0 with covariance=None, which anneals once; got "
            f"{restarts}."
        )
    if num_candidates is None and kind is None:
        num_candidates = _annealed_candidates(max_evaluations, size)
    elif num_candidates is None:
        default = default_candidates(size)
        wanted = max(AGAINST_NOISE * default if noisy else default, num_workers)
        num_candidates = max(default, min(wanted, max_evaluations // FEWEST_STEPS))
        num_candidates = min(num_candidates, max_evaluations)
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    if num_candidates > max_evaluations:
        raise ValueError(
            "max_evaluations must be enough for one step of num_candidates = "
            f"{num_candidates}, got {max_evaluations}."
        )
    return max_evaluations, num_candidates, math.inf if restarts is None else restarts


def _two_words(key: Any) -> jax.Array:
    """A seed or a key of any generator as two words."""
    key_data, impl = _arguments.prng_key(key)
    return two_words(jax.random.wrap_key_data(key_data, impl=impl))


def _kind(covariance: Any, size: int) -> Kind | None:
    """What is known of the covariance, by the argument ``covariance``."""
    kinds: dict[Any, Kind | None] = {
        "full": FULL,
        "low_rank": LOW_RANK,
        "diagonal": DIAGONAL,
        None: None,
    }
    kinds["auto"] = FULL if size <= FULL_UP_TO else DIAGONAL
    _arguments.one_of("covariance", covariance, kinds)
    return kinds[covariance]


def _annealed_candidates(max_evaluations: int, size: int) -> int:
    """K for E evaluations of a function of N weights: an even number, at most E."""
    num_steps = 10 * size * (max_evaluations / (1000 * size)) ** 0.3
    wanted = max(max_evaluations / num_steps, 4 + 3 * math.log(size))
    return min(2 * round(wanted / 2), max_evaluations)

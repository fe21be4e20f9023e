"""Black-box search in one call."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments, amplitudes, weight_space
from qiaso_jax._arguments import PyTree
from qiaso_jax._transformation import Algorithm, algorithm
from qiaso_jax._trees import is_inexact
from qiaso_jax.collapse import READOUTS
from qiaso_jax.evaluation import checked_losses
from qiaso_jax.search.bounds import reflection
from qiaso_jax.superposition import Superposition
from qiaso_jax.weight_space import QIASOInfo, QIASOState


class MinimizeResult(NamedTuple):
    """What ``minimize`` returns, with the field names of ``scipy.optimize``.

    Attributes:
      x: the best candidate that was evaluated, a pytree like ``x0``.
      fun: its value.
      nfev: number of evaluations of the function.
      nit: number of steps.
      success: whether the budget was spent and a finite value found.
      message: why the search ended.
      history: a ``QIASOInfo`` whose fields have a leading axis ``nit``.
    """

    x: PyTree
    fun: float
    nfev: int
    nit: int
    success: bool
    message: str
    history: QIASOInfo


def minimize(
    fun: Callable[[Any], Any],
    x0: PyTree,
    *,
    sigma: float,
    max_evaluations: int,
    bounds: tuple[Any, Any] | None = None,
    num_candidates: int | None = None,
    key: Any = 0,
    callback: Callable[[MinimizeResult], Any] | None = None,
) -> MinimizeResult:
    r"""Minimises a function of any pytree from its values alone.

    Collapses to the expectation (Eq 2) at every step, on centred ranks with η = 5,
    while the spread of the superposition is annealed,

    .. math::
        σ_{t+1} = σ_t e^{−c/N}, \qquad c = 0.5, \text{ and } 1.4
        \text{ in the last quarter of the steps},

    where N is the number of weights. Unless given, K is such that the E evaluations
    make :math:`10 N (E / 1000 N)^{0.3}` steps, and at least 4 + 3 log N: more
    candidates rather than more steps find the global minimum of a rugged function, and
    the last quarter refines it. ``benchmarks/rastrigin.py`` measures this. The
    candidates spread alike in all directions, so a long curved valley, such as
    Rosenbrock's, is better searched with CMA-ES.

    Args:
      fun: ``fun(x) -> scalar``, traceable by JAX; ``ask`` and ``tell`` are for others.
      x0: the start, a pytree with at least one floating or complex leaf.
      sigma: initial spread, in units of x: about the distance to be searched. A third
        of the width of the bounds is a good choice.
      max_evaluations: E; as many whole steps of K evaluations as fit in are made.
      bounds: ``(lower, upper)``, each a number or a pytree like ``x0``, ±inf where
        there is none. Candidates beyond a bound are reflected into the box.
      num_candidates: K, or ``None`` for the rule above.
      key: seed or PRNG key.
      callback: called after every step with the ``MinimizeResult`` so far, whose
        ``history`` is of that step alone; the search ends if it returns something true
        or raises ``StopIteration``.

    Returns:
      A ``MinimizeResult``. With the same arguments it is the same, bit by bit. Every
      call compiles anew, as ``fun`` may close over what has changed.

    Raises:
      TypeError: if an argument has the wrong type, or ``fun`` cannot be traced or
        returns no real floating number.
      ValueError: if an argument is out of its range, bounds cross, or ``x0`` is outside
        of them.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> def rastrigin(x):
      ...     return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))
      >>> result = qiaso_jax.minimize(
      ...     rastrigin, jnp.full(5, 3.0), sigma=2.5, max_evaluations=30_000)
      >>> print(f"{result.fun:.2f}", result.x.round(2) + 0.0)
      0.00 [0. 0. 0. 0. 0.]
    """
    x0 = jax.tree.map(jnp.asarray, x0)
    size = sum(leaf.size for leaf in jax.tree.leaves(x0) if is_inexact(leaf))
    if not size:
        raise TypeError(
            "x0 must have at least one floating or complex number to move, got leaves "
            f"of dtypes {[str(leaf.dtype) for leaf in jax.tree.leaves(x0)]}."
        )
    _arguments.scalar("sigma", sigma, above=0)
    max_evaluations = _arguments.positive_int("max_evaluations", max_evaluations)
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
        _settings(num_candidates, sigma, num_steps, size),
        optimizer=None,
        key=key,
    )
    step = partial(_step, search, fun, reflection(bounds, x0))

    @partial(jax.jit, static_argnums=1)
    def steps(carry, length):
        return jax.lax.scan(step, carry, length=length)

    state = search.init(x0)
    infinity = jnp.asarray(jnp.inf, state.log_amplitudes.dtype)
    carry = _Carry(x0, state, x0, infinity)
    length = num_steps if callback is None else 1
    done, reports, stopped = 0, [], False
    while done < num_steps and not stopped:
        carry, report = _traceable(steps, carry, length)
        done += length
        reports.append(report)
        if callback is not None:
            so_far = _result(
                carry, num_candidates, done, report, False, "The search is running."
            )
            stopped = _wants_to_stop(callback, so_far)
    history = jax.tree.map(lambda *parts: jnp.concatenate(parts), *reports)
    message = "The budget of evaluations is spent."
    if stopped:
        message = "The callback ended the search."
    return _result(carry, num_candidates, done, history, not stopped, message)


class _Carry(NamedTuple):
    """The centre, the state of the algorithm, and the best candidate so far."""

    x: PyTree
    state: QIASOState
    best_x: PyTree
    best_value: jax.Array


def _settings(
    num_candidates: int, sigma: float, num_steps: int, size: int
) -> weight_space.Settings:
    """Ranks, and a spread that anneals over the budget."""
    return weight_space.Settings(
        Superposition(num_candidates, antithetic=True, keeps_centre=False),
        sigma=lambda step: _annealed(sigma, step, num_steps, size),
        eta=5.0,
        kl_strength=1.0,
        scale=amplitudes.LOSS_SCALINGS["rank"],
        readout=READOUTS["expectation"],
        collapse_every=1,
        tunnelling=None,
        batch_size=None,
    )


def _step(
    search: Algorithm,
    fun: Callable[[Any], Any],
    reflect: Callable[[PyTree], PyTree],
    carry: _Carry,
    _: None,
) -> tuple[_Carry, QIASOInfo]:
    """One step of the algorithm, within the bounds; keeps the best candidate."""
    x, state, best_x, best_value = carry
    asked = search.ask(state, x)
    candidates = jax.vmap(reflect)(asked.candidates.arrays(x))
    values = jax.vmap(lambda x: checked_losses(fun(x), (), "fun"))(candidates)
    displacement, state = search.move(search.tell(state, x, asked, values), x)
    values = values.astype(best_value.dtype)
    values = jnp.where(jnp.isfinite(values), values, jnp.inf)
    winner = jnp.argmin(values)
    best_x = optax.tree.where(
        values[winner] < best_value,
        jax.tree.map(lambda c: c[winner], candidates),
        best_x,
    )
    best_value = jnp.minimum(best_value, values[winner])
    x = reflect(optax.apply_updates(x, displacement))
    return _Carry(x, state, best_x, best_value), state.info


def _traceable(steps: Callable[..., Any], carry: _Carry, length: int) -> Any:
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


def _result(
    carry: _Carry,
    num_candidates: int,
    nit: int,
    history: QIASOInfo,
    success: bool,
    message: str,
) -> MinimizeResult:
    found = bool(jnp.isfinite(carry.best_value))
    return MinimizeResult(
        x=carry.best_x,
        fun=float(carry.best_value),
        nfev=num_candidates * nit,
        nit=nit,
        success=success and found,
        message=message if found else "No value was finite.",
        history=history,
    )


def _wants_to_stop(callback: Callable[[MinimizeResult], Any], so_far: Any) -> bool:
    try:
        return bool(callback(so_far))
    except StopIteration:
        return True


def _annealed(sigma: float, step: jax.Array, num_steps: int, size: int) -> jax.Array:
    """σ_t: slowly at first, to find the basin; faster in the last quarter."""
    refining = jnp.maximum(step - 0.75 * num_steps, 0)
    exponent = -(0.5 * (step - refining) + 1.4 * refining) / size
    # Not below the resolution of single precision at the scale of sigma.
    return sigma * jnp.exp(jnp.maximum(exponent, math.log(1e-8)))


def _default_candidates(max_evaluations: int, size: int) -> int:
    """K for E evaluations of a function of N weights: an even number, at most E."""
    num_steps = 10 * size * (max_evaluations / (1000 * size)) ** 0.3
    wanted = max(max_evaluations / num_steps, 4 + 3 * math.log(size))
    return min(2 * round(wanted / 2), max_evaluations)

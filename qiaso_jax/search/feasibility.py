"""Constraints of a search: candidates that meet them are before all others.

Of two feasible candidates the one of less value is better, of two infeasible ones that
of less violation, and feasible ones are better than infeasible ones (Deb, *An efficient
constraint handling method for genetic algorithms*, 2000). What ``fun`` is where a
constraint is violated is not asked. Without a constraint, all that has a value is
feasible.
"""

from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax.search.runs import Run


def violation(found: Any, xp: Any = jnp) -> Any:
    """Σ max(g, 0) of what ``constraint`` has returned, a scalar.

    Args:
      found: g, a number or an array of any shape.
      xp: ``jax.numpy`` or ``numpy``.

    Raises:
      TypeError: if these are no real numbers.
    """
    is_array = hasattr(found, "dtype") or isinstance(found, int | float | list | tuple)
    g = xp.asarray(found) if is_array else None
    is_real = g is not None and (
        jnp.issubdtype(g.dtype, jnp.floating) or jnp.issubdtype(g.dtype, jnp.integer)
    )
    if not is_real:
        got = f"a {type(found).__name__}" if g is None else f"dtype {g.dtype}"
        raise TypeError(
            "constraint must return real numbers, at most 0 where it is met, as a "
            f"scalar or an array; got {got}."
        )
    return xp.sum(xp.maximum(g, 0))


def told(
    values: jax.Array, violations: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Values that are finite for feasible candidates alone, and violations.

    The latter are 0 for these, and infinite where a candidate is missing: where it is
    feasible without a value, or the violation is not known.

    Args:
      values: shape ``[K]``.
      violations: shape ``[K]``; ``None`` without a constraint.
    """
    if violations is None:
        violations = jnp.zeros_like(values)
    feasible = (violations == 0) & jnp.isfinite(values)
    infeasible = (violations > 0) & jnp.isfinite(violations)
    violations = jnp.where(infeasible, violations, jnp.where(feasible, 0, jnp.inf))
    return jnp.where(feasible, values, jnp.inf), violations


def order(values: jax.Array, violations: jax.Array) -> jax.Array:
    """Numbers in the order of candidates as ``told``, infinite for missing ones."""

    def places(x):
        return jnp.searchsorted(jnp.sort(x), x).astype(x.dtype)

    return jnp.where(
        jnp.isfinite(violations), places(values) + places(violations), jnp.inf
    )


def best(values: jax.Array, violations: jax.Array) -> jax.Array:
    """Which candidate is the best, as ``told``."""
    any_feasible = jnp.any(jnp.isfinite(values))
    return jnp.where(any_feasible, jnp.argmin(values), jnp.argmin(violations))


def merits(run: Run, values: jax.Array, violations: jax.Array) -> tuple[Run, jax.Array]:
    """What candidates are worth to their run, in one number each.

    That is the violation until a candidate of the run is feasible. From then on it is
    the value, and for infeasible ones the violation above the worst of the feasible
    ones, in the last step that had any; with the first of them the run begins anew to
    count what it has gained.

    Args:
      run: before the step.
      values: as ``told``.
      violations: likewise.
    """
    feasible = jnp.isfinite(values)
    is_first = jnp.any(feasible) & ~run.is_feasible
    worst = jnp.max(values, where=feasible, initial=-jnp.inf)
    run = run._replace(
        worst=jnp.where(jnp.any(feasible), worst, run.worst),
        best=jnp.where(is_first, jnp.inf, run.best),
        scale=jnp.where(is_first, 0, run.scale),
        recent=jnp.where(is_first, jnp.inf, run.recent),
        flat=jnp.where(is_first, 0, run.flat),
    )
    from_worst = jnp.where(run.is_feasible, run.worst, 0) + violations
    return run, jnp.where(feasible, values, from_worst)

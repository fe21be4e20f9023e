"""A way to search, and how it is run: as one program, or step by step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from qiaso_jax.search.result import MinimizeResult, MinimizeStatus


class Method(NamedTuple):
    """How ``minimize`` searches.

    Attributes:
      before: what goes from step to step, as it is before the first one.
      step: ``(carry, args) -> carry``, evaluating the function at further ``args``.
      status: ``carry -> MinimizeStatus``, int32.
      made: ``carry ->`` number of steps, int32.
      info: ``carry -> report`` of the last step.
      result: ``(carry, history) -> MinimizeResult``.
      num_steps: at most.
    """

    before: Any
    step: Callable[[Any, tuple[Any, ...]], Any]
    status: Callable[[Any], jax.Array]
    made: Callable[[Any], jax.Array]
    info: Callable[[Any], Any]
    result: Callable[[Any, Any], MinimizeResult]
    num_steps: int


Callback = Callable[[MinimizeResult], Any]


def run(
    method: Method, args: tuple[Any, ...], callback: Callback | None
) -> MinimizeResult:
    """The result of a search, which ``callback`` may watch and end.

    Raises:
      TypeError: if the function cannot be traced.
    """

    @partial(jax.jit, static_argnums=2)
    def steps(carry, args, length):
        return jax.lax.scan(
            lambda carry, _: _step_unless_ended(method, carry, args),
            carry,
            length=length,
        )

    if callback is not None:
        return _watched(method, steps, args, callback)
    carry, history = _traceable(steps, method.before, args, method.num_steps)
    result = method.result(carry, history)
    made = method.made(carry) - method.made(method.before)
    if not isinstance(made, Tracer):
        history = jax.tree.map(lambda reports: reports[: int(made)], history)
    return result._replace(history=history)


def _step_unless_ended(method: Method, carry: Any, args: Any) -> tuple[Any, Any]:
    """One step; nothing is evaluated after the end."""
    carry = jax.lax.cond(
        method.status(carry) == MinimizeStatus.RUNNING,
        lambda carry: method.step(carry, args),
        lambda carry: carry,
        carry,
    )
    return carry, method.info(carry)


def _watched(
    method: Method, steps: Callable[..., Any], args: Any, callback: Callback
) -> MinimizeResult:
    """Step by step, until the search ends or ``callback`` ends it."""
    carry, reports = method.before, []
    status = method.status(carry)
    while status == MinimizeStatus.RUNNING:
        carry, report = _traceable(steps, carry, args, 1)
        reports.append(report)
        status = method.status(carry)
        asked_to = wants_to_stop(callback, method.result(carry, report))
        if asked_to and status == MinimizeStatus.RUNNING:
            status = jnp.full_like(status, MinimizeStatus.STOPPED_BY_CALLBACK)
    none = jax.tree.map(lambda x: x[None][:0], method.info(carry))
    history = jax.tree.map(lambda *parts: jnp.concatenate(parts), none, *reports)
    return method.result(carry, history)._replace(status=status)


def wants_to_stop(callback: Callback, so_far: MinimizeResult) -> bool:
    """Whether the callback returns something true, or raises ``StopIteration``."""
    try:
        return bool(callback(so_far))
    except StopIteration:
        return True


def _traceable(steps: Callable[..., Any], *operands: Any) -> Any:
    try:
        return steps(*operands)
    except (
        jax.errors.TracerArrayConversionError,
        jax.errors.ConcretizationTypeError,
    ) as error:
        raise TypeError(
            "fun must be traceable by JAX, and needed a concrete value; for functions "
            "outside of JAX give workers=map, or use qiaso_jax.ask and qiaso_jax.tell."
        ) from error

"""A way to search, and how it is run: as one program, or step by step."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from qiaso_jax.search.result import MinimizeResult, MinimizeStatus


class Method(NamedTuple):
    """How ``minimize`` searches.

    Attributes:
      before: what goes from step to step, as it is before the first one.
      step: ``(carry, operands) -> carry``.
      operands: what it takes beside.
      is_kept: whether what is compiled of it serves equal steps, too.
      status: ``carry -> MinimizeStatus``, int32.
      made: ``carry ->`` number of steps, int32.
      info: ``carry -> report`` of the last step.
      result: ``(carry, history) -> MinimizeResult``.
      num_steps: at most.
    """

    before: Any
    step: Callable[[Any, Any], Any]
    operands: Any
    is_kept: bool
    status: Callable[[Any], jax.Array]
    made: Callable[[Any], jax.Array]
    info: Callable[[Any], Any]
    result: Callable[[Any, Any], MinimizeResult]
    num_steps: int


Callback = Callable[[MinimizeResult], Any]


KEPT = 16
"""So many compiled searches are kept, those that were last used."""


def run(method: Method, callback: Callback | None) -> MinimizeResult:
    """The result of a search, which ``callback`` may watch and end.

    Raises:
      TypeError: if the function cannot be traced.
    """
    compiled = steps_of if method.is_kept else steps_of.__wrapped__
    steps = compiled(method.step, method.status, method.info)
    if callback is not None:
        return _watched(method, steps, callback)
    carry, history = traceable(steps, method.before, method.operands, method.num_steps)
    result = method.result(carry, history)
    made = method.made(carry) - method.made(method.before)
    if not isinstance(made, Tracer):
        history = jax.tree.map(partial(_first, int(made)), history)
    return result._replace(history=history)


def _first(number: int, reports: jax.Array) -> jax.Array:
    """On the host, as JAX would compile a slice of every length."""
    return jax.device_put(np.asarray(reports)[:number], reports.sharding)


@lru_cache(KEPT)
def steps_of(
    step: Callable[[Any, Any], Any],
    status: Callable[[Any], jax.Array],
    info: Callable[[Any], Any],
) -> Callable[..., Any]:
    """``(carry, operands, length)`` -> the carry after so many steps, their reports."""

    @partial(jax.jit, static_argnums=2)
    def steps(carry, operands, length):
        def step_unless_ended(carry, _):
            # Nothing is evaluated after the end.
            carry = jax.lax.cond(
                status(carry) == MinimizeStatus.RUNNING,
                lambda carry: step(carry, operands),
                lambda carry: carry,
                carry,
            )
            return carry, info(carry)

        return jax.lax.scan(step_unless_ended, carry, length=length)

    return steps


def _watched(
    method: Method, steps: Callable[..., Any], callback: Callback
) -> MinimizeResult:
    """Step by step, until the search ends or ``callback`` ends it."""
    carry, reports = method.before, []
    status = method.status(carry)
    while status == MinimizeStatus.RUNNING:
        carry, report = traceable(steps, carry, method.operands, 1)
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


def traceable(steps: Callable[..., Any], *operands: Any) -> Any:
    """What ``steps`` return, or our error of a function that cannot be traced."""
    try:
        return steps(*operands)
    except (
        jax.errors.TracerArrayConversionError,
        jax.errors.ConcretizationTypeError,
    ) as error:
        raise TypeError(
            "fun must be traceable by JAX, and so must constraint; one has needed a "
            "concrete value. For functions outside of JAX give workers=map, or use "
            "qiaso_jax.ask and qiaso_jax.tell."
        ) from error

"""What a search returns, and why it ended."""

import enum
from typing import Any, NamedTuple

import jax
import numpy as np

from qiaso_jax._arguments import PyTree


class MinimizeStatus(enum.IntEnum):
    """Why ``minimize`` ended; above 0 is success, as in ``scipy.optimize``.

    Attributes:
      message: the same in a sentence.
      CONVERGED: 2. Values had differed, and no longer do where σ has shrunk to.
      TARGET_REACHED: 1. The best value is at most ``target``.
      BUDGET_SPENT: 0. No further step fits into ``max_evaluations``.
      FLAT: −1. The budget is spent, and all finite values were equal up to rounding.
      NO_FINITE_VALUE: −2. The budget is spent, and all values were NaN or infinite.
      STOPPED_BY_CALLBACK: −3. The callback asked for it.
      RUNNING: −4. What the callback sees until the search ends.
      RESTARTS_SPENT: −5. A run has ended without any gain for long, and ``restarts``
        allows no other.
      INFEASIBLE: −6. The budget is spent, and no point with a finite value met the
        constraint.
      TIME_SPENT: −7. ``max_seconds`` have passed.
      WORKERS_LOST: −8. The executor is broken, or no worker answers any more; with
        ``resume`` others may go on.

    Examples:
      >>> from qiaso_jax import MinimizeStatus
      >>> MinimizeStatus(1).name, MinimizeStatus(1).message
      ('TARGET_REACHED', 'The target is reached.')
    """

    message: str

    def __new__(cls, value: int, message: str) -> "MinimizeStatus":
        """A member that carries its sentence."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    CONVERGED = 2, "The search has converged: values differ no more."
    TARGET_REACHED = 1, "The target is reached."
    BUDGET_SPENT = 0, "The budget of evaluations is spent."
    FLAT = -1, "The function is flat: all finite values equal up to rounding."
    NO_FINITE_VALUE = -2, "No value was finite."
    STOPPED_BY_CALLBACK = -3, "The callback ended the search."
    RUNNING = -4, "The search is running."
    RESTARTS_SPENT = -5, "No restart is left."
    INFEASIBLE = -6, "No point with a finite value meets the constraint."
    TIME_SPENT = -7, "The time is spent."
    WORKERS_LOST = -8, "The workers are lost."


class MinimizeResult(NamedTuple):
    """What ``minimize`` returns, with the field names of ``scipy.optimize``.

    All fields are arrays, so that it passes through ``jax.jit``, and through
    ``jax.vmap``, where all get a leading axis.

    Attributes:
      x: the best point that was evaluated, ``x0`` included; a pytree like ``x0``.
      fun: its value; ``inf`` if none was finite, or no point met the constraint.
      violation: the sum of its violations of the constraint, 0 if there is none;
        ``inf`` if none was known.
      mean: the centre of the superposition, where the candidates around it had the
        least values on average, within the bounds, a pytree like ``x0``; with
        ``covariance=None`` at the end. Its value was not measured. Where ``fun`` is
        noisy, ``fun`` of the result is that of the luckiest sample, and ``mean``, which
        averages over many, is the better point, the more so with ``noisy=True``. It may
        violate the constraint.
      nfev: number of evaluations of the function, int32.
      nit: number of steps, int32.
      status: a ``MinimizeStatus`` as an int32.
      history: a ``SearchInfo``, or a ``QIASOInfo`` with ``covariance=None``, whose
        fields have a leading axis ``nit``. Under ``jax.jit`` and ``jax.vmap``, where
        ``nit`` is not known beforehand, it has that of all steps of the budget, and
        repeats the last report beyond ``nit``.
      state: the state of the algorithm at the end.
    """

    x: PyTree
    fun: jax.Array
    violation: jax.Array
    mean: PyTree
    nfev: jax.Array
    nit: jax.Array
    status: jax.Array
    history: Any
    state: Any

    @property
    def success(self) -> jax.Array:
        """Whether the target was reached, or the search converged within its budget."""
        return self.status > 0

    @property
    def message(self) -> Any:
        """Why the search ended; of many searches, an array of strings; not traced."""
        status = np.asarray(self.status)
        messages = [MinimizeStatus(s).message for s in status.ravel().tolist()]
        return np.reshape(messages, status.shape) if status.ndim else messages[0]

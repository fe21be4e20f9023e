"""Evaluations by an executor whose workers answer in any order, or not at all."""

import dataclasses
import math
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from qiaso_jax import _arguments
from qiaso_jax._arguments import PyTree
from qiaso_jax.search.on_host import Caught, Failed, Infeasible, in_precision_of_caller

ATTEMPTS = 2
"""So often an evaluation begins whose worker fails, before its value is missing."""


class Executor(Protocol):
    """Of ``concurrent.futures``, or like one."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """A future of ``fn(*args)``."""


class Asynchronous(NamedTuple):
    r"""An executor for ``minimize``, whose slowest workers are not waited for.

    A generation closes when K candidates have come, whichever they are, of the K/share
    that were asked for. Those that have begun and are late come to a later generation,
    as points that are foreign to its superposition 𝒩(m, σ² C): their displacement is
    clipped in the metric of C (Hansen, *Injecting External Solutions Into CMA-ES*,
    2011),

    .. math::
        z = C^{-1/2} (u - m) / σ, \qquad z \leftarrow z\,
        \min\left(1, \frac{\sqrt N + 2N/(N+2)}{\lVert z \rVert}\right) .

    Of those that were drawn before a restart only the best value is kept.

    No more evaluations are submitted than there are workers, so that the seconds of one
    are its own. One that takes longer than ``timeout`` has no value, but counts. It
    keeps its worker, as no executor can end what runs; its value, if it ever comes, is
    kept where it is the best. An evaluation whose worker has failed is submitted once
    more; then it has no value, and a warning says so. Where the executor takes no more,
    or all evaluations were given up and none ends in another ``timeout``, the search
    ends with ``MinimizeStatus.WORKERS_LOST`` and a warning. What has come by then is in
    the result, with which ``minimize(resume=)`` goes on.

    At the end of a search those under way are waited for, unless its target, its
    callback or ``max_seconds`` has ended it. ``nfev`` of its result counts all that
    have begun.

    Attributes:
      executor: one with ``submit(function, *arguments)``, which returns a future with
        ``result``, ``cancel`` and ``add_done_callback``: those of
        ``concurrent.futures`` and ``mpi4py.futures``, a ``dask.distributed.Client``.
      num_workers: how many evaluations run at a time; ``None`` to ask the executor at
        the start.
      timeout: seconds of one evaluation; ``None`` for any number.
      share: of the candidates asked for, with which a generation closes, in (0, 1]. At
        1 all are waited for, and the search is that of ``workers=map``, whatever the
        order in which they come. The smaller it is, the fewer workers wait, and the
        older are the points; ``benchmarks/asynchronous`` measures it.

    Examples:
      >>> from concurrent.futures import ThreadPoolExecutor
      >>> import numpy as np, qiaso_jax
      >>> def simulator(x):
      ...     return float(np.abs(x - 3.0).sum())
      >>> with ThreadPoolExecutor(2) as pool:
      ...     result = qiaso_jax.minimize(
      ...         simulator, np.zeros(2), sigma=1.0, max_evaluations=1_000,
      ...         workers=qiaso_jax.Asynchronous(pool, timeout=60.0))
      >>> print(result.x.round(2))
      [3. 3.]
    """

    executor: Executor
    num_workers: int | None = None
    timeout: float | None = None
    share: float = 0.7


class Remote(NamedTuple):
    """What an ``Asynchronous`` says, checked.

    Attributes:
      submit: of the executor.
      number: of workers.
      timeout: seconds, which may be infinite.
      share: with which a generation closes.
    """

    submit: Callable[..., Any]
    number: int
    timeout: float
    share: float


def remote_of(workers: Any) -> Remote | None:
    """The argument ``workers`` if it has an executor, or is one; else ``None``.

    Raises:
      TypeError: if it does not say how many workers it has, or is of a wrong type.
      ValueError: if a number is out of its range.
    """
    if not isinstance(workers, Asynchronous):
        if not hasattr(workers, "submit"):
            return None
        workers = Asynchronous(workers)
    executor, number, timeout, share = workers
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "executor must have a submit that returns futures, as those of "
            f"concurrent.futures have; got {executor!r}."
        )
    if timeout is not None:
        _arguments.scalar("timeout", timeout, above=0)
    _arguments.scalar("share", share, above=0, at_most=1)
    number = _said_by(executor) if number is None else number
    return Remote(
        in_precision_of_caller(executor.submit),
        _arguments.positive_int("num_workers", number),
        math.inf if timeout is None else float(timeout),
        float(share),
    )


def _said_by(executor: Any) -> int:
    """How many workers it has."""
    if hasattr(executor, "nthreads"):  # dask.distributed
        number = sum(executor.nthreads().values())
    else:  # mpi4py.futures, and concurrent.futures, which does not say it in public
        number = getattr(executor, "num_workers", None)
        number = number or getattr(executor, "_max_workers", None)
    if not number:
        raise TypeError(
            "workers must say how many they are: give qiaso_jax.Asynchronous(executor, "
            f"num_workers=...); got {executor!r}."
        )
    return number


class Candidate(NamedTuple):
    """A point to be evaluated.

    Attributes:
      number: in the order in which they were drawn.
      step: in which it was drawn.
      run: that it is of.
      arm: of that run.
      z: standard normal, shape ``[N]``.
      u: the point, shape ``[N]``.
      x: the point as the function takes it.
    """

    number: int
    step: int
    run: int
    arm: int
    z: np.ndarray
    u: np.ndarray
    x: PyTree


class Answer(NamedTuple):
    """How an evaluation has ended.

    Attributes:
      candidate: that was evaluated.
      value: its value, or why it has none.
      is_late: whether it had been given up.
    """

    candidate: Candidate
    value: float | Infeasible | Failed
    is_late: bool = False


@dataclasses.dataclass
class Evaluation:
    """One that has begun.

    Attributes:
      candidate: that is evaluated.
      attempt: which it is, from 1.
      future: of the executor.
      deadline: when it is given up, in seconds of a clock.
      is_given_up: whether it has been.
    """

    candidate: Candidate
    attempt: int
    future: Any
    deadline: float
    is_given_up: bool = False


class Evaluations:
    """Those that wait for a worker, and those that have one.

    Attributes:
      number: how many have begun.
      lost: why no other can begin; ``None`` as long as one can.
    """

    def __init__(self, fun: Caught, workers: Remote):
        """None yet, of a function by some workers."""
        self.number = 0
        self.lost: str | None = None
        self._fun = fun
        self._workers = workers
        self._waiting: deque[tuple[Candidate, int]] = deque()
        self._begun: dict[int, Evaluation] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._submitted = 0

    def ask(self, candidates: Iterable[Candidate]) -> None:
        """Has candidates evaluated, in their order."""
        self._waiting.extend((candidate, 1) for candidate in candidates)

    def num_asked(self, run: int) -> int:
        """How many candidates of a run have no answer yet."""
        asked = [candidate for candidate, _ in self._waiting]
        asked += [evaluation.candidate for evaluation in self._under_way()]
        return sum(candidate.run == run for candidate in asked)

    def forget(self) -> None:
        """Those that have not begun are not wanted any more."""
        again = [each for each in self._waiting if each[1] > 1]
        self._waiting = deque(again)

    def cancel(self) -> None:
        """Nor are those that have."""
        self._waiting.clear()
        for evaluation in self._begun.values():
            evaluation.future.cancel()

    def answer(self) -> Answer | None:
        """The next one, once it is there; ``None`` if none will come."""
        while True:
            self._submit()
            under_way = self._under_way()
            if not (under_way or self._waiting):
                return None
            first = min(under_way, key=lambda each: each.deadline, default=None)
            seconds = self._workers.timeout
            if first is not None:
                seconds = max(first.deadline - time.monotonic(), 0)
            try:
                number = self._ended.get(timeout=min(seconds, threading.TIMEOUT_MAX))
            except queue.Empty:
                if first is None:
                    self._lose("all were given up, and none has answered since.")
                    continue
                first.is_given_up = True
                reason = f"TimeoutError: no value in {self._workers.timeout:g} s"
                return Answer(first.candidate, Failed(reason))
            answer = self._answer_of(self._begun.pop(number))
            if answer is not None:
                return answer

    def _under_way(self) -> list[Evaluation]:
        return [each for each in self._begun.values() if not each.is_given_up]

    def _submit(self) -> None:
        """As many as there are workers that are free."""
        if self.lost is not None:
            self._waiting.clear()
        while self._waiting and len(self._begun) < self._workers.number:
            candidate, attempt = self._waiting[0]
            number = self._submitted
            try:
                future = self._workers.submit(_value, self._fun, candidate.x, number)
            except Exception as error:
                if not self.number:
                    raise
                self._lose(_reason(error))
                return
            self._waiting.popleft()
            self._submitted += 1
            self.number += attempt == 1
            deadline = time.monotonic() + self._workers.timeout
            self._begun[number] = Evaluation(candidate, attempt, future, deadline)
            # In any thread, or at once.
            future.add_done_callback(lambda _, number=number: self._ended.put(number))

    def _lose(self, reason: str) -> None:
        """From now on no evaluation begins."""
        self.lost = reason
        self._waiting.clear()
        warnings.warn(f"the workers are lost: {reason}", stacklevel=2)

    def _answer_of(self, evaluation: Evaluation) -> Answer | None:
        """``None`` where there is no other than has been given, or not yet."""
        try:
            value = evaluation.future.result()
        except Exception as error:
            # Of the executor: those of the function are values.
            if evaluation.is_given_up or self.lost is not None:
                return None
            if evaluation.attempt < ATTEMPTS:
                again = (evaluation.candidate, evaluation.attempt + 1)
                self._waiting.appendleft(again)
                return None
            value = Failed(_reason(error))
            warnings.warn(
                f"an evaluation has no value, as its worker failed: {value.reason}",
                stacklevel=2,
            )
        return Answer(evaluation.candidate, value, evaluation.is_given_up)


def _value(fun: Caught, x: PyTree, number: int) -> float | Infeasible | Failed:
    """The number makes all calls differ: those that do not are one to dask."""
    del number
    return fun(x)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

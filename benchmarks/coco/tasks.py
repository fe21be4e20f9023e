"""What is searched, and how far a method gets."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from benchmarks.coco.methods import METHODS
from benchmarks.coco.problems import one_thread, opened


class Task(NamedTuple):
    """A method on all instances of a function.

    Attributes:
      suite: a key of ``SUITES``.
      method: a key of ``METHODS``.
      dimension: of the function.
      function: its number.
      instances: shifted and rotated in different ways.
      reports: evaluations after which the best value is noted; the last one ends it.
    """

    suite: str
    method: str
    dimension: int
    function: int
    instances: Sequence[int]
    reports: Sequence[int]


def differences(task: Task) -> list[list[float]]:
    """Best value less the optimum: for each instance, at each of the reports."""
    problems = opened(
        task.suite, task.function, task.dimension, task.instances, task.reports
    )
    METHODS[task.method](problems)
    return [[float(f"{x:.4g}") for x in problem.differences] for problem in problems]


def measured(tasks: Iterable[Task], processes: int) -> Iterator[list[list[float]]]:
    """``differences`` of all, each in one of some processes with a thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=one_thread) as pool:
        yield from pool.map(differences, tasks)

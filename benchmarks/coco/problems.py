"""The functions, and how far a method gets on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import cocoex
import numpy as np

from benchmarks.coco.methods import METHODS

TARGETS = np.logspace(2, -8, 51)
"""Differences from the optimum, as in COCO's own plots."""

GROUPS = {
    "separable f1-f5": range(1, 6),
    "moderate f6-f9": range(6, 10),
    "ill-conditioned f10-f14": range(10, 15),
    "multimodal f15-f19": range(15, 20),
    "weak structure f20-f24": range(20, 25),
    "all": range(1, 25),
}


class Task(NamedTuple):
    """A method on all instances of a function.

    Attributes:
      method: a key of ``METHODS``.
      dimension: of the function.
      function: from 1 to 24.
      instances: shifted and rotated in different ways.
      budget: evaluations.
      reports: evaluations after which the best value is noted.
    """

    method: str
    dimension: int
    function: int
    instances: Sequence[int]
    budget: int
    reports: Sequence[int]


class BudgetSpent(Exception):
    """No further evaluation is allowed."""


class Counted:
    """A function that notes its best value, and ends the search with its budget."""

    def __init__(self, problem: cocoex.BareProblem, reports: Sequence[int]) -> None:
        self.problem = problem
        self.reports = reports
        self.number = 0
        self.best = np.inf
        self.noted: list[float] = []

    def __call__(self, x: np.ndarray) -> float:
        """The value at ``x``."""
        if self.number == self.reports[-1]:
            raise BudgetSpent
        value = float(self.problem(x))
        self.number += 1
        self.best = min(self.best, value)
        if self.number == self.reports[len(self.noted)]:
            self.noted.append(self.best)
        return value


def one_thread() -> None:
    """Has XLA compute this process's programs in one thread; before its first."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"


def differences(task: Task) -> list[list[float]]:
    """Best value less the optimum: for each instance, at each of the reports."""
    found = []
    for instance in task.instances:
        problem = cocoex.BareProblem("bbob", task.function, task.dimension, instance)
        counted = Counted(problem, task.reports)
        with contextlib.suppress(BudgetSpent):
            METHODS[task.method](
                counted, task.dimension, task.budget, 1000 * task.function + instance
            )
        noted = counted.noted + [counted.best] * len(task.reports)
        optimum = problem.best_value()
        found.append([x - optimum for x in noted[: len(task.reports)]])
    return found


def share(difference: float) -> float:
    """Of the targets that are reached."""
    return float(np.mean(difference <= TARGETS))

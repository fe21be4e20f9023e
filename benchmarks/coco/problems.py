"""The functions of COCO's suites, and how far a method gets on them."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cocoex
import numpy as np

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

NOISELESS = {
    noisy: noiseless
    for first, noiseless in (
        (101, 1),
        (104, 8),
        (107, 1),
        (110, 8),
        (113, 7),
        (119, 14),
        (122, 17),
        (128, 21),
    )
    for noisy in range(first, first + 3)
}
"""Functions of ``bbob-noisy``, and those of ``bbob`` that they are without noise.

Beyond [−5, 5] f7, f17 and f21 have a penalty that is noise to COCO. f116 to f118 and
f125 to f127 are none of ``bbob``: no one tells their true values.
"""


class Suite(NamedTuple):
    """A suite of COCO's.

    Attributes:
      dimensions: that there are.
      groups: functions by what they are like; the last one is of all.
    """

    dimensions: Sequence[int]
    groups: Mapping[str, Sequence[int]]


SUITES = {
    "bbob": Suite((2, 3, 5, 10, 20, 40), GROUPS),
    "bbob-noisy": Suite(
        (2, 3, 5, 10, 20, 40),
        {
            "moderate noise f101-f106": range(101, 107),
            "severe noise f107-f121": [*range(107, 116), *range(119, 122)],
            "multimodal f122-f130": [*range(122, 125), *range(128, 131)],
            "all": list(NOISELESS),
        },
    ),
    "bbob-largescale": Suite((20, 40, 80, 160, 320, 640), GROUPS),
    "bbob-mixint": Suite((5, 10, 20, 40, 80, 160), GROUPS),
}


class Domain(NamedTuple):
    """Where the optimum is looked for.

    Attributes:
      lower: bounds of the optimum, shape ``[D]``.
      upper: likewise.
      integers: which coordinates are rounded, shape ``[D]``.
    """

    lower: np.ndarray
    upper: np.ndarray
    integers: np.ndarray

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of what rounds to a point within ``lower`` and ``upper``."""
        return self.lower - self.integers / 2, self.upper + self.integers / 2

    @property
    def start(self) -> np.ndarray:
        """The middle."""
        return (self.lower + self.upper) / 2

    @property
    def sigma(self) -> np.ndarray:
        """A fifth of the width, in each coordinate."""
        low, high = self.edges
        return (high - low) / 5


def box(dimension: int) -> Domain:
    """[−5, 5] in each coordinate, where the optima of most suites are."""
    side = np.full(dimension, 5.0)
    return Domain(-side, side, side < 0)


class Ended(BaseException):
    """No further evaluation is allowed, or of use; it is not for ``fun`` to fail."""


class Counted:
    """A function that notes its best value, and ends the search.

    The search ends with its budget, or when all targets are reached.

    Attributes:
      domain: where its optimum is.
      seed: of the search.
      budget: evaluations.
      differences: best value less the optimum, after each of the reports.
    """

    def __init__(
        self,
        fun: Callable[[np.ndarray], float],
        domain: Domain,
        reports: Sequence[int],
        *,
        true: Callable[[np.ndarray], float],
        optimum: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.domain = domain
        self.seed = seed
        self.budget = reports[-1]
        self._fun = fun
        self._true = true
        self._optimum = optimum
        self._reports = reports
        self._number = 0
        self._best = np.inf
        self._noted: list[float] = []

    def __call__(self, x: np.ndarray) -> float:
        """The value at ``x``."""
        if self._number == self.budget or self._best <= TARGETS[-1]:
            raise Ended
        value = float(self._fun(x))
        true = value if self._true is self._fun else float(self._true(x))
        self._number += 1
        self._best = min(self._best, true - self._optimum)
        if self._number == self._reports[len(self._noted)]:
            self._noted.append(self._best)
        return value

    @property
    def differences(self) -> list[float]:
        """After each of the reports, the last ones as at the end."""
        left = len(self._reports) - len(self._noted)
        return self._noted + [self._best] * left


def opened(
    suite: str,
    function: int,
    dimension: int,
    instances: Sequence[int],
    reports: Sequence[int],
) -> list[Counted]:
    """Instances of a function: shifted and rotated in different ways."""
    found = []
    for instance in instances:
        kept = _kept(suite, dimension, instance)
        problem = kept.get_problem_by_function_dimension_instance(
            function, dimension, instance
        )
        true = problem
        if function in NOISELESS:
            base = NOISELESS[function]
            true = cocoex.BareProblem("bbob", base, dimension, instance)
        are_integers = np.arange(dimension) < problem.number_of_integer_variables
        counted = Counted(
            problem,
            Domain(problem.lower_bounds, problem.upper_bounds, are_integers),
            reports,
            true=true,
            optimum=float(true(best_point(problem))),
            seed=1000 * function + instance,
        )
        found.append(counted)
    return found


@functools.cache
def _kept(suite: str, dimension: int, instance: int) -> cocoex.Suite:
    """A suite, which has to outlive its problems."""
    return cocoex.Suite(suite, f"instances:{instance}", f"dimensions:{dimension}")


def best_point(problem: cocoex.Problem) -> np.ndarray:
    """The optimum, which COCO tells in a file in the working folder only."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        problem._best_parameter("print")
        return np.loadtxt("._bbob_problem_best_parameter.txt")


def one_thread() -> None:
    """Has XLA compute this process's programs in one thread; before its first."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"


def share(difference: float) -> float:
    """Of the targets that are reached."""
    return float(np.mean(difference <= TARGETS))

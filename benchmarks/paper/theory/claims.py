"""What the list of claims is made of, and how a violation is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.paper.section import Word, reproduced

TOLERANCE = 1e-9
"""Of a relative violation in float64: more than rounding leaves, less than an error."""
ERRORS = 5
"""Standard errors by which an estimate may miss what it estimates."""


class Sizes(NamedTuple):
    """How much is tried."""

    widths: tuple[int, ...]
    """Numbers of candidates of the random instances."""
    instances: int
    """Random instances for each of them."""
    minimised: int
    """Of them, those that a numerical minimiser solves."""
    draws: int
    """Jumps for each barrier."""
    runs: int
    """Seeds of a run of steps."""
    steps: int
    """Steps of a run."""
    thorough: bool
    """Whether to try all settings of a run."""


SMOKE = Sizes((2, 5), 100, 5, 20_000, 2, 60, False)
"""Takes seconds."""
SIZES = Sizes((2, 7, 30), 20_000, 100, 1_000_000, 10, 400, True)
"""Takes minutes."""


class Outcome(NamedTuple):
    """How a claim was tested, what came out, and the word for it."""

    test: str
    found: str
    word: Word


class Claim(NamedTuple):
    """Where the paper says what, and the check of what was measured for it."""

    where: str
    statement: str
    check: Callable[[dict[str, Any]], Outcome]


class Claims(list[Claim]):
    """Claims in the order of the paper."""

    def add(self, where: str, statement: str) -> Callable[[Any], Any]:
        """Decorates the check of a claim."""

        def keep(check: Callable[[dict[str, Any]], Outcome]) -> Any:
            self.append(Claim(where, statement, check))
            return check

        return keep


def mapped(function: Callable[..., Any], *arguments: np.ndarray) -> Any:
    """``function`` over the leading axis of all arguments, in float64."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(*arguments))


def excess(left: Any, right: Any) -> Any:
    """Left − right of left ≤ right, relative to 1 + their sizes."""
    return (left - right) / (1 + abs(left) + abs(right))


def difference(left: Any, right: Any) -> Any:
    """The distance of what should be equal, relative to 1 + their sizes."""
    return abs(excess(left, right))


def holds(*violations: float) -> Word:
    """The word for a statement, by the greatest violation of it that was found."""
    return reproduced(max(violations) <= TOLERANCE, "wrong")


def inequality(violation: float) -> str:
    """An inequality in words, by its greatest ``excess``."""
    if violation <= TOLERANCE:
        rounding = f", but for {violation:.1g} of rounding" if violation > 0 else ""
        return f"never violated{rounding}"
    return f"violated by up to {violation:.2g} (relative)"


def equality(violation: float) -> str:
    """An equation in words, by its greatest ``difference``."""
    if violation <= TOLERANCE:
        return f"equal to {violation:.1g}"
    return f"off by up to {violation:.2g} (relative)"

"""What the chapter on theory is made of: findings, and the instances behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.markdown import table
from benchmarks.paper.section import Verdict, Word

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
    """Whether to try all settings."""


def sizes(profile: str) -> Sizes:
    """Seconds for ``smoke``, minutes otherwise."""
    if profile == "smoke":
        return Sizes((5,), 200, 5, 20_000, 2, 60, False)
    return Sizes((2, 7, 30), 20_000, 100, 1_000_000, 10, 400, True)


class Finding(NamedTuple):
    """One statement of the paper, how it was tested, and what came out."""

    where: str
    statement: str
    test: str
    found: str
    word: Word

    @property
    def verdict(self) -> Verdict:
        """For the ledger."""
        return Verdict(f"{self.where}: {self.statement}", self.found, self.word)


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings in Markdown."""
    head = ("where", "the paper's statement", "test", "found", "verdict")
    return table(head, [(*finding[:4], f"**{finding.word}**") for finding in findings])


class Instances(NamedTuple):
    """``[number, K]`` losses and priors, ``[number]`` inverse temperatures."""

    losses: np.ndarray
    p: np.ndarray
    eta: np.ndarray


def instances(
    number: int, width: int, low: float = -10.0, etas: tuple[float, float] = (2**-6, 30)
) -> Instances:
    """Losses from ``low`` to 10, half of them with ties; priors without zeros."""
    rng = np.random.default_rng(width)
    losses = rng.uniform(low, 10, (number, width))
    losses[::2] = np.maximum(np.round(losses[::2]), low)
    concentration = rng.choice([0.3, 1.0, 10.0], (number, 1))
    p = np.maximum(rng.standard_gamma(np.tile(concentration, (1, width))), 1e-9)
    p /= p.sum(axis=1, keepdims=True)
    return Instances(losses, p, np.exp(rng.uniform(*np.log(etas), size=number)))


def mapped(function: Callable[..., Any], *arguments: np.ndarray) -> Any:
    """``function`` over the leading axis of all arguments, in float64."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(*arguments))


def excess(left: np.ndarray, right: np.ndarray) -> float:
    """The greatest left − right of left ≤ right, relative to 1 + their sizes."""
    return float(np.max((left - right) / (1 + np.abs(left) + np.abs(right))))


def difference(left: np.ndarray, right: np.ndarray) -> float:
    """The greatest distance of what should be equal, relative to 1 + their sizes."""
    return max(excess(left, right), excess(right, left))


def holds(*violations: float) -> Word:
    """The word for a statement, by the greatest violation of it that was found."""
    return "reproduced" if max(violations) <= TOLERANCE else "wrong"


def inequality(violation: float) -> str:
    """An inequality in words, by its ``excess``."""
    if violation <= TOLERANCE:
        rounding = f", but for {violation:.1g} of rounding" if violation > 0 else ""
        return f"never violated{rounding}"
    return f"violated by up to {violation:.2g} (relative)"


def share(part: float) -> str:
    """A share in percent, with zero and one told from what rounds to them."""
    percent = 100 * part
    if 0 < percent < 0.01:
        return "under 0.01 %"
    if 99.99 < percent < 100:
        return "over 99.99 %"
    return f"{percent:.3g} %"


def equality(violation: float) -> str:
    """An equation in words, by its ``difference``."""
    if violation <= TOLERANCE:
        return f"equal to {violation:.1g}"
    return f"off by up to {violation:.2g} (relative)"

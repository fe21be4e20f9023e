"""``python -m benchmarks.convergence``: how soon ``minimize`` is at the minimum.

Leaves ``results.json`` (every seed's numbers) and ``table.md`` in the output folder.
All is in double precision.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cma
import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import progress, require_at_least
from benchmarks.harness import records
from benchmarks.markdown import table
from benchmarks.rastrigin.methods import WORKING_SIGMA, rastrigin, starting_points

DIMENSION = 10
TARGET = 1e-8
SIGMA = 1.0
NOTES = """\
Evaluations until a value is at most 1e-8, of functions of 10 coordinates whose minimum
is 0: medians over {seeds} starts, uniform in [−2, 2]^10, with a spread of 1; both
methods restart by themselves, and count whole steps, pycma its last mean, too.

The best value on the 30-D Rastrigin function by the defaults of `minimize`: median, and
how many of {rastrigin_seeds} starts, uniform in the box, are at the global minimum (a
value below 0.5).
"""


def sphere(x: Any, xp: Any = jnp) -> Any:
    """Sum of squares."""
    return xp.sum(x**2)


def rosenbrock(x: Any, xp: Any = jnp) -> Any:
    """Rosenbrock's function, a bent valley."""
    return xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def ellipsoid(x: Any, xp: Any = jnp) -> Any:
    """Squares whose weights go from 1 to 1e6."""
    return xp.sum(1e6 ** xp.linspace(0.0, 1.0, x.size) * x**2)


FUNCTIONS = {"sphere": sphere, "Rosenbrock": rosenbrock, "ellipsoid": ellipsoid}


@dataclasses.dataclass(frozen=True)
class Command:
    """Evaluations to the minimum of smooth functions, and Rastrigin's."""

    output: Path = Path("benchmarks/results/convergence")
    """Folder for results.json and table.md."""
    seeds: int = 15
    """Starts on each of the smooth functions."""
    evaluations: int = 100_000
    """That may be spent on one of these."""
    rastrigin_seeds: int = 10
    """Starts of ``benchmarks.rastrigin``."""
    rastrigin_evaluations: tuple[int, ...] = (30_000, 300_000)


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "seeds", "evaluations", "rastrigin_seeds")
    require_at_least(command, 1, "rastrigin_evaluations")
    command.output.mkdir(parents=True, exist_ok=True)
    runs = []
    with jax.enable_x64(True):
        for name, fun in FUNCTIONS.items():
            starts = np.random.default_rng(0).uniform(-2, 2, (command.seeds, DIMENSION))
            runs.append(
                {
                    "function": name,
                    "minimize": minimised(fun, starts, command.evaluations),
                    "cma": pycma(fun, starts, command.evaluations),
                }
            )
            progress(name)
        valleys = []
        for budget in command.rastrigin_evaluations:
            starts = starting_points(command.rastrigin_seeds)
            values = rastrigin_values(starts, budget)
            valleys.append({"evaluations": budget, "values": values})
            progress(f"Rastrigin, {budget:,}")
    content = records.provenance()
    content["versions"]["cma"] = importlib.metadata.version("cma")
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.convergence", "settings": settings}
    content |= {"runs": runs, "rastrigin": valleys}
    records.write_json(command.output / "results.json", content)
    text = page(runs, valleys)
    records.write_text(command.output / "table.md", text)
    print(text)


def minimised(
    fun: Callable[..., Any], starts: np.ndarray, budget: int
) -> list[int | None]:
    """Evaluations of ``minimize``; None where the target is not reached.

    Args:
      fun: the function.
      starts: one for each seed.
      budget: evaluations.
    """

    @jax.jit
    def search(start, key):
        result = qiaso_jax.minimize(
            fun, start, sigma=SIGMA, max_evaluations=budget, target=TARGET, key=key
        )
        return result.nfev, result.fun

    found: list[int | None] = []
    for seed, start in enumerate(starts):
        spent, value = search(jnp.asarray(start), seed)
        found.append(int(spent) if value <= TARGET else None)
    return found


def pycma(fun: Callable[..., Any], starts: np.ndarray, budget: int) -> list[int | None]:
    """Those of pycma, restarted with twice the candidates."""
    found: list[int | None] = []
    for seed, start in enumerate(starts):
        options = {
            "verbose": -9,
            "maxfevals": budget,
            "ftarget": TARGET,
            "seed": seed + 1,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, search = cma.fmin2(
                partial(fun, xp=np), start, SIGMA, options, restarts=9
            )
        is_found = search.best.f <= TARGET
        found.append(int(search.countevals) if is_found else None)
    return found


def rastrigin_values(starts: np.ndarray, budget: int) -> list[float]:
    """The best value from each start, by the defaults of ``minimize``."""

    @jax.jit
    def search(start, key):
        return qiaso_jax.minimize(
            rastrigin, start, sigma=WORKING_SIGMA, max_evaluations=budget, key=key
        ).fun

    return [float(search(jnp.asarray(x), seed)) for seed, x in enumerate(starts)]


def page(runs: Sequence[dict[str, Any]], valleys: Sequence[dict[str, Any]]) -> str:
    """Both tables."""
    rows = []
    for run in runs:
        ours, theirs = median(run["minimize"]), median(run["cma"])
        ratio = f"{ours / theirs:.2f}"
        rows.append([run["function"], f"{ours:,.0f}", f"{theirs:,.0f}", ratio])
    columns = ("evaluations", "median", "solved")
    rastrigin_rows = [
        [
            f"{valley['evaluations']:,}",
            f"{np.median(valley['values']):.3g}",
            f"{sum(x < 0.5 for x in valley['values'])}/{len(valley['values'])}",
        ]
        for valley in valleys
    ]
    notes = NOTES.format(
        seeds=len(runs[0]["cma"]), rastrigin_seeds=len(valleys[0]["values"])
    )
    smooth, rugged = notes.split("\n\n")
    return "\n".join(
        [
            "# Convergence",
            "",
            smooth,
            "",
            table(("", "minimize", "cma", "ratio"), rows, numbers=True),
            rugged,
            table(columns, rastrigin_rows, numbers=True),
            "Written by `python -m benchmarks.convergence`.\n",
        ]
    )


def median(found: Sequence[int | None]) -> float:
    """Of evaluations, of which those that are not known are infinitely many."""
    return float(np.median([np.inf if x is None else x for x in found]))


if __name__ == "__main__":
    cli.run(main, Command, __doc__)

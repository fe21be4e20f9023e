"""``python -m benchmarks.large_scale``: searches of a thousand coordinates.

Leaves ``results.json`` (every seed's values) and ``table.md`` in the output folder. All
is in double precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import progress, require_at_least
from benchmarks.convergence import SIGMA, ellipsoid, rosenbrock
from benchmarks.harness import evolution, records
from benchmarks.harness.interface import Setting
from benchmarks.markdown import table
from qiaso_jax.search.plan import default_candidates

AXES = 10
NOTES = """\
The least value that functions of {dimension:,} coordinates have after {evaluations:,}
evaluations; their minimum is 0. Medians over {seeds} starts, uniform in [−2, 2] in each
coordinate, with a spread of 1 and {candidates} candidates at first.

*ten long axes*: a sum of squares, of coordinates whose scale goes from 1 to 30; along
ten random directions it is 1e4 times flatter. evosax's methods go by its defaults, but
for the learning rates of Sep-CMA-ES, which are those of Ros and Hansen (2008).
"""


def long_axes(directions: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Squares, that grow slowly along these orthonormal directions, ``[N, 10]``."""

    def fun(x):
        scaled = x * 10 ** jnp.linspace(0.0, 1.5, x.size)
        along = scaled @ directions
        return jnp.sum(scaled**2) - (1 - 1e-4) * jnp.sum(along**2)

    return fun


def functions(dimension: int) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """By their names."""
    normals = np.random.default_rng(0).normal(size=(dimension, AXES))
    return {
        "ellipsoid": ellipsoid,
        "ten long axes": long_axes(np.linalg.qr(normals)[0]),
        "Rosenbrock": rosenbrock,
    }


Search = Callable[[Callable[[jax.Array], jax.Array], int, jax.Array, jax.Array], Any]


def minimised(
    covariance: Any,
    fun: Callable[[jax.Array], jax.Array],
    evaluations: int,
    start: jax.Array,
    seed: jax.Array,
) -> jax.Array:
    """The least value that ``minimize`` finds."""
    return qiaso_jax.minimize(
        fun,
        start,
        sigma=SIGMA,
        covariance=covariance,
        max_evaluations=evaluations,
        key=seed,
    ).fun


def evolved(
    make: Callable[[Setting, Any], tuple[Any, Any]],
    fun: Callable[[jax.Array], jax.Array],
    evaluations: int,
    start: jax.Array,
    seed: jax.Array,
) -> jax.Array:
    """The least value that a method of evosax finds."""
    number = default_candidates(start.size)
    setting = Setting(
        peak_learning_rate=0.0,
        schedule="constant",
        sigma=SIGMA,
        num_candidates=number,
        examples=0,
        steps_per_epoch=1,
        total_steps=evaluations // number,
    )
    with jax.ensure_compile_time_eval():
        algorithm, hyper = make(setting, jnp.zeros(start.size))
    begun, *keys = jax.random.split(jax.random.key(seed), 1 + evaluations // number)
    state = algorithm.init(begun, start, hyper)

    def step(carry, key):
        state, best = carry
        ask_key, tell_key = jax.random.split(key)
        points, state = algorithm.ask(ask_key, state, hyper)
        values = jax.vmap(fun)(points)
        state, _ = algorithm.tell(tell_key, points, values, state, hyper)
        return (state, jnp.minimum(best, jnp.min(values))), None

    (_, best), _ = jax.lax.scan(step, (state, jnp.asarray(jnp.inf)), jnp.stack(keys))
    return best


def lm_ma_es(setting: Setting, solution: Any) -> tuple[Any, Any]:
    """LM-MA-ES (Loshchilov, Glasmachers and Beyer 2018), as evosax has it."""
    algorithm = evosax.algorithms.LM_MA_ES(setting.num_candidates, solution)
    spread = jnp.asarray(setting.sigma)
    return algorithm, algorithm.default_params.replace(std_init=spread)


METHODS: dict[str, Search] = {
    "auto": partial(minimised, "auto"),
    "low rank": partial(minimised, "low_rank"),
    "Sep-CMA-ES": partial(evolved, evolution.sep_cma_es),
    "LM-MA-ES": partial(evolved, lm_ma_es),
}


@dataclasses.dataclass(frozen=True)
class Command:
    """The least values in a thousand coordinates."""

    output: Path = Path("benchmarks/results/large_scale")
    """Folder for results.json and table.md."""
    dimension: int = 1_000
    """Coordinates."""
    evaluations: int = 300_000
    """Of one search."""
    seeds: int = 3
    """Starts."""


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "evaluations", "seeds")
    require_at_least(command, AXES, "dimension")
    command.output.mkdir(parents=True, exist_ok=True)
    starts = np.random.default_rng(0).uniform(-2, 2, (command.seeds, command.dimension))
    runs = []
    with jax.enable_x64(True):
        for name, fun in functions(command.dimension).items():
            for method, search in METHODS.items():
                found = jax.jit(partial(search, fun, command.evaluations))
                values = [float(found(jnp.asarray(x), i)) for i, x in enumerate(starts)]
                runs.append({"function": name, "method": method, "values": values})
                progress(f"{name}, {method}: {np.median(values):.3g}")
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    given = {"command": "python -m benchmarks.large_scale", "settings": settings}
    content = records.provenance() | given | {"runs": runs}
    records.write_page(command.output, content, page)


def page(content: dict[str, Any]) -> str:
    """The table, and what it is of."""
    settings, runs = content["settings"], content["runs"]
    rows: dict[str, list[str]] = {}
    for run in runs:
        row = rows.setdefault(run["function"], [run["function"]])
        row.append(f"{np.median(run['values']):.2g}")
    notes = NOTES.format(
        **settings, candidates=default_candidates(settings["dimension"])
    )
    columns: Sequence[str] = ("", *dict.fromkeys(run["method"] for run in runs))
    typed = cli.typed("benchmarks.large_scale", Command, settings)
    return "\n".join(
        [
            "# A thousand coordinates",
            "",
            notes,
            table(columns, list(rows.values()), numbers=True),
            f"Written by `{typed}`.\n",
        ]
    )


if __name__ == "__main__":
    cli.run(main, Command, __doc__)

"""``python -m benchmarks.second_call``: what the compilation of ``minimize`` costs.

Leaves ``results.json`` (seconds of every call) and ``table.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.harness import records
from benchmarks.markdown import table

NOTES = """\
Seconds of one call of `minimize` with {evaluations:,} evaluations on the sphere around
a point that the function closes over, another one in each call; start, spread and key
are others, too. *First* compiles; *second* is the median of {calls} calls thereafter.
Outside of JAX the function is of NumPy, called by `workers=map`.
"""


def in_jax(shift: np.ndarray) -> dict[str, Any]:
    """A sphere around a point, of JAX."""
    centre = jnp.asarray(shift, jnp.float32)
    return {"fun": lambda x: jnp.sum((x - centre) ** 2)}


def outside(shift: np.ndarray) -> dict[str, Any]:
    """The same of NumPy."""
    return {"fun": lambda x: float(np.sum((x - shift) ** 2)), "workers": map}


WAYS = {"in JAX": in_jax, "outside of JAX": outside}


@dataclasses.dataclass(frozen=True)
class Command:
    """Seconds of the first call of ``minimize``, and of those after it."""

    output: Path = Path("benchmarks/results/second_call")
    """Folder for results.json and table.md."""
    dimensions: tuple[int, ...] = (2, 20, 100)
    calls: int = 5
    """After the first one."""
    evaluations: int = 1_000
    """Of one call."""


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "dimensions", "calls", "evaluations")
    require_some(command, "dimensions")
    command.output.mkdir(parents=True, exist_ok=True)
    runs = []
    for dimension in command.dimensions:
        for name, make in WAYS.items():
            seconds = timed(make, dimension, command.calls + 1, command.evaluations)
            runs.append({"way": name, "dimension": dimension, "seconds": seconds})
            progress(f"{dimension}-D, {name}")
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    given = {"command": "python -m benchmarks.second_call", "settings": settings}
    content = records.provenance() | given | {"runs": runs}
    records.write_page(command.output, content, page)


def timed(
    make: Callable[[np.ndarray], dict[str, Any]],
    dimension: int,
    calls: int,
    evaluations: int,
) -> list[float]:
    """Seconds of each of some calls, on functions of their own."""
    # What JAX itself takes to begin is not what is measured.
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(dimension)))
    rng = np.random.default_rng(0)
    seconds = []
    for key in range(calls):
        shift, x0 = rng.normal(size=(2, dimension))
        given = make(shift)
        begun = time.perf_counter()
        result = qiaso_jax.minimize(
            x0=x0.astype(np.float32),
            sigma=0.5 + 0.1 * key,
            max_evaluations=evaluations,
            key=key,
            **given,
        )
        jax.block_until_ready(result.fun)
        seconds.append(time.perf_counter() - begun)
    return seconds


def page(content: dict[str, Any]) -> str:
    """The table, and what it is of."""
    rows = []
    for run in content["runs"]:
        first, *others = run["seconds"]
        second = float(np.median(others))
        of = f"{run['dimension']}-D, {run['way']}"
        rows.append([of, f"{first:.2f}", f"{second:.3f}", f"{first / second:.0f}"])
    typed = cli.typed("benchmarks.second_call", Command, content["settings"])
    return "\n".join(
        [
            "# The second call of minimize",
            "",
            NOTES.format(**content["settings"]),
            table(("", "first", "second", "ratio"), rows, numbers=True),
            f"Written by `{typed}`.\n",
        ]
    )


if __name__ == "__main__":
    cli.run(main, Command, __doc__)

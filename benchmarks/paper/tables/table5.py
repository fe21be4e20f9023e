"""Table 5: how time and memory grow with K and N, and the seconds of an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax
from benchmarks.markdown import table
from benchmarks.paper.columns import Row, tabulated
from benchmarks.paper.section import Section, Verdict, reproduced
from benchmarks.paper.study import Study
from benchmarks.paper.tables import cost

PAPER = {"adam": 0.93, "cma-es": 2.6, "qiaso": 1.01}
"""Seconds per epoch on MNIST, of an RTX 3090."""
SIZES = (15, 30, 60, 120), (2**14, 2**15, 2**16, 2**17), (128, 256, 512, 1024)
"""Numbers of candidates, of weights, and of weights of CMA-ES."""
SMALL_SIZES = (4, 8), (2**8, 2**9), (8, 16)
GIGABYTES = 4e-9 * 109_386**2
"""Of N² numbers, N the weights of the paper's network."""
ROUNDS = 5


class Step(NamedTuple):
    """A compiled step, ready to run, and the memory it takes besides its arguments."""

    call: Callable[[], Any]
    bytes: int


def measure(study: Study) -> dict[str, Any]:
    """Exponents by regression of log time and log memory, and ``cost``'s epochs."""
    smoke = study.profile == "smoke"
    candidates, weights, cma_weights = SMALL_SIZES if smoke else SIZES
    middle, fixed = candidates[len(candidates) // 2 - 1], weights[-1]
    rows = []
    for name, chunk in (("all at once", None), ("in chunks of one", 1)):
        by_k = partial(step, num_weights=fixed, chunk=chunk)
        by_n = partial(step, middle, chunk=chunk)
        rows += [
            series(f"QIASO, {name}", "K", candidates, by_k),
            series(f"QIASO, {name}", "N", weights, by_n),
        ]
    rows.append(series("CMA-ES (evosax), K = 30", "N", cma_weights, cma_es_step))
    return {"rows": rows, "epochs": cost.measure(study)}


def step(num_candidates: int, num_weights: int, chunk: int | None) -> Step:
    """One compiled step of ``qiaso`` on a loss that costs O(N)."""
    tx = qiaso_jax.qiaso(num_candidates, 0.02, candidate_batch_size=chunk)
    update_fn: Any = tx.update
    x = jnp.zeros(num_weights)

    def update(state: Any, x: jax.Array) -> Any:
        return update_fn(None, state, x, value_fn=lambda x: jnp.sum((x - 1) ** 2))

    state = tx.init(x)
    return _compiled(update, state, x)


def cma_es_step(num_weights: int) -> Step:
    """One compiled ask and tell of full CMA-ES, whose losses cost O(N) each."""
    x = np.zeros(num_weights, np.float32)
    algorithm = evosax.algorithms.CMA_ES(30, x)
    hyper = algorithm.default_params
    key = jax.random.key(0)

    def update(state: Any, key: jax.Array) -> Any:
        population, state = algorithm.ask(key, state, hyper)
        losses = jnp.sum((population - 1) ** 2, axis=1)
        return algorithm.tell(key, population, losses, state, hyper)

    return _compiled(update, algorithm.init(key, x, hyper), key)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Step:
    compiled = jax.jit(function).lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    return Step(
        call=lambda: jax.block_until_ready(compiled(*arguments)),
        bytes=memory.temp_size_in_bytes + memory.output_size_in_bytes,
    )


def series(
    name: str,
    variable: str,
    values: Sequence[int],
    make: Callable[[int], Step],
) -> dict[str, Any]:
    """Seconds, CPU seconds and bytes of a step over ``values``, and their exponents."""
    steps = [make(value) for value in values]
    seconds, cpu_seconds = np.transpose([timed(step.call) for step in steps])
    bytes_ = [step.bytes for step in steps]
    return {
        "name": name,
        "variable": variable,
        "values": values,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "bytes": bytes_,
        "time_exponent": exponent(values, seconds),
        "memory_exponent": exponent(values, bytes_),
    }


def timed(call: Callable[[], Any]) -> np.ndarray:
    """Median seconds and CPU seconds, after a call that is not timed."""
    call()
    rounds = []
    for _ in range(ROUNDS):
        start = np.array([time.perf_counter(), time.process_time()])
        call()
        rounds.append(np.array([time.perf_counter(), time.process_time()]) - start)
    return np.median(rounds, axis=0)


def exponent(values: Sequence[float], results: Sequence[float] | np.ndarray) -> float:
    """The slope of log ``results`` over log ``values``, by least squares."""
    return float(np.polyfit(np.log(values), np.log(results), 1)[0])


def cores(row: Row) -> str:
    """CPU seconds per second; of a series, at the greatest size."""
    seconds, cpu_seconds = np.ravel(row["seconds"]), np.ravel(row["cpu_seconds"])
    return f"{cpu_seconds[-1] / seconds[-1]:.2f}"


def section(content: dict[str, Any]) -> Section:
    """Exponents, seconds per epoch, utilisation."""
    steps = tabulated(
        content["rows"],
        ("step of", "{name}"),
        ("in", "{variable}"),
        ("over", lambda row: f"{row['values'][0]:,} to {row['values'][-1]:,}"),
        ("time exponent", "{time_exponent:.2f}"),
        ("memory exponent", "{memory_exponent:.2f}"),
        ("cores", cores),
    )
    epochs = [
        [
            cost.label(row),
            row["group"],
            PAPER["adam" if row["form"] == "adam" else "qiaso"],
            cost.seconds(row),
            cores(row),
        ]
        for row in content["epochs"]["rows"]
    ]
    epochs.append(["CMA-ES", "", PAPER["cma-es"], "not possible", ""])
    parts = (
        "Exponents of the time and the memory of one step, by least squares on "
        "logarithms; the loss itself costs O(N) per candidate. Cores: CPU seconds "
        "per second, at the greatest size.\n",
        steps,
        "Seconds per epoch of MNIST, and cores in use:\n",
        table(
            ("optimizer", "minibatches", "paper: s (RTX 3090)", "ours: s", "cores"),
            epochs,
        ),
        "The covariance of CMA-ES at the paper's N = 109,386 has N² "
        f"numbers, {GIGABYTES:.0f} GB, more than its 24 GB card.\n",
    )
    return Section("Table 5: complexity", "\n".join(parts), verdicts(content))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """O(KN) for QIASO, O(KN²) for CMA-ES, and the seconds of the latter."""
    *rows, cma = content["rows"]
    slope = cma["time_exponent"]
    return [
        *(linear(row) for row in rows if row["name"] == "QIASO, all at once"),
        Verdict(
            "Table 5: the time of CMA-ES grows as N²",
            f"measured exponent {slope:.2f} up to N = {cma['values'][-1]:,} "
            "(its eigendecomposition is N³)",
            reproduced(1.75 <= slope <= 2.25),
        ),
        Verdict(
            "Table 5: CMA-ES takes 2.6 s per epoch of MNIST on a 24 GB card",
            f"its covariance alone would be {GIGABYTES:.0f} GB for this network",
            reproduced(GIGABYTES <= 24, "contradictory"),
        ),
    ]


def linear(row: Row) -> Verdict:
    """Whether the time of a step grows as the paper says."""
    return Verdict(
        f"Table 5: the time of QIASO is linear in {row['variable']}",
        f"measured exponent {row['time_exponent']:.2f}",
        reproduced(0.75 <= row["time_exponent"] <= 1.25),
    )

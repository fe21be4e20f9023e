"""Compiling, timing in turns, and the arithmetic of ratios and exponents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.cli import progress
from benchmarks.step_cost.methods import Job

MIB = 2**20
GIB = 2**30


class Limits(NamedTuple):
    """How long a table is measured, and what is left out.

    Attributes:
      rounds: at most.
      longest: seconds that they may last, three of them apart.
      memory: GiB that a program may need.
    """

    rounds: int
    longest: float
    memory: float


class Skipped(Exception):
    """A program that is not run, and why."""


class Program(NamedTuple):
    """A job, compiled, and what the compiler says of it."""

    job: Job
    call: Callable[[Any, Any], Any]
    about: dict[str, Any]

    def measured(self, state: Any) -> tuple[Any, float]:
        """The next state, and the seconds of one step: the mean over the job's."""
        start = time.perf_counter()
        result = None
        for _ in range(self.job.steps):
            result = self.call(state, self.job.batch)
            state = result if self.job.carries else state
        jax.block_until_ready(result)
        return state, (time.perf_counter() - start) / self.job.steps


def compiled(job: Job, memory: float = np.inf, donate: bool = False) -> Program:
    """Compiles a job; with ``donate``, it may write the next state over the last.

    Raises:
      Skipped: It would need more than ``memory`` GiB.
    """
    state = jax.eval_shape(job.init)
    start = time.perf_counter()
    function = jax.jit(job.function, donate_argnums=(0,) if donate else ())
    call = function.lower(state, job.batch).compile()
    seconds = time.perf_counter() - start
    found = call.memory_analysis()
    assert found is not None
    about = {
        "compile_seconds": round(seconds, 2),
        "temporary_bytes": found.temp_size_in_bytes,
        "output_bytes": found.output_size_in_bytes,
        "argument_bytes": found.argument_size_in_bytes,
        "alias_bytes": found.alias_size_in_bytes,
    }
    needs = sum(about[f"{part}_bytes"] for part in ("temporary", "output", "argument"))
    needs = (needs - about["alias_bytes"]) / GIB
    if needs > memory:
        raise Skipped(f"needs {needs:.1f} GiB")
    return Program(job, call, about)


def compiled_all(
    jobs: Mapping[str, Callable[[], Job]], memory: float
) -> tuple[dict[str, Program], dict[str, dict[str, Any]]]:
    """The programs of those that can be run, and rows of the others."""
    programs, skipped = {}, {}
    for name, make in jobs.items():
        try:
            programs[name] = compiled(make(), memory)
        except Skipped as reason:
            skipped[name] = {"skipped": str(reason)}
        except Exception as error:
            # A method that fails at this size leaves the others their figures.
            skipped[name] = {"skipped": _first_line(error)}
    return programs, skipped


def in_turns(
    programs: Mapping[str, Program], rounds: int, longest: float
) -> dict[str, list[float]]:
    """Seconds of a step in every round, after one round that warms up.

    There are ``rounds`` of them, or the odd number, at least three, that end within
    about ``longest`` seconds.
    """
    states = {name: program.job.init() for name, program in programs.items()}

    def one_round() -> dict[str, float]:
        seconds = {}
        for name, program in programs.items():
            states[name], seconds[name] = program.measured(states[name])
        return seconds

    warm = one_round()
    whole = sum(warm[name] * programs[name].job.steps for name in programs)
    affordable = int(longest / max(whole, 1e-9))
    rounds = min(rounds, max(3, affordable - 1 + affordable % 2))
    found = [one_round() for _ in range(rounds)]
    return {name: [each[name] for each in found] for name in programs}


def measured(
    jobs: Mapping[str, Callable[[], Job]],
    units: Sequence[str],
    limits: Limits,
) -> dict[str, dict[str, Any]]:
    """One row for each job: seconds, ratios to the units, bytes, compile seconds."""
    programs, skipped = compiled_all(jobs, limits.memory)
    times = in_turns(programs, limits.rounds, limits.longest)
    rows = {}
    for name in jobs:
        if name in skipped:
            progress(f"  {name}: {skipped[name]['skipped']}")
            rows[name] = skipped[name]
            continue
        ratios = {
            unit: significant(ratio(times[name], times[unit]))
            for unit in units
            if unit in times
        }
        rows[name] = {
            "seconds": significant(float(np.median(times[name]))),
            "seconds_of_rounds": [significant(each) for each in times[name]],
            "ratios": ratios,
        } | programs[name].about
    return rows


def mebibytes(row: Mapping[str, Any]) -> float:
    """Temporaries and outputs of a program."""
    return (row["temporary_bytes"] + row["output_bytes"]) / MIB


def ratio(times: Sequence[float], unit: Sequence[float]) -> float:
    """The median over rounds of what ``times`` are in units of the same round."""
    return float(np.median(np.divide(times, unit)))


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def fastest(
    choices: Sequence[int | None], make: Callable[[int | None], Job], memory: float
) -> int | None:
    """The choice whose job is done first: the better of two calls after a warm one."""
    seconds = {}
    for choice in choices:
        try:
            program = compiled(make(choice), memory)
        except Skipped:
            continue
        state, _ = program.measured(program.job.init())
        seconds[choice] = np.inf
        for _ in range(2):
            state, once = program.measured(state)
            seconds[choice] = min(seconds[choice], once)
    if not seconds:
        return choices[-1]
    return min(seconds, key=seconds.__getitem__)


def significant(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]

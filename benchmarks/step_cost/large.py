"""A step with a thousand candidates of a transformer of 100 million parameters."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import jax
import optax

import qiaso_jax
from benchmarks.harness import networks
from benchmarks.harness.interface import Objective
from benchmarks.step_cost import measure, methods, models
from benchmarks.step_cost.methods import Job

RATE = 1e-3
LIMIT = 2.0
"""Temporaries and outputs, in units of the parameters.

Outputs that are written over what was donated are none: that memory is the arguments'.
"""


class Size(NamedTuple):
    """What decides what the step costs."""

    candidates: int = 1000
    at_a_time: int = 2
    sequences: int = 1
    module: models.Transformer = models.LARGE_TRANSFORMER


def job(size: Size) -> Job:
    """A step under SGD, which keeps no moments; nothing exists before it runs."""
    network = networks.from_flax(size.module, convolutional=False)
    objective = Objective(network.apply)
    batch = models.sequences(size.sequences, size.module)
    tx = qiaso_jax.qiaso(
        size.candidates,
        methods.SIGMA,
        directions="low_rank",
        optimizer=optax.sgd(RATE),
        candidate_batch_size=size.at_a_time,
    )

    def init() -> Any:
        params, _ = network.init(jax.random.key(0), batch.images[:1])
        return params, tx.init(params)

    step = methods.gradient_free_step(
        tx, lambda params, batch: objective.loss(params, {}, batch)
    )
    return Job(step, jax.jit(init), batch, carries=True)


def measured(size: Size, steps: int) -> dict[str, Any]:
    """What the compiler says of the step, with its state donated; ``steps`` are run."""
    work = job(size)
    program = measure.compiled(work, donate=True)
    params, _ = jax.eval_shape(work.init)
    leaves = jax.tree.leaves(params)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    about = program.about
    needed = about["temporary_bytes"] + about["output_bytes"] - about["alias_bytes"]
    found: dict[str, Any] = {
        "candidates": size.candidates,
        "at_a_time": size.at_a_time,
        "parameters": sum(leaf.size for leaf in leaves),
        "parameter_bytes": held,
        **about,
        "temporaries_and_outputs_over_parameters": measure.significant(needed / held),
        "with_outputs_over_donated": measure.significant(
            (needed + about["alias_bytes"]) / held
        ),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "seconds": [],
    }
    if steps:
        state = work.init()
        for _ in range(steps):
            state, seconds = program.measured(state)
            found["seconds"].append(measure.significant(seconds))
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """What is printed."""
    ratio = found["temporaries_and_outputs_over_parameters"]
    verdict = "pass" if ratio <= LIMIT else "fail"
    names = ("parameter", "argument", "alias", "temporary", "output")
    sizes = ", ".join(
        f"{name} {found[f'{name}_bytes'] / measure.MIB:,.0f} MiB" for name in names
    )
    return [
        f"{found['parameters']:,} parameters, K = {found['candidates']:,} in "
        f"{found['at_a_time']}, compiled in {found['compile_seconds']:.1f} s: {sizes}",
        f"temporaries and outputs / parameters: target ≤ {LIMIT:g}, "
        f"measured {ratio:.3g}, {verdict}; with outputs written over what was donated "
        f"{found['with_outputs_over_donated']:.3g}",
        *(f"a step: {seconds:.3g} s" for seconds in found["seconds"]),
    ]

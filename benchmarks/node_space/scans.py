"""``python -m benchmarks.node_space.scans``: scans, attention and convolutions.

Seconds to compile one jitted update of a GRU against the length of its scan, the space
of each parameter, and cosines of single estimates to the gradient in every space; the
same cosines for one layer of attention and a small CNN, so that what ``space="auto"``
picks can be held against the best. Leaves ``scans.json`` and ``scans.md`` in the output
folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jax.experimental.compilation_cache import compilation_cache

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.harness import networks
from benchmarks.node_signal.measure import cosine
from benchmarks.node_space import report, scan_models, scan_report
from benchmarks.node_space.scan_models import ModelName, Params
from benchmarks.node_space.scan_report import Case

Space = Literal["auto", "node", "example", "weights"]


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures compile times and cosines on a GRU, attention and a CNN."""

    output: Path = report.RESULTS
    """Folder for scans.json and scans.md."""
    models: tuple[ModelName, ...] = get_args(ModelName)
    lengths: tuple[int, ...] = (16, 64, 65, 256)
    """T of the GRU."""
    spaces: tuple[Space, ...] = get_args(Space)
    steps: int = 200
    """Estimates whose cosines are averaged."""
    candidates: int = 30
    batch_size: int = 64
    examples: float | None = None
    """Share of the minibatch with candidates; None for the default of node_qiaso."""
    seed: int = 0
    """Of the parameters, the data and the noise."""


def main(command: Command) -> None:
    """Writes everything."""
    require_some(command, "models", "lengths", "spaces")
    require_at_least(command, 1, "lengths")
    require_at_least(command, 2, "steps")
    require_at_least(command, 4, "batch_size")
    settings = report.node_settings(command)
    rows = []
    with without_cache():
        warm_up()
        for case in cases(command):
            for space in command.spaces:
                row = measured(command, case, settings | {"space": space})
                rows.append(case._asdict() | {"space": space} | row)
                progress(f"{case.name}, {space}: {scan_report.said(row)}")
    auto = scan_report.auto_and_best(rows, cases(command))
    text = scan_report.page(command, rows, auto)
    report.write(command, "scans", {"rows": rows, "auto": auto}, text)


def cases(command: Command) -> Iterator[Case]:
    """The GRU at each length, and the other models once."""
    for model in command.models:
        if model == "gru":
            yield from (Case(model, length) for length in command.lengths)
        else:
            yield Case(model, None)


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles everything anew, as in a first run on a machine."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    # JAX decides once per process whether it uses the cache.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def warm_up() -> None:
    """Compiles some update, as the first in a process takes longer."""

    def losses(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return networks.cross_entropy(jnp.tanh(x) @ params["kernel"], y)

    params = {"kernel": jnp.ones((3, 3))}
    tx = qiaso_jax.node_qiaso(optimizer=optax.sgd(1.0))
    batch = {"x": jnp.ones((8, 3)), "y": jnp.zeros(8, jnp.int32)}
    update = update_of(tx, losses)
    update.lower(tx.init(params), params, batch).compile()


def update_of(tx: Any, losses: Callable[..., jax.Array]) -> Any:
    """One jitted update of a training."""

    @jax.jit
    def update(
        state: Any, params: Params, batch: dict[str, jax.Array]
    ) -> tuple[Params, Any]:
        return tx.update(None, state, params, value_fn=losses, **batch)

    return update


def measured(command: Command, case: Case, settings: dict[str, Any]) -> dict[str, Any]:
    """A row of the results; the sentence of a refusal where there is one."""
    model = scan_models.build(case.model, case.length or 1)
    params_key, batch_key = jax.random.split(jax.random.key(command.seed))
    params = model.init(params_key)
    batch = scan_models.batch_of(model, batch_key, command.batch_size)
    tx = qiaso_jax.node_qiaso(optimizer=optax.sgd(1.0), key=command.seed, **settings)
    state = tx.init(params)
    began = time.perf_counter()
    try:
        lowered = update_of(tx, model.losses).lower(state, params, batch)
    except report.REFUSALS as error:
        return {"refused": str(error)}
    traced = time.perf_counter()
    update = lowered.compile()
    compiled = time.perf_counter()
    sites = qiaso_jax.node_sites(
        model.losses, params, space=settings["space"], x=batch["x"], y=batch["y"]
    )
    gradient_of = jax.jit(jax.grad(lambda p, b: model.losses(p, **b).mean()))
    return {
        "trace_seconds": round(traced - began, 3),
        "compile_seconds": round(compiled - traced, 3),
        "seconds": round(compiled - began, 3),
        "spaces": report.spaces(sites),
        "sites": [site._asdict() for site in sites],
    } | compared(
        command.steps, update, state, params, batch, gradient_of(params, batch)
    )


def compared(
    steps: int,
    update: Any,
    state: Any,
    params: Params,
    batch: dict[str, jax.Array],
    gradient: Params,
) -> dict[str, Any]:
    """Cosines of the estimates to the gradient, and the seconds of a step."""
    estimates, seconds = [], []
    for _ in range(steps):
        began = time.perf_counter()
        updates, state = jax.block_until_ready(update(state, params, batch))
        seconds.append(time.perf_counter() - began)
        # The optimizer is plain descent at rate 1: an update is minus an estimate.
        estimates.append(kernels_of(jax.tree.map(jnp.negative, updates)))
    found = {}
    for name, exact in kernels_of(gradient).items():
        singles = [cosine(each[name], exact) for each in estimates]
        mean = np.mean([each[name] for each in estimates], axis=0)
        found[name] = {
            "cosine": float(np.mean(singles)),
            "standard_error": float(scipy.stats.sem(singles)),
            "cosine_of_mean": cosine(mean, exact),
        }
    return {"step_seconds": round(float(np.median(seconds)), 5), "kernels": found}


def kernels_of(params: Params) -> dict[str, np.ndarray]:
    """The leaves with two axes or more, in float64."""
    return {
        name: np.asarray(leaf, np.float64)
        for name, leaf in params.items()
        if leaf.ndim > 1
    }


if __name__ == "__main__":
    cli.run(main, Command, __doc__)

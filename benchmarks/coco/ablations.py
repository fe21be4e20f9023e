"""``python -m benchmarks.coco.ablations``: what each part of ``minimize`` is worth.

Leaves ``ablations.json`` (every instance's difference from the optimum) and
``ablations.md`` in the output folder, anew after each variant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.coco import batched
from benchmarks.coco.problems import GROUPS, box, one_thread, opened, share
from benchmarks.harness import records
from benchmarks.markdown import table
from qiaso_jax.search import adaptive, covariance, restarts, runs
from qiaso_jax.search.covariance import DIAGONAL, FULL, Kind

REFERENCE = "as it is"
NOTES = """\
Share of 51 targets, from 1e2 to 1e-8 above the optimum, that are reached by
`minimize(..., workers=map)` in {evaluations:,}·D evaluations; mean over the functions
of a group and the instances of each. First the share as it is, then by how much less or
more it is with one part changed, and the standard error of that, paired by function
and instance.

- *logarithmic weights*: those of CMA-ES, its negative ones too, with its own learning
  rates and damping, in the place of exponential weights of ranks.
- *η = 3*, *η = 8*: of the exponential weights, in the place of 5.
- *no negative weights*: candidates worse than the prior do not push C away.
- *diagonal*: `covariance="diagonal"`. *isotropic*: C stays the identity.
- *path alone*: σ goes by the length of its path, and not by the second moment, too.
- *not halved*: σ stays where nothing better is found.
- *determinant free*: C does not keep its determinant, and σ goes by its path alone.
- *no restarts*: `restarts=0`. *no annealed arm*: doubling and small runs alone.
- *none gives up*: a run goes on however far it is behind the best.
"""


def logarithmic(log_p: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Those of CMA-ES: Hansen (2016), eq. 49; the positive and the negative sum to ±1.

    Args:
      log_p: amplitudes by which the candidates are ranked, shape ``[K]``.
      known: which have a loss, shape ``[K]``.
    """
    order = jnp.argsort(jnp.where(known, -log_p, jnp.inf))
    rank = jnp.zeros_like(log_p).at[order].set(jnp.arange(1.0, log_p.size + 1))
    raw = jnp.log((jnp.sum(known) + 1) / 2) - jnp.log(rank)
    positive = jnp.where(known, jnp.maximum(raw, 0), 0)
    negative = jnp.where(known, jnp.minimum(raw, 0), 0)
    # Of one candidate, or none, there is no better half.
    p = positive / jnp.maximum(jnp.sum(positive), 1e-300)
    return p, p + negative / jnp.maximum(-jnp.sum(negative), 1e-300)


def tempered(kind: Kind, size: int, p: jax.Array, w: jax.Array) -> jax.Array:
    """The negative part scaled as CMA-ES has it: Hansen (2016), eqs. 50 to 53."""
    negative = jnp.minimum(w, 0)
    mass = 1 / jnp.sum(p**2)
    mass_negative = 1 / jnp.maximum(jnp.sum(negative**2), 1e-300)
    rate = covariance.rates(kind, size, mass)
    total = jnp.minimum(
        1 + rate.rank_one / rate.rank_mu, 1 + 2 * mass_negative / (mass + 2)
    )
    most = (1 - rate.rank_one - rate.rank_mu) / (size * rate.rank_mu)
    return jnp.where(w < 0, jnp.minimum(total, most) * w, w)


def _nothing_pushes_away(kind, size, p, w):
    return jnp.maximum(w, 0)


def _root_alone(gaussian):
    _, root, scale = FULL.renewed(gaussian)
    return gaussian.covariance, scale * root, jnp.ones_like(scale)


def _path_alone(kind, size, mass, of=covariance.rates):
    return of(kind, size, mass)._replace(volume=jnp.zeros_like(mass))


class Variant(NamedTuple):
    """A change of the search.

    Attributes:
      patches: module, name and value of what is another.
      plan: fields of the plan that are others.
    """

    patches: Sequence[tuple[Any, str, Any]] = ()
    plan: Mapping[str, Any] = {}


VARIANTS = {
    REFERENCE: Variant(),
    "logarithmic weights": Variant(
        [
            (covariance, "weights", logarithmic),
            (covariance, "tempered", tempered),
            (covariance, "RANK_ONE", 1.0),
            (covariance, "RANK_MU", 1.0),
            (covariance, "UNDAMPED", 0.0),
        ]
    ),
    "η = 3": Variant([(adaptive, "ETA", 3.0)]),
    "η = 8": Variant([(adaptive, "ETA", 8.0)]),
    "no negative weights": Variant([(covariance, "tempered", _nothing_pushes_away)]),
    "diagonal": Variant(plan={"kind": DIAGONAL}),
    "isotropic": Variant([(covariance, "RANK_ONE", 0.0), (covariance, "RANK_MU", 0.0)]),
    "path alone": Variant([(covariance, "rates", _path_alone)]),
    "not halved": Variant([(runs, "HALVED", (runs.UNLIMITED, 0))]),
    "determinant free": Variant(
        [(covariance, "rates", _path_alone)],
        {"kind": FULL._replace(renewed=_root_alone)},
    ),
    "no restarts": Variant(plan={"restarts": 0}),
    "no annealed arm": Variant([(restarts, "AFFORDED", 0.0)]),
    "none gives up": Variant([(restarts, "BEHIND", math.inf)]),
}


class Ablation(NamedTuple):
    """A variant on all functions.

    Attributes:
      variant: a key of ``VARIANTS``.
      dimension: of the functions.
      instances: of each.
      evaluations: times the dimension.
    """

    variant: str
    dimension: int
    instances: Sequence[int]
    evaluations: int


@dataclasses.dataclass(frozen=True)
class Command:
    """Takes ``minimize`` apart on COCO's functions."""

    output: Path = Path("benchmarks/results/coco")
    """Folder for ablations.json and ablations.md."""
    dimensions: tuple[int, ...] = (5, 20)
    instances: tuple[int, ...] = (15, 5)
    """The last one, for each of the dimensions."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    evaluations: int = 1000
    """Times the dimension."""
    processes: int = 2


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "processes", "instances", "evaluations")
    require_at_least(command, 2, "dimensions")
    require_some(command, "dimensions", "variants")
    if len(command.instances) != len(command.dimensions):
        raise cli.UserError(
            "--instances must be as many numbers as --dimensions, got "
            f"{command.instances} for {command.dimensions}."
        )
    unknown = [name for name in command.variants if name not in VARIANTS]
    if unknown or REFERENCE not in command.variants:
        raise cli.UserError(
            f"--variants must be {REFERENCE!r} and others of "
            f"{', '.join(map(repr, VARIANTS))}; got {command.variants}."
        )
    command.output.mkdir(parents=True, exist_ok=True)
    ablations = [
        Ablation(variant, dimension, tuple(range(1, last + 1)), command.evaluations)
        for dimension, last in zip(command.dimensions, command.instances, strict=True)
        for variant in command.variants
    ]
    content = records.provenance()
    content["versions"]["coco-experiment"] = importlib.metadata.version(
        "coco-experiment"
    )
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.coco.ablations", "settings": settings}
    found: dict[Ablation, dict[int, list[float]]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        command.processes, context, initializer=one_thread
    ) as pool:
        tasks = {pool.submit(differences, each): each for each in ablations}
        for task in as_completed(tasks):
            found[tasks[task]] = task.result()
            progress(f"{tasks[task].dimension}-D {tasks[task].variant}")
            content["runs"] = [
                each._asdict() | {"differences": found[each]}
                for each in ablations
                if each in found
            ]
            records.write_json(command.output / "ablations.json", content)
            records.write_text(command.output / "ablations.md", page(found, ablations))
    print(page(found, ablations))


def differences(ablation: Ablation) -> dict[int, list[float]]:
    """Best value less the optimum for each instance of each function."""
    variant = VARIANTS[ablation.variant]
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        for module, name, value in variant.patches:
            stack.enter_context(patch.object(module, name, value))
        dimension = ablation.dimension
        budget = ablation.evaluations * dimension
        plan = batched.default_plan(dimension, budget)
        search = batched.searched(plan._replace(**variant.plan), box(dimension))
        found = {}
        for function in GROUPS["all"]:
            problems = opened("bbob", function, dimension, ablation.instances, [budget])
            search(problems)
            found[function] = [problem.differences[-1] for problem in problems]
        return found


def page(
    found: Mapping[Ablation, Mapping[int, Sequence[float]]],
    ablations: Sequence[Ablation],
) -> str:
    """A table for each dimension, of the variants that there are."""
    parts = ["# Ablations", "", NOTES.format(evaluations=ablations[0].evaluations)]
    for dimension in dict.fromkeys(each.dimension for each in ablations):
        here = [each for each in ablations if each.dimension == dimension]
        shares = {
            each.variant: {
                group: np.array([share(x) for f in functions for x in found[each][f]])
                for group, functions in GROUPS.items()
            }
            for each in here
            if each in found
        }
        if REFERENCE not in shares:
            continue
        reference = shares.pop(REFERENCE)
        rows = [[REFERENCE, *(f"{x.mean():.3f}" for x in reference.values())]]
        rows += [
            [name, *(apart(own[group], reference[group]) for group in GROUPS)]
            for name, own in shares.items()
        ]
        parts += [
            f"## {dimension}-D, {len(here[0].instances)} instances",
            "",
            table(["", *GROUPS], rows, numbers=True),
        ]
    parts.append("Written by `python -m benchmarks.coco.ablations`.")
    return "\n".join(parts) + "\n"


def apart(shares: np.ndarray, reference: np.ndarray) -> str:
    """The mean difference of pairs, and its standard error."""
    each = shares - reference
    error = each.std(ddof=1) / np.sqrt(each.size)
    return f"{each.mean():+.3f} ± {error:.3f}"


if __name__ == "__main__":
    cli.run(main, Command, __doc__)

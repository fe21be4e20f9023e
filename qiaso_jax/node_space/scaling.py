"""How far weights are moved: as far as the nodes behind them move by σ.

Noise at weights goes through whatever is made of the parameters alone, a rounding or a
normalisation for instance, before it meets the batch. Its size is sought at which the
first variables that have to do with examples move by σ in root mean square, so that
weights move as far as nodes do, in whatever unit they are written.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.program.axes import ExampleAxis
from qiaso_jax.program.flatten import Equation, Environment, Program, Variable
from qiaso_jax.program.passes import Noise, Reached, perturb
from qiaso_jax.program.sites import Sites

_ROUNDS = 3
_HALVINGS = 14
_START = 2.0**-6
_OCTAVES = 24.0
"""The size is sought within so many octaves below the parameter's own."""


class Path(NamedTuple):
    """How noise at one site in weight space comes to the examples.

    Attributes:
      alone: equations on parameters alone.
      first: those that bring it to variables that have to do with examples.
    """

    alone: tuple[Equation, ...]
    first: tuple[Equation, ...]


def path_of(program: Program, sites: Sites, index: int) -> Path:
    """Follows the noise of one site up to the examples."""
    reached = Reached(program, sites, [index])
    seen: set[Variable] = set()
    alone, first = [], []
    for equation in program.equations:
        noisy = any(
            a in seen or reached.site(equation, p) is not None
            for p, a in enumerate(equation.inputs)
        )
        entered = equation.loop in sites.sites[index].loops
        if equation in sites.cut or not (noisy or entered):
            continue
        if any(_with_examples(sites, v) for v in equation.outputs):
            first.append(equation)
        else:
            alone.append(equation)
            seen.update(equation.outputs)
    return Path(tuple(alone), tuple(first))


def _with_examples(sites: Sites, variable: Variable) -> bool:
    where = sites.reach.variables.get(variable)
    return variable in sites.statuses or isinstance(where, ExampleAxis)


def noise_size(
    program: Program,
    sites: Sites,
    index: int,
    path: Path,
    clean: Mapping[Variable, Any],
    sigma: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The size of the noise at a site in weight space, and whether it is capped.

    Args:
      program: a flattened function.
      sites: of ``program``.
      index: of the site.
      path: of ``path_of``, in ``program``.
      clean: the values of all variables of ``program``.
      sigma: how far the nodes are to move, in root mean square.

    Returns:
      The size, at most the root mean square of the site's own value, and whether that
      is where it ends.
    """
    site = sites.sites[index]
    reached = Reached(program, sites, [index])
    dtype = sigma.dtype
    signs = jax.random.rademacher(jax.random.key(0), site.shape, jnp.int8)

    def moved(size, equations):
        """By how much the results of some equations move, one after the other."""
        feed = size.astype(site.variable.aval.dtype) * signs
        noise = Noise({index: feed.astype(site.variable.aval.dtype)}, lambda i, x: x)
        _, values = perturb(program, reached, noise, {}, clean, equations)
        return values

    def distance(values: Environment, variable: Variable) -> Any:
        return _rms(values[variable].astype(dtype) - clean[variable].astype(dtype))

    def at_nodes(size):
        values = moved(size, (*path.alone, *path.first))
        return jnp.stack(
            [
                jnp.max(jnp.stack([distance(values, v) for v in e.outputs if _real(v)]))
                for e in path.first
            ]
        )

    # Of what comes to the examples from parameters alone, how far it moves.
    made = [v for e in path.alone for v in e.outputs]
    ends = [
        [v for v in dict.fromkeys(e.inputs) if v in made and _real(v)]
        for e in path.first
    ]

    def alone(size):
        values = moved(size, path.alone)
        return jnp.stack(
            [
                jnp.max(jnp.stack([distance(values, v) for v in of_one]))
                if of_one
                else size
                for of_one in ends
            ]
        )

    own = _rms(clean[site.variable].astype(dtype)) if not site.loops else jnp.inf
    own = jnp.where(jnp.isfinite(own) & (own > 0), own, sigma * 2.0**12)
    if not path.first:
        return jnp.minimum(sigma, own), sigma > own

    def sought(size, _):
        before, nodes = alone(size), at_nodes(size)
        gain = jnp.where(before > 0, nodes / jnp.where(before > 0, before, 1), 0)

        def halved(octaves, _):
            low, high = octaves
            middle = (low + high) / 2
            far = ~(jnp.max(gain * alone(own * 2.0**middle)) <= sigma)
            return (jnp.where(far, low, middle), jnp.where(far, middle, high)), None

        ends = jnp.asarray(-_OCTAVES, dtype), jnp.zeros((), dtype)
        (low, high), _ = jax.lax.scan(halved, ends, length=_HALVINGS)
        return own * 2.0**high, None

    # What is linear up to the examples needs no second look.
    rounds = _ROUNDS if path.alone else 1
    size, _ = jax.lax.scan(sought, (own * _START).astype(dtype), length=rounds)
    return size, size >= own


def _real(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.floating)


def _rms(values: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(values**2))

"""How far weights are moved: as far as the nodes behind them move by σ.

Noise at weights goes through whatever is made of the parameters alone, a rounding or a
normalisation for instance, before it meets the batch. Its size is sought at which the
first variables that have to do with examples move by σ in root mean square, or farther
where there are more weights than nodes, in whatever unit a parameter is written. It is
looked how far they move at several sizes up to the parameter's own, and the least per
size counts: of a rounding, that of noise which is larger than its steps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax import _varying
from qiaso_jax.program.axes import ExampleAxis
from qiaso_jax.program.equations import (
    Environment,
    Equation,
    Program,
    Variable,
    evaluate,
)
from qiaso_jax.program.passes import Noise, Reached, clean_operands, perturb
from qiaso_jax.program.sites import Site, Sites

_SCALES = (2.0**-6, 2.0**-4, 2.0**-2, 1.0)
"""Sizes at which is looked how far the nodes move, as parts of the parameters' own."""


class Path(NamedTuple):
    """How noise at one site in weight space comes to the examples.

    Attributes:
      alone: equations on parameters alone.
      first: those that bring it to variables that have to do with examples.
      inner: of those of ``first`` that are loops, the path through their bodies.
    """

    alone: tuple[Equation, ...]
    first: tuple[Equation, ...]
    inner: Mapping[Equation, "Path"]

    def translated(self, images: Mapping[Equation, Equation]) -> "Path":
        """The same in another program."""
        return Path(
            tuple(images[e] for e in self.alone),
            tuple(images[e] for e in self.first),
            {images[e]: p.translated(images) for e, p in self.inner.items()},
        )


def path_of(program: Program, sites: Sites, index: int) -> Path:
    """Follows the noise of one site up to the examples."""
    return _path(program, sites, Reached(program, sites, [index]), set())


def _path(
    program: Program, sites: Sites, reached: Reached, noisy: set[Variable]
) -> Path:
    alone, first, inner = [], [], {}
    for equation in program.equations:
        seen = [
            a in noisy or reached.site(equation, p) is not None
            for p, a in enumerate(equation.inputs)
        ]
        if not reached.needs(equation) or not (any(seen) or reached.enters(equation)):
            continue
        if not any(_with_examples(sites, v) for v in equation.outputs):
            alone.append(equation)
            noisy.update(equation.outputs)
            continue
        first.append(equation)
        if equation.loop is not None:
            body = equation.loop.body
            within = {v for v, s in zip(body.inputs, seen, strict=True) if s}
            inner[equation] = _path(body, sites, reached, within)
    return Path(tuple(alone), tuple(first), inner)


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
    num_examples: int,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The size of the noise at a site in weight space, and whether it is capped.

    Args:
      program: a flattened function.
      sites: of ``program``.
      index: of the site.
      path: of ``path_of``, in ``program``.
      clean: the values of all variables of ``program``.
      sigma: how far as many nodes as there are weights are to move, in root mean
        square.
      num_examples: b.
      axis_name: of the devices that have other examples.

    Returns:
      The size, at most the root mean square of the parameters' own, and whether that
      is where it ends.
    """
    site = sites.sites[index]
    reached = Reached(program, sites, [index])
    signs = jax.random.rademacher(jax.random.key(0), site.shape, jnp.int8)
    dtype = site.variable.aval.dtype
    own = _own_size(program, site, clean, sigma)
    if not path.first:
        return jnp.minimum(sigma, own), sigma > own

    measure = _Measure(sigma.dtype, axis_name)

    def gain(size):
        feed = size.astype(dtype) * signs.astype(dtype)
        noise = Noise({index: feed}, lambda i, x: x)
        moves = _moves(program, path, reached, noise, {}, clean, measure)
        return jnp.max(moves) / size

    gains = jax.lax.map(gain, own * jnp.asarray(_SCALES[: _looks(path)], sigma.dtype))
    gains = jnp.where(jnp.isfinite(gains) & (gains > 0), gains, jnp.inf)
    size = jnp.minimum(_share(path, site, num_examples) * sigma / jnp.min(gains), own)
    # What moves nothing at any size may be as large as it is.
    size = jnp.where(size > 0, size, own)
    return size, size >= own


def _share(path: Path, site: Site, num_examples: int) -> float:
    """How far the nodes are to move, in σ: the fourth root of the weights per node.

    All noise is heard in the same losses. The relative error of an estimate with N
    directions, heard as loud as V, is N ΣV / V; the sum of these is least where V is in
    proportion to √N, and V is to be σ² where the weights are no more than the nodes.
    """
    nodes = _nodes(path) / num_examples
    return max(math.prod(site.shape) / max(nodes, 1), 1) ** 0.25


def _nodes(path: Path) -> int:
    """The size of the first variables with examples, over all iterations of loops."""
    sizes = [0]
    for equation in path.first:
        if equation in path.inner and equation.loop is not None:
            sizes.append(equation.loop.length * _nodes(path.inner[equation]))
        else:
            sizes += [math.prod(v.aval.shape) for v in equation.outputs]
    return max(sizes)


def _looks(path: Path) -> int:
    """At how many sizes to look: one where all up to the examples is linear."""
    alone = path.alone or any(p.alone for p in path.inner.values())
    return len(_SCALES) if alone else 1


def _own_size(program: Program, site: Any, clean: Mapping[Variable, Any], sigma: Any):
    """Of the site's value; within loops of the parameters that it is made of."""
    variables = [site.variable]
    if site.loops:
        variables = [program.inputs[leaf] for leaf in site.leaves]
    own = jnp.max(jnp.stack([_rms(clean[v].astype(sigma.dtype)) for v in variables]))
    # Parameters that are zero have no size of their own.
    return jnp.where(own > 0, own, sigma * 2.0**12)


def _moves(
    program: Program,
    path: Path,
    reached: Reached,
    noise: Noise,
    inputs: Mapping[Variable, Any],
    clean: Mapping[Variable, Any],
    measure: "_Measure",
) -> jax.Array:
    """How far the first variables with examples move, in root mean square.

    Returns:
      One number per equation of ``path.first``; of a loop, the largest of its body's.
    """

    def through(equation, reached, noise, operands, clean):
        if equation not in path.inner:
            return operands
        far = _moves_within(
            equation, path.inner[equation], reached, noise, operands, clean, measure
        )
        return [far] * len(equation.outputs)

    equations = [*path.alone, *path.first]
    _, values = perturb(program, reached, noise, inputs, clean, equations, through)
    return jnp.stack(
        [
            jnp.max(
                jnp.stack(
                    [
                        jnp.zeros((), measure.dtype),
                        *(
                            values[v]
                            if e in path.inner
                            else measure.distance(values, clean, v)
                            for v in e.outputs
                            if _is_number(v) and v in values
                        ),
                    ]
                )
            )
            for e in path.first
        ]
    )


def _moves_within(
    equation: Equation,
    path: Path,
    reached: Reached,
    noise: Noise,
    operands: Sequence[Any],
    clean: Mapping[Variable, Any],
    measure: "_Measure",
) -> jax.Array:
    """The same in the body of a loop, over all of its iterations as they are."""
    loop = equation.loop
    assert loop is not None
    feeds = {i: noise.feeds[i] for i in reached.sites_in(loop)}
    tidy = clean_operands(equation, clean)
    operands, tidy, feeds = _varying.together((list(operands), tidy, feeds))
    constants, _, slices = loop.apart(operands)
    tidy_constants, carry, tidy_slices = loop.apart(tidy)

    def step(carry, sliced):
        tidy_slices, slices, feeds = sliced
        values = evaluate(loop.body, [*tidy_constants, *carry, *tidy_slices])
        noisy = dict(zip(loop.body.inputs, [*constants, *carry, *slices], strict=True))
        far = _moves(
            loop.body,
            path,
            reached,
            Noise({**noise.feeds, **feeds}, noise.at),
            noisy,
            values,
            measure,
        )
        return list(map(values.read, loop.body.outputs[: loop.num_carry])), far

    _, far = jax.lax.scan(
        step,
        carry,
        (tidy_slices, slices, feeds),
        length=loop.length,
        reverse=loop.reverse,
    )
    return jnp.max(jnp.sqrt(jnp.mean(far**2, axis=0)))


class _Measure(NamedTuple):
    """How distances are measured.

    Attributes:
      dtype: of the results.
      axis_name: of the devices that have other examples.
    """

    dtype: Any
    axis_name: str | None

    def distance(
        self, values: Environment, clean: Mapping[Variable, Any], variable: Any
    ) -> jax.Array:
        """How far a variable is from its clean value, in root mean square."""
        if variable not in values:
            return jnp.zeros((), self.dtype)
        moved = values[variable].astype(self.dtype) - clean[variable].astype(self.dtype)
        return jnp.sqrt(_varying.averaged(jnp.mean(moved**2), self.axis_name))


def _is_number(atom: Any) -> bool:
    # A comparison with a parameter gives truth values, of which some change.
    return not jnp.issubdtype(atom.aval.dtype, jax.dtypes.extended)


def _rms(values: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(values**2))

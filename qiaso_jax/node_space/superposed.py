"""One step's superposition: the examples, their clean values, and the noise there."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax import _varying
from qiaso_jax._trees import sharded_like
from qiaso_jax.node_space.directions import REACH
from qiaso_jax.node_space.examples import Model, telling_examples
from qiaso_jax.node_space.noise import ExampleNoise, NodeNoise, SiteNoise
from qiaso_jax.node_space.scaling import noise_size, path_of
from qiaso_jax.node_space.spaces import (
    FEWER_EXAMPLES,
    Analysis,
    mixing,
    part_of,
)
from qiaso_jax.program.axes import ExampleAxis, Mixed
from qiaso_jax.program.chains import chain_to, data_of
from qiaso_jax.program.equations import (
    Environment,
    Equation,
    Program,
    Variable,
    evaluate,
    variables_of,
)
from qiaso_jax.program.passes import Noise, Reached, chains, harvest, perturb
from qiaso_jax.program.reactive import reactive_nodes
from qiaso_jax.program.rows import (
    Twin,
    by_example,
    from_examples,
    looked_up,
    taken,
)


class Superposed(NamedTuple):
    """What the candidates of a step are made of.

    Attributes:
      clean_loss: mean over the minibatch.
      clean_drawn: the clean losses of the examples drawn, ``[b]``.
      share: of those in a mean over the minibatch, ``[b]``.
      rows: the numbers of the examples drawn, among those of all devices, ``[b]``.
      noises: one per site.
      losses: of the feeds of all sites, a pair and a sign: ``[b]``.
      gradients: of the sums over the pairs at all sites: one array per parameter.
    """

    clean_loss: jax.Array
    clean_drawn: jax.Array
    share: jax.Array
    rows: jax.Array
    noises: list[SiteNoise]
    losses: Callable[[Sequence[Any], jax.Array, jax.Array], jax.Array]
    gradients: Callable[[Sequence[Any]], list[jax.Array]]


def number_drawn(model: Model, analysis: Analysis, examples: float | None) -> int:
    """b: for how many examples candidates are evaluated.

    Where examples meet, and noise is not kept apart from where they do, the loss of
    one of them needs all others: fewer are evaluated with a warning only.
    """
    sites = analysis.sites
    if examples is None:
        examples = 1.0 if sites.meet else FEWER_EXAMPLES
    elif examples < 1 and sites.meet and "weights" in analysis.spaces:
        (losses,) = analysis.program.outputs
        status = sites.statuses[losses]  # pyright: ignore[reportArgumentType]
        mixer = status.equation if isinstance(status, Mixed) else None
        warnings.warn(
            f"examples={examples:g} evaluates candidates for a part of the batch, but "
            f"the loss of an example depends on others: {mixing(mixer)}. The others "
            "of a candidate are those drawn, not the whole batch. examples=None "
            "evaluates all where examples meet.",
            stacklevel=2,
        )
    return min(model.size, max(2, round(examples * model.size)))


class _Drawn(NamedTuple):
    """The examples that candidates are evaluated for.

    Attributes:
      program: for those.
      twin: of the program for all examples; ``None`` where these are all.
      batch: theirs.
      looked_up: clean values that are known.
      evaluated: the equations that have to be evaluated; all if ``None``.
      share: in a mean over the minibatch.
      clean_loss: mean over the minibatch, if known.
      rows: their numbers, among those of all devices.
    """

    program: Program
    twin: Twin | None
    batch: list[Any]
    looked_up: dict[Variable, Any]
    evaluated: set[Equation] | None
    share: jax.Array
    clean_loss: jax.Array | None
    rows: jax.Array


def superpose(
    model: Model,
    analysis: Analysis,
    size: int,
    key: jax.Array,
    sigma: jax.Array,
    kind: str,
    reactive_only: bool,
    axis_name: str | None = None,
) -> Superposed:
    """Chooses examples, evaluates them as they are, and finds the noise at the sites.

    Args:
      model: parameters and batch.
      analysis: of ``model``.
      size: b, the number of examples to draw.
      key: for the choice.
      sigma: σ > 0.
      kind: a key of ``REACH``.
      reactive_only: whether only nodes that react get noise.
      axis_name: of the devices, each of which has a part of the minibatch and draws
        from that.
    """
    drawn = _draw(model, analysis, size, key, sigma.dtype, axis_name)
    program = drawn.program
    sites = analysis.sites if drawn.twin is None else drawn.twin.sites
    in_nodes = [i for i, space in enumerate(analysis.spaces) if space != "example"]

    def mask(i: int, level: Program, clean: Environment) -> Any:
        site = sites.sites[i]
        if not reactive_only or analysis.spaces[i] != "node":
            return None
        reach = sigma * REACH[kind]
        return reactive_nodes(level, site.variable, site.uses, clean, reach)

    moving = [
        i
        for i, leaf in enumerate(model.leaves)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]

    def clean_pass(moved):
        leaves = list(model.leaves)
        for i, leaf in zip(moving, moved, strict=True):
            leaves[i] = leaf
        return harvest(
            program,
            sites,
            leaves,
            drawn.batch,
            mask,
            in_nodes,
            drawn.looked_up,
            drawn.evaluated,
        )

    at_sites, pull, (clean, masks) = jax.vjp(
        clean_pass, [model.leaves[i] for i in moving], has_aux=True
    )
    noises = [
        _noise_at(i, model, analysis, drawn, clean, masks, sigma, kind, axis_name)
        for i in range(len(analysis.spaces))
    ]
    reached = Reached(program, sites, range(len(noises)))

    def losses(feeds, pair, sign):
        def at(i, feed):
            move = noises[i].at(feed, pair)
            return sign.astype(move.dtype) * move

        noise = Noise(dict(enumerate(feeds)), at)
        return perturb(program, reached, noise, {}, clean)[0][0]

    def gradients(totals):
        found = [jnp.zeros_like(leaf) for leaf in model.leaves]
        cotangents = {}
        for i, (noise, total) in enumerate(zip(noises, totals, strict=True)):
            if isinstance(noise, NodeNoise):
                cotangent = noise.cotangent(total).astype(at_sites[i].dtype)
                cotangents[i] = sharded_like(cotangent, at_sites[i])
            elif isinstance(noise, ExampleNoise):
                leaves = sorted(sites.sites[i].leaves)
                for leaf, part in zip(leaves, noise.gradients(total), strict=True):
                    found[leaf] += part.astype(found[leaf].dtype)
        (parts,) = pull(cotangents)
        for leaf, part in zip(moving, parts, strict=True):
            found[leaf] += part
        return _varying.summed(found, axis_name)

    clean_drawn = clean.read(program.outputs[0]).astype(sigma.dtype)
    clean_loss = drawn.clean_loss
    return Superposed(
        clean_loss=_varying.averaged(
            jnp.mean(clean_drawn) if clean_loss is None else clean_loss, axis_name
        ),
        clean_drawn=clean_drawn,
        share=drawn.share,
        rows=drawn.rows,
        noises=noises,
        losses=losses,
        gradients=gradients,
    )


def _noise_at(
    index: int,
    model: Model,
    analysis: Analysis,
    drawn: _Drawn,
    clean: Environment,
    masks: Mapping[int, Any],
    sigma: jax.Array,
    kind: str,
    axis_name: str | None,
) -> SiteNoise:
    """The noise at one site, in the space that the analysis has for it."""
    sites = analysis.sites if drawn.twin is None else drawn.twin.sites
    site, space = sites.sites[index], analysis.spaces[index]
    if space == "example":
        return _example_noise(
            model, analysis, index, clean, drawn, sigma, kind, axis_name
        )
    if space == "node":
        return NodeNoise(site, kind, sigma, masks[index])
    path = path_of(analysis.program, analysis.sites, index)
    if drawn.twin is not None:
        path = path.translated(drawn.twin.equations)
    far, _ = noise_size(
        drawn.program,
        sites,
        index,
        path,
        clean,
        sigma,
        drawn.share.shape[0],
        axis_name,
    )
    return NodeNoise(site, kind, far, None, sigma / far)


def _draw(
    model: Model,
    analysis: Analysis,
    size: int,
    key: jax.Array,
    dtype: Any,
    axis_name: str | None,
) -> _Drawn:
    rows, devices = jnp.arange(size, dtype=jnp.uint32), 1
    if axis_name is not None:
        devices, here = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)
        rows += jnp.asarray(here * size, jnp.uint32)
        key = jax.random.fold_in(key, here)
    if size == model.size:
        share = jnp.full((size,), 1 / (size * devices), dtype)
        return _Drawn(analysis.program, None, model.batch, {}, None, share, None, rows)
    whole = analysis.program
    part = part_of(model, analysis, size)
    values = evaluate(whole, [*model.leaves, *model.batch])
    losses = values.read(whole.outputs[0]).astype(dtype)
    chosen, share = telling_examples(key, losses, size)
    known, evaluated = looked_up(
        whole,
        part,
        _wanted(part),
        analysis.demand,
        model.size,
        values,
        chosen,
    )
    batch = [
        taken(x, where, model.size, chosen)
        for x, where in zip(model.batch, model.statuses, strict=True)
    ]
    return _Drawn(
        part.program,
        part,
        batch,
        known,
        evaluated,
        share / devices,
        jnp.mean(losses),
        rows,
    )


def _wanted(part: Twin) -> set[Variable]:
    """The variables whose clean values noisy passes and chains look at."""
    program, sites = part.program, part.sites
    reached = Reached(program, sites, range(len(sites.sites)))
    wanted = set(variables_of(program.outputs))
    for equation in program.equations:
        if reached.needs(equation) or equation in sites.carried:
            wanted.update(variables_of(equation.inputs))
            wanted.update(equation.outputs)
    for site in sites.sites:
        if not site.loops:
            wanted.add(site.variable)
    return wanted


def _example_noise(
    model: Model,
    analysis: Analysis,
    index: int,
    clean: Environment,
    drawn: _Drawn,
    sigma: jax.Array,
    kind: str,
    axis_name: str | None,
) -> ExampleNoise:
    """Noise at the weights of every example, by the program for a single one."""
    site, single = analysis.sites.sites[index], analysis.single
    assert single is not None
    assert site.axis is not None
    leaves, axis, size = sorted(site.leaves), site.axis, drawn.share.shape[0]
    steps = chain_to(analysis.program, analysis.sites, site)
    shared, rows = Environment(single.program.constants), Environment()
    for variable in data_of(analysis.program, steps):
        here = variable if drawn.twin is None else drawn.twin.variables[variable]
        where = analysis.demand.variables.get(variable)
        if isinstance(where, ExampleAxis):
            rows[single.variables[variable]] = by_example(clean[here], where, size)
        else:
            shared[single.variables[variable]] = clean[here]
    alone = dataclasses.replace(
        analysis.sites,
        sites=(
            dataclasses.replace(
                site,
                variable=single.variables[site.variable],
                loops=tuple(single.loops[loop.body] for loop in site.loops),
            ),
        ),
        carried={single.equations[equation]: through for equation, through in steps},
    )
    weights = [model.leaves[leaf] for leaf in leaves]

    def of_one(moved, row):
        def chain(weights):
            inputs = Environment(zip(single.program.inputs, model.leaves, strict=False))
            inputs.update(
                (single.program.inputs[leaf], w)
                for leaf, w in zip(leaves, weights, strict=True)
            )
            return chains(single.program, alone, inputs, {**shared, **row})[0]

        return jax.jvp(chain, (weights,), (moved,))[1]

    def move(moved):
        return from_examples(jax.vmap(of_one)(moved, rows), axis)

    # What does not depend on the noise, such as clean iterations of a loop, is
    # evaluated here and not for every candidate.
    shapes = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights]
    zeros = [jnp.zeros((size, *w.shape), w.dtype) for w in weights]
    still = _varying.like(zeros, weights, rows)
    moved_by = jax.linearize(move, still)[1]
    return ExampleNoise(shapes, moved_by, kind, sigma, drawn.rows, axis_name)

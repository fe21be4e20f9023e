"""A part of a batch is as the whole batch has it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.node_space.examples import bind_model, traced
from qiaso_jax.node_space.spaces import analyse, part_of
from qiaso_jax.program.axes import ExampleAxis
from qiaso_jax.program.equations import evaluate, variables_of
from qiaso_jax.program.passes import Noise, Reached, harvest, perturb
from qiaso_jax.program.rows import (
    Differs,
    beginning,
    by_example,
    from_examples,
    looked_up,
    taken,
    twin,
)

SIZE = 8
ROWS = np.array([6, 0, 6])


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / 2


LAYER = {"w": normal(0, 4, 3), "b": normal(1, 3)}
X = {"x": normal(2, SIZE, 4)}


def layer(p, x):
    return jnp.tanh(x @ p["w"] + p["b"][None])


def scanned(p, x):
    step = lambda h, _: (jnp.tanh(h @ p["w"] @ p["w"].T), h)  # noqa: E731
    h, history = jax.lax.scan(step, x, None, length=3)
    return h + history.sum(0)


def mapped(p, x):
    return jax.lax.map(lambda row: jnp.tanh(row @ p["w"]), x)


FUNCTIONS = {
    "layer": layer,
    "scan": scanned,
    "map": mapped,
    "batch statistics": lambda p, x: layer(p, (x - x.mean(0)[None]) / x.std(0)[None]),
    "position": lambda p, x: layer(p, x) * jnp.arange(len(x))[:, None],
    "constant position": lambda p, x: layer(p, x) * np.arange(len(x))[:, None],
    "number": lambda p, x: layer(p, x) / len(x),
    "constant number": lambda p, x: layer(p, x) / np.full((1, 3), float(len(x))),
    "row by number": lambda p, x: layer(p, x)[jnp.arange(len(x)), 1:].sum(-1),
    "dropout": lambda p, x: (
        layer(p, x) * jax.random.bernoulli(jax.random.key(0), 0.5, (len(x), 3))
    ),
    "merged": lambda p, x: layer(p, jnp.repeat(x, 2, 0)).reshape(len(x), -1),
    "time first": lambda p, x: (
        layer(p, jnp.stack([x, -x]).reshape(-1, 4)).reshape(2, len(x), 3).sum(0)
    ),
}


def summed(f):
    return lambda params, x: jnp.sum(f(params, x).reshape(x.shape[0], -1), axis=1)


def setting(f):
    model = bind_model(summed(f), LAYER, X, ("x",))
    # Weight space, so that a derivative along the weights can be compared.
    analysis = analyse(model, {"w": "weights", "b": "weights"})
    return model, analysis, part_of(model, analysis, len(ROWS))


def clean_rows(analysis, part, leaves, batch):
    """Values of the rows from those of the whole batch, and the whole's losses."""
    equations = part.program.equations
    wanted = {v for e in equations for v in (*variables_of(e.inputs), *e.outputs)}
    values = evaluate(analysis.program, [*leaves, *batch])
    rows = jnp.asarray(ROWS)
    known, evaluated = looked_up(
        analysis.program, part, wanted, analysis.demand, SIZE, values, rows
    )
    drawn = [x[rows] for x in batch]
    _, (clean, _) = harvest(
        part.program, part.sites, leaves, drawn, nothing, (), known, evaluated
    )
    return clean, values.read(analysis.program.outputs[0])


def nothing(index, level, clean):
    return None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_are_those_of_the_whole_batch(name):
    model, analysis, part = setting(FUNCTIONS[name])

    @jax.jit
    def run(leaves, batch):
        clean, whole = clean_rows(analysis, part, leaves, batch)
        return clean.read(part.program.outputs[0]), whole

    ours, whole = run(model.leaves, model.batch)
    np.testing.assert_allclose(ours, whole[ROWS], rtol=1e-5, atol=1e-6)
    assert np.ptp(whole) > 1e-3


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "batch statistics"])
def test_what_noise_does_to_rows_is_what_it_does_in_the_whole(name):
    model, analysis, part = setting(FUNCTIONS[name])
    direction = [normal(7 + i, *x.shape) for i, x in enumerate(model.leaves)]
    expected = jax.jvp(
        lambda leaves: model.losses(leaves, model.batch), [model.leaves], [direction]
    )[1]
    sites = part.sites.sites
    reached = Reached(part.program, part.sites, range(len(sites)))

    @jax.jit
    def slope(leaves, batch):
        clean, _ = clean_rows(analysis, part, leaves, batch)

        def losses(step):
            feeds = {i: step * direction[min(s.leaves)] for i, s in enumerate(sites)}
            noise = Noise(feeds, lambda i, feed: feed)
            return perturb(part.program, reached, noise, {}, clean)[0][0]

        return jax.jvp(losses, [0.0], [1.0])[1]

    found = slope(model.leaves, model.batch)
    np.testing.assert_allclose(found, expected[ROWS], rtol=1e-4, atol=1e-6)


def test_rows_of_a_network_are_looked_up():
    model, analysis, part = setting(lambda p, x: layer(p, x) @ p["w"].T)

    def run(leaves, batch):
        clean, _ = clean_rows(analysis, part, leaves, batch)
        return clean.read(part.program.outputs[0])

    compiled = jax.jit(run).lower(model.leaves, model.batch).compile().as_text()
    # Two products for the whole batch, and none for the rows.
    assert len(re.findall(r"= \S+ dot\(", compiled)) == 2


@pytest.mark.parametrize(("name", "counts"), [("layer", False), ("position", True)])
def test_only_what_counts_rows_is_evaluated_for_them(name, counts):
    model, analysis, part = setting(FUNCTIONS[name])
    wanted = {v for e in part.program.equations for v in e.outputs}
    _, evaluated = looked_up(
        analysis.program,
        part,
        wanted,
        analysis.demand,
        SIZE,
        evaluate(analysis.program, [*model.leaves, *model.batch]),
        jnp.asarray(ROWS),
    )
    assert bool(evaluated) == counts


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((2, 6, 2), ExampleAxis(1, 2)),
        ((6, 4), ExampleAxis(0, 1)),
        ((12,), ExampleAxis(0, 2)),
    ],
)
def test_examples_come_to_the_front_and_go_back(shape, where):
    size = 3
    value = jnp.arange(float(np.prod(shape))).reshape(shape)
    front = by_example(value, where, size)
    np.testing.assert_array_equal(from_examples(front, where), value)
    axis, repeats = where
    owner = np.arange(shape[axis]) // repeats % size
    for n in range(size):
        mine = np.compress(owner == n, np.asarray(value), axis)
        np.testing.assert_array_equal(np.ravel(front[n]), np.ravel(mine))
        some = taken(value, where, size, jnp.array([n]))
        np.testing.assert_array_equal(np.ravel(some), np.ravel(mine))


def test_other_computations_are_no_twins():
    def value_fn(params, x):
        h = jnp.sum(layer(params, x), axis=1)
        return 2.0 * h if len(x) > 4 else jnp.sin(h)

    model = bind_model(value_fn, LAYER, X, ("x",))
    analysis = analyse(model, "auto")
    with pytest.raises(Differs, match="others for another number of examples"):
        twin(analysis.program, traced(model, 3), analysis.sites)
    with pytest.raises(ValueError, match=r"examples=1\.0 evaluates candidates for all"):
        part_of(model, analysis, 3)
    common = beginning(analysis.program, traced(model, 3))
    names = [e.name for e in common.program.equations]
    assert names == [e.name for e in analysis.program.equations[:-1]]

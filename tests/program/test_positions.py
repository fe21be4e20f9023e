"""Integers that are known before anything runs are those that are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.program import positions
from qiaso_jax.program.equations import evaluate
from qiaso_jax.program.flatten import flatten

N = np.array([[2, 0, 1], [1, 1, 0]])

KNOWN = {
    "count": lambda: jnp.arange(4),
    "count of a grid": lambda: jax.lax.broadcasted_iota(jnp.int32, (2, 3), 1),
    "column": lambda: jnp.arange(4)[:, None],
    "shifted and scaled": lambda: 2 * jnp.arange(4) - 3,
    "negative, wrapped": lambda: jnp.where(
        jnp.arange(4) - 2 < 0, jnp.arange(4), jnp.arange(4) - 2
    ),
    "at least": lambda: (jnp.arange(4) >= 2).astype(jnp.int32),
    "meshed": lambda: jnp.broadcast_to(jnp.arange(3)[None], (2, 3)) + jnp.asarray(N),
    "flat": lambda: jnp.asarray(N).reshape(-1),
    "narrow": lambda: jnp.arange(4, dtype=jnp.int8) * 100,
    "a constant": lambda: jnp.asarray(N),
    "squeezed": lambda: jnp.squeeze(jnp.arange(4)[None], 0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_values_are_those_that_are_computed(name):
    program = flatten(lambda x: [KNOWN[name]() + (0 * x).astype(jnp.int32)], 1.0)
    values = evaluate(program, [jnp.ones(())])
    (last,) = program.equations[-1:]
    made = next(v for v in last.inputs if v.aval.shape == values[last.outputs[0]].shape)
    assert made in program.known
    for variable, value in program.known.items():
        assert value.dtype == variable.aval.dtype
        np.testing.assert_array_equal(values[variable], value)


def test_what_depends_on_an_input_is_not_known():
    program = flatten(lambda n: [n + 1, jnp.arange(3) + n, jnp.sin(n)], 2)
    made = {v for e in program.equations for v in e.outputs}
    unknown = {v for v in made if v in set(program.outputs)}
    assert not unknown & set(program.known)


def test_large_floating_and_traced_ones_are_not_looked_into():
    assert positions.constant(np.ones(3)) is None
    assert positions.constant(np.ones(positions.MAX_SIZE + 1, int)) is None
    assert positions.constant(jax.random.key(0)) is None
    found = []

    @jax.jit
    def traced(n):
        found.append(positions.constant(n))
        return n

    traced(np.arange(3))
    assert found == [None]
    np.testing.assert_array_equal(positions.constant(np.arange(3)), np.arange(3))


def test_columns_of_indices():
    known = positions.columns_of(N, 3)
    assert [list(c) for c in known] == [[2, 1], [0, 1], [1, 0]]
    assert positions.columns_of(None, 2) == (None, None)


@pytest.mark.parametrize(
    ("column", "shape", "places", "expected"),
    [
        (np.arange(4), (4, 5), [0], [(0, 0)]),
        (np.arange(4), (5, 4), [0], []),  # a part of the rows
        (np.arange(3), (4, 5), [0], []),
        (np.arange(4)[::-1], (4, 5), [0], []),
        (np.zeros(4, int), (4, 5), [0], []),
        (np.arange(4) + 1, (4, 5), [0], []),
        (np.arange(4)[:, None].repeat(2, 1), (4, 5), [3, 1], [(0, 3)]),
        (np.arange(4)[None].repeat(4, 0), (4, 5), [3, 1], [(0, 1)]),
        (np.arange(4), (4, 5), [None], []),
        (None, (4, 5), [0], []),
    ],
)
def test_aligned(column, shape, places, expected):
    assert positions.aligned([0], places, (column,), shape) == expected


def test_rows_that_are_looked_up_by_number_are_so_beyond_their_values():
    # What is said of a gather holds for the gather that runs.
    x = np.random.default_rng(0).normal(size=(4, 5))
    y = np.array([1, 0, 4, 2])
    program = flatten(lambda x, y: [x[jnp.arange(4), y]], x, y)
    (gather,) = [e for e in program.equations if e.name == "gather"]
    rows, others = gather.columns
    np.testing.assert_array_equal(rows, np.arange(4))
    assert others is None

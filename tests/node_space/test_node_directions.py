"""Directions of node space: drawn of a source, by number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.node_space.directions import REACH, Directions, draw
from qiaso_jax.program.axes import ExampleAxis

ROWS = jnp.arange(1, dtype=jnp.uint32)


@pytest.mark.parametrize("kind", REACH)
def test_directions_are_drawn_again_by_number(kind):
    directions = [
        Directions((300,), jnp.float32, kind),
        Directions((), "float32", kind),
    ]
    key = jax.random.key(0)

    def drawn(source_of, number):
        return directions[source_of].scaled(
            draw(key, directions, 5, ROWS)[source_of],
            jnp.int32(number),
            jnp.float32(2.0),
        )

    first = np.array([drawn(0, n) for n in range(5)])
    np.testing.assert_array_equal(first[3], drawn(0, 3))
    assert drawn(1, 0).shape == ()
    # Independent of each other, of unit variance: six standard errors of 300 draws.
    moments = first @ first.T / 300 / 4
    assert np.abs(moments - np.eye(5)).max() < 6 * np.sqrt(2 / 300)


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_pairs_signs_are_its_bits_of_the_words(dtype, width):
    with jax.enable_x64(True):
        words = np.random.default_rng(0).integers(
            2**width, size=(7, 5), dtype=np.uint64
        )
        factor = jnp.asarray(
            [[0.0], [0.5], [-0.25], [3.0], [1e-3], [-7.0], [1.0]], dtype
        )
        directions = Directions((7, 5), factor.dtype, "rademacher")
        source = jnp.asarray(words, f"uint{width}")
        for pair in range(width):
            signs = 1.0 - 2.0 * (words // 2**pair % 2)
            scaled = directions.scaled(source, jnp.int32(pair), factor)
            assert scaled.dtype == factor.dtype
            np.testing.assert_array_equal(
                scaled.astype(float), factor.astype(float) * signs
            )


@pytest.mark.parametrize(
    ("count", "width"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (32, 32)]
)
def test_words_are_as_wide_as_the_signs_that_they_hold(count, width):
    kinds = [Directions((2, 3), jnp.float32, "rademacher")] * 2
    words = draw(jax.random.key(0), kinds, count, ROWS)
    assert [w.shape for w in words] == [(2, 3), (2, 3)]
    assert {w.dtype for w in words} == {jnp.dtype(f"uint{width}")}
    assert draw(jax.random.key(0), [], count, ROWS) == []


@pytest.mark.parametrize("kind", REACH)
def test_sites_of_one_shape_move_independently(kind):
    directions = [Directions((2000,), jnp.float32, kind)] * 2
    sources = draw(jax.random.key(0), directions, 5, ROWS)
    a, b = (
        d.scaled(source, jnp.int32(3), jnp.ones(2000))
        for d, source in zip(directions, sources, strict=True)
    )
    # 6 standard errors.
    assert abs(float(jnp.mean(a * b))) < 6 / 2000**0.5


def test_complex_weights_spread_over_both_parts():
    directions = Directions((20_000,), jnp.complex64, "gaussian")
    (source,) = draw(jax.random.key(0), [directions], 1, ROWS)
    z = directions.scaled(source, jnp.int32(0), jnp.complex64(1))
    # 6 standard errors of a mean of |z|², whose standard deviation is 1.
    assert abs(float(jnp.mean(jnp.abs(z) ** 2)) - 1) < 6 / 20_000**0.5
    assert float(jnp.mean(z.imag**2)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kind", REACH)
def test_directions_reach_as_far_as_is_said(kind):
    directions = Directions((100_000,), jnp.float32, kind)
    (source,) = draw(jax.random.key(0), [directions], 1, ROWS)
    z = jnp.abs(directions.scaled(source, jnp.int32(0), jnp.ones(100_000)))
    # Of 10⁵ normal draws 6 are expected beyond 4, and 0.06 beyond 5.
    assert jnp.max(z) >= REACH[kind]
    assert jnp.sum(z > REACH[kind]) < 30


@pytest.mark.parametrize("kind", REACH)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 5), ExampleAxis(0, 1)),
        ((3, 4), ExampleAxis(1, 1)),
        ((2, 24, 3), ExampleAxis(1, 2)),  # three times 4 examples with 2 entries each
    ],
)
def test_examples_have_directions_of_their_own(shape, axis, kind):
    along, repeats = axis
    times = shape[along] // (4 * repeats)

    def drawn(rows):
        rows = jnp.asarray(rows, jnp.uint32)
        own = (*shape[:along], times * len(rows) * repeats, *shape[along + 1 :])
        directions = [
            Directions(own, jnp.float32, kind, axis),
            Directions((50,), jnp.float32, kind),
        ]
        sources = draw(jax.random.key(0), directions, 5, rows)
        z, shared = (
            d.scaled(source, jnp.int32(3), jnp.ones(d.shape))
            for d, source in zip(directions, sources, strict=True)
        )
        split = (*shape[:along], times, len(rows), repeats, *shape[along + 1 :])
        z = np.reshape(np.asarray(z), split)
        return np.moveaxis(z, along + 1, 0), np.asarray(shared)

    whole, shared = drawn([10, 11, 12, 13])
    part, still = drawn([13, 11])
    np.testing.assert_array_equal(part, whole[[3, 1]])
    np.testing.assert_array_equal(still, shared)
    assert np.any(whole[0] != whole[1])

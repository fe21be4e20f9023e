"""Random words and what is made of them, against the laws that they are to follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from qiaso_jax.words import (
    normals,
    packed_words,
    pairs_of_normals,
    pairs_of_signs,
    rows_of_pairs,
    signs_times,
    threefry,
)

both_impls = pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])


@both_impls
@pytest.mark.parametrize("fused", [False, True])
def test_rows_are_the_same_whatever_is_drawn_with_them(impl, fused):
    key = jax.random.key(5, impl=impl)
    together = rows_of_pairs(key, jnp.arange(9), [3, 0, 4], fused=fused)
    some = rows_of_pairs(key, jnp.array([7, 2]), [3, 0, 4], fused=not fused)
    assert [x.shape for pair in together for x in pair] == [(9, 3)] * 2 + [
        (9, 0)
    ] * 2 + [(9, 4)] * 2
    for whole, part in zip(together, some, strict=True):
        for x, y in zip(whole, part, strict=True):
            np.testing.assert_array_equal(np.asarray(x)[[7, 2]], y)
    words = np.concatenate([np.ravel(x) for pair in together for x in pair])
    # Of 126 words two are equal once in 10⁵ keys.
    assert len(np.unique(words)) == len(words) == 126


def test_threefry_is_that_of_jax():
    key = jax.random.key_data(jax.random.key(11))
    counters = jax.random.bits(jax.random.key(1), (2, 1000), jnp.uint32)
    np.testing.assert_array_equal(
        jnp.stack(threefry(key, *counters)), threefry_2x32(key, counters)
    )


@pytest.mark.slow
def test_normals_follow_their_law():
    rows, size = 100, 100_000
    (pair,) = rows_of_pairs(
        jax.random.key(3), jnp.arange(rows), [pairs_of_normals(size, jnp.float32)]
    )
    z = np.asarray(normals(pair, size, jnp.float32), np.float64)
    n = z.size
    # Standard errors of moments of n normal numbers. All bounds here are five of them:
    # together wrong for one key in 10⁵.
    squares = z * z
    assert abs(z.mean()) < 5 / n**0.5
    assert abs(squares.mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((squares * z).mean()) < 5 * (15 / n) ** 0.5
    assert abs((squares * squares).mean() - 3) < 5 * (96 / n) ** 0.5
    for sigma in range(1, 5):
        for sign in (1, -1):
            share = stats.norm.sf(sigma)
            bound = 5 * (share * (1 - share) / n) ** 0.5
            assert abs((sign * z > sigma).mean() - share) < bound
    # 5.7 are expected beyond 5; between 0 and 25 for all but 0.3 % of keys.
    assert 0 < np.count_nonzero(np.abs(z) > 5) < 25
    assert np.abs(z).max() < 5.5
    along = (z[:, :-1] * z[:, 1:]).mean()
    across = (z[:-1] * z[1:]).mean()
    halves = (z[:, : size // 2] * z[:, size // 2 :]).mean()
    for correlation in (along, across, halves):
        assert abs(correlation) < 5 / (n / 2) ** 0.5
    same_sizes = (squares[:, : size // 2] - 1) * (squares[:, size // 2 :] - 1)
    assert abs(same_sizes.mean()) < 5 * 2 / (n / 2) ** 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_normals_are_symmetric_and_never_infinite(dtype):
    with jax.enable_x64(True):
        ends = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
        pair = jnp.asarray(ends)[None], jnp.asarray(ends)[None]
        count = 6 if dtype == "float64" else 12
        z = np.asarray(normals(pair, count, dtype), np.float64)
        assert np.isfinite(z).all()
        largest = 8.3 if dtype == "float64" else 5.4
        assert np.abs(z).max() == pytest.approx(largest, abs=0.05)
        for half in z.reshape(-1, 6):
            np.testing.assert_array_equal(half, -half[::-1])
        if dtype != "float64":  # of which each is made of a pair of its own
            assert normals(pair, 11, dtype).shape == (1, 11)
        assert normals(pair, count, dtype).dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_are_quantiles(dtype):
    with jax.enable_x64(True):
        words = np.random.default_rng(0).integers(2**32, size=(2, 1, 500))
        pair = tuple(jnp.asarray(words, jnp.uint32))
        if dtype == "float64":
            drawn = ((words[0].astype(object) * 2**32 + words[1]) >> 11) + 0.5
            expected = stats.norm.ppf((drawn / 2.0**53).astype(float))
        else:
            drawn = np.concatenate(list(words >> 8), axis=1) + 0.5
            expected = stats.norm.ppf(drawn / 2.0**24)
        z = normals(pair, np.size(expected, 1), dtype)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(z, expected, rtol=tolerance, atol=tolerance)


SHAPES = [(), (1,), (7,), (50, 7), (3, 3, 64, 8), (1000,), (0,), (64, 0), (40, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_signs_are_fair_and_independent(shape):
    number, size = 3000, int(np.prod(shape))
    (pair,) = rows_of_pairs(
        jax.random.key(2), jnp.arange(number), [pairs_of_signs(shape)]
    )
    factor = 2.0 ** (jnp.arange(size) % 3).reshape(shape)
    words = jnp.concatenate(pair, axis=1)
    z = jax.vmap(lambda one: signs_times(one, factor))(words)
    assert z.shape == (number, *shape)
    signs = np.asarray(z / factor[None], np.float32).reshape(number, size)
    assert set(np.unique(signs)) <= {-1.0, 1.0}
    # Means, and correlations of up to 400 entries with each other and with those of
    # the next direction: six and a half standard errors; by a union bound wrong for
    # one key in 10⁴.
    bound = 6.5 / (number - 1) ** 0.5
    assert np.abs(signs.mean(axis=0)).max(initial=0) < bound
    some = signs[:, np.random.default_rng(0).permutation(size)[:400]]
    for lag in (0, 1):
        products = some[: number - lag].T @ some[lag:] / (number - lag)
        products -= np.eye(len(products)) * (lag == 0)
        assert np.abs(products).max(initial=0) < bound


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_signs_leave_sizes_as_they_are(dtype):
    with jax.enable_x64(True):
        factor = jnp.asarray(np.random.default_rng(0).normal(size=(33, 5)), dtype)
        words = jnp.full(2 * pairs_of_signs((33, 5)), 0xFFFFFFFF, jnp.uint32)
        np.testing.assert_array_equal(signs_times(words, factor), -factor)
        np.testing.assert_array_equal(signs_times(0 * words, factor), factor)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("width", [8, 16, 32])
def test_packed_words_are_fair_and_independent(width, impl):
    key, row = jax.random.key(3, impl=impl), jnp.arange(1)
    (words,) = np.asarray(packed_words(key, row, 100_002, width))
    assert words.dtype == np.dtype(f"uint{width}")
    assert words.shape == (100_002,)
    signs = 2.0 * ((words[:, None] >> np.arange(width, dtype=words.dtype)) & 1) - 1
    # Means and correlations of signs, within a word and to the next one or two: six
    # standard errors; by a union bound wrong once in 10⁵ seeds.
    bound = 6 / np.sqrt(len(words) - 4)
    assert abs(signs.mean(axis=0)).max() < bound
    for lag in range(5):
        products = signs[: len(signs) - lag].T @ signs[lag:] / (len(signs) - lag)
        if lag == 0:
            products -= np.eye(width)
        assert abs(products).max() < bound


@pytest.mark.parametrize(("width", "drawn"), [(8, 13), (16, 25), (32, 50)])
def test_no_more_bits_are_drawn_than_are_used(width, drawn):
    key = jax.random.key(0)
    jaxpr = jax.make_jaxpr(lambda key: packed_words(key, jnp.arange(1), 99, width))(key)
    # The counters, of which as many pairs of words are made.
    assert f"u32[2,1,{drawn}]" in str(jaxpr)
    assert f"u32[2,1,{drawn + 1}]" not in str(jaxpr)

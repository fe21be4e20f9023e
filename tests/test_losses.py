from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from qiaso_jax.amplitudes import LOSS_SCALINGS, scaled
from qiaso_jax.losses import Losses, measured, told

LARGEST = float(np.finfo(np.float32).max)
SHIFTED_INTEGERS = [2**33, 2**33 + 2**31, 2**32 + 10, 2**32 + 5]

finite_floats = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(finite_floats, st.integers(-(2**80), 2**80))


def of(losses, dtype=np.float32):
    return told(losses, dtype)


def zscores(losses):
    """In exact arithmetic, but for the root."""
    exact = [Fraction(x) for x in losses]
    mean = sum(exact) / len(exact)
    variance = sum((x - mean) ** 2 for x in exact) / len(exact)
    if not variance:
        return np.zeros(len(exact))
    signs = [1 if x > mean else -1 for x in exact]
    squares = [float((x - mean) ** 2 / variance) for x in exact]
    return np.array(signs) * np.sqrt(squares)


@settings(max_examples=200, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8))
def test_properties_told_losses_are_compared_exactly(losses):
    compared = of(losses)
    exact = [Fraction(x) for x in losses]
    if bool(compared.equal):
        spread = max(exact) - min(exact)
        assert spread <= 4 * 2**-52 * max(map(abs, exact))
        return
    ranks = scipy.stats.rankdata(
        [sorted(set(exact)).index(x) for x in exact], method="average"
    )
    centred = (ranks - 1) / max(len(exact) - 1, 1) - 0.5
    np.testing.assert_allclose(
        scaled(LOSS_SCALINGS["rank"], compared), centred, atol=1e-6
    )
    np.testing.assert_allclose(
        scaled(LOSS_SCALINGS["zscore"], compared), zscores(losses), atol=2e-5
    )
    excess = [float(min(x - min(exact), Fraction(LARGEST))) for x in exact]
    np.testing.assert_allclose(compared.excess, excess, rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (SHIFTED_INTEGERS, [0.24, 1.02, -0.63, -0.63]),
        (1e9 + np.arange(4.0), zscores(range(4))),
        ([1, 2, 3, 1e38], [-0.577, -0.577, -0.577, 1.732]),
        ([1, 2, 3, 1e300], [-0.577, -0.577, -0.577, 1.732]),
        ([1e-320, 2e-320, 3e-320, 4e-320], zscores(range(4))),
        ([-1.7e308, 1.7e308], [-1, 1]),
        ([2**2000, 2**2000 + 2, 2**2000 + 4], zscores(range(3))),
        ([2**2000, 0.5, 0], [1.414, -0.707, -0.707]),
        ([0.3, float("nan"), 0.1], [1, 0, -1]),
        ([2**70, float("inf"), 2**70 + 1], [-1, 0, 1]),
        ([jnp.float32(2), np.int64(1), 3], zscores([2, 1, 3])),
    ],
)
def test_zscores_of_what_is_told(losses, expected):
    if losses is SHIFTED_INTEGERS:
        expected = zscores(losses)
    np.testing.assert_allclose(
        scaled(LOSS_SCALINGS["zscore"], of(losses)), expected, atol=1e-3
    )


@pytest.mark.parametrize("name", [None, "zscore", "rank"])
@pytest.mark.parametrize("magnitude", [1e-35, 1e-20, 1.0, 1e20, 1e37])
def test_scalings_at_every_magnitude(name, magnitude):
    losses = np.array([1.0, 2.0, 3.5, -4.0])
    of_one = scaled(LOSS_SCALINGS[name], measured(jnp.float32(losses), jnp.float32))
    values = jnp.asarray(losses * magnitude, jnp.float32)
    got = jax.jit(lambda x: scaled(LOSS_SCALINGS[name], measured(x, jnp.float32)))(
        values
    )
    unit = magnitude if name is None else 1
    np.testing.assert_allclose(got, np.float64(of_one) * unit, rtol=1e-5)


def test_a_penalty_is_one():
    for losses in ([1, 2, 3, 1e38], [-3e38, -3e38, -3e38, 3e38]):
        got = scaled(
            LOSS_SCALINGS["zscore"], measured(jnp.float32(losses), jnp.float32)
        )
        np.testing.assert_allclose(got, [-0.577, -0.577, -0.577, 1.732], atol=1e-3)


def test_what_is_told_is_reported_as_told():
    compared = of([3.0, float("inf"), float("nan"), -1e300, 1e300, 2**40])
    np.testing.assert_array_equal(
        compared.value, np.float32([3, np.inf, np.nan, -LARGEST, LARGEST, 2.0**40])
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("level", [0.0, 1.0, -37.5, 1000.0])
def test_what_rounding_makes_of_equals_counts_as_equal(dtype, level):
    eps = float(jnp.finfo(dtype).eps)
    below = jnp.asarray([level, level * (1 + 2 * eps), level], dtype)
    above = jnp.asarray([level, level * (1 + 16 * eps), level], dtype)
    assert bool(measured(below, jnp.float32).equal)
    assert bool(measured(above, jnp.float32).equal) == (level == 0)
    assert bool(of(below).equal)
    assert bool(of(above).equal) == (level == 0)


def test_equal_losses_are_those_of_the_finite_candidates():
    losses = jnp.array([[1.0, 1.0], [jnp.nan, 2.0], [1.0, jnp.inf]])
    np.testing.assert_array_equal(measured(losses, jnp.float32).equal, [True, False])
    # Integers are exact.
    assert not bool(of([2**60, 2**60 + 1]).equal)
    assert bool(of([2**60, 2**60]).equal)
    # Each scaling says 0 of equal losses, and what it says of others.
    near = measured(jnp.float32([1.0, 1.0 + 1e-7, jnp.nan]), jnp.float32)
    for scale in LOSS_SCALINGS.values():
        np.testing.assert_array_equal(scaled(scale, near)[:2], [0, 0])


def test_double_losses_of_single_weights_keep_their_digits():
    with jax.enable_x64(True):
        losses = jnp.asarray(1e9 + np.arange(4.0))
        compared = measured(losses, jnp.float32)
        assert compared.value.dtype == compared.excess.dtype == jnp.float32
        np.testing.assert_array_equal(compared.excess, [0, 1, 2, 3])
        np.testing.assert_allclose(
            scaled(LOSS_SCALINGS["zscore"], compared), zscores(range(4)), rtol=1e-5
        )
        assert measured(jnp.asarray([1e300]), jnp.float32).value == np.float32(LARGEST)


def test_what_is_compared_already_stays_as_it_is():
    compared = of([1.0, 2.0])
    assert isinstance(compared, Losses)
    assert measured(compared, jnp.float64) is compared


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, None],
        "12",
        3.0,
        None,
        [True, False],
        np.array([True, False]),
        [1j, 0j],
        np.array([1j, 0j]),
        [object(), 1.0],
        np.array(["a", "b"]),
    ],
)
def test_what_is_no_loss_is_named(losses):
    with pytest.raises(TypeError, match="losses must be a sequence of real numbers"):
        of(losses)


@pytest.mark.parametrize("steps", range(2, 8))
@pytest.mark.parametrize("most", [1.25, -1.25 + 5 * 2**-23, 1.5])
def test_equal_up_to_four_roundings_of_the_largest(most, steps):
    eps = 2.0**-23
    losses = jnp.float32([most, most - steps * eps])
    expected = steps * eps <= 4 * eps * np.max(np.abs(np.float64(losses)))
    assert bool(measured(losses, jnp.float32).equal) == expected
    assert bool(of(losses).equal) == expected


def test_further_axes_are_compared_each_for_itself():
    losses = np.random.default_rng(0).normal([0, 10, -100, 1], size=(5, 4))
    losses[2, 1], losses[:, 3] = np.nan, 7.0
    losses = jnp.float32(losses)
    together = measured(losses, jnp.float32)
    for b in range(4):
        alone = measured(losses[:, b], jnp.float32)
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(many[:, b], one)
        assert together.equal[b] == alone.equal

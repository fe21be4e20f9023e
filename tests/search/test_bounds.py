import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qiaso_jax.search.bounds import Box, box, into, num_free, projected, spread

SIZE = 8
"""Points that a compiled reflection takes at a time."""

reflect = jax.jit(into)


def reflected(x, low, high, dtype):
    """What ``into`` makes of single numbers, all of them as arrays of one shape."""
    with jax.enable_x64(dtype == np.float64):
        arrays = (np.full(SIZE, value, dtype) for value in (low, high))
        return np.asarray(reflect(Box(*arrays), np.resize(x, SIZE).astype(dtype)))


def mirrored(x, low, high):
    """Reflects at one bound or two, in rational numbers."""
    if low <= x <= high:
        return Fraction(x)
    if math.isinf(high):
        return 2 * Fraction(low) - Fraction(x)
    if math.isinf(low):
        return 2 * Fraction(high) - Fraction(x)
    width = Fraction(high) - Fraction(low)
    phase = (Fraction(x) - Fraction(low)) % (2 * width) if width else 0
    return Fraction(low) + min(phase, 2 * width - phase)


@st.composite
def boxes(draw, largest=1.0):
    """A dtype, two bounds of it, and a point; ``largest`` is relative to its range."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    most = float(np.finfo(dtype).max) * largest
    most = float(np.nextafter(dtype(most), dtype(0)))
    numbers = st.floats(
        -most, most, width=np.finfo(dtype).bits, allow_subnormal=False
    ).map(dtype)
    first, x = draw(numbers), draw(numbers)
    with np.errstate(all="ignore"):
        second = draw(
            st.one_of(
                numbers,
                st.just(dtype(np.inf)),
                st.just(dtype(-np.inf)),
                st.just(np.nextafter(first, dtype(np.inf))),
                st.integers(-30, 0).map(lambda e: first * dtype(1 + 2.0**e)),
            )
        )
    low, high = sorted((first, second))
    # To XLA subnormal numbers are 0; a width may be one all the same.
    assume(all(v == 0 or abs(v) >= np.finfo(dtype).tiny for v in (low, high)))
    return dtype, low, high, x


@settings(max_examples=300, deadline=None)
@given(boxes(), st.floats(0, 1))
def test_a_point_inside_stays_bit_for_bit(drawn, where):
    dtype, low, high, x = drawn
    with np.errstate(all="ignore"):
        between = dtype(low + (high - low) * where)
    inside = [v for v in (low, high, between, x) if low <= v <= high]
    inside = np.array([v for v in inside if np.isfinite(v)], dtype)
    inside[np.abs(inside) < np.finfo(dtype).tiny] = 0
    inside = inside[(low <= inside) & (inside <= high)]
    if inside.size:
        np.testing.assert_array_equal(
            reflected(inside, low, high, dtype).view(np.uint8),
            np.resize(inside, SIZE).view(np.uint8),
        )


@settings(max_examples=300, deadline=None)
@given(boxes(largest=0.2))
@example((np.float32, np.float32(1.2e-37), np.float32(1.2000001e-37), np.float32(3)))
@example((np.float32, np.float32(-1e6), np.float32(1e6), np.float32(1e30)))
@example((np.float32, np.float32(0.3), np.float32(0.3), np.float32(7)))
def test_points_are_mirrored_as_in_rational_numbers(drawn):
    dtype, low, high, x = drawn
    found = Fraction(float(reflected([x], low, high, dtype)[0]))
    magnitude = max(abs(float(v)) for v in (x, low, high) if np.isfinite(v))
    limits = np.finfo(dtype)
    tolerance = 8 * float(limits.eps) * magnitude + 4 * float(limits.tiny)
    assert abs(found - mirrored(float(x), float(low), float(high))) <= tolerance


@settings(max_examples=300, deadline=None)
@given(boxes())
@example((np.float32, np.float32(-3e38), np.float32(3e38), np.float32(3.4e38)))
@example((np.float32, np.float32(3e38), np.float32(3.3e38), np.float32(-3e38)))
@example((np.float32, np.float32(1e38), np.float32(np.inf), np.float32(-3e38)))
@example((np.float32, np.float32(0), np.float32(1), np.float32(np.inf)))
def test_results_are_numbers_within_the_bounds(drawn):
    dtype, low, high, x = drawn
    found = reflected([x, -x], low, high, dtype)
    assert np.isfinite(found).all()
    assert (low <= found).all()
    assert (found <= high).all()


def test_no_step_of_a_reflection_is_not_a_number():
    low = np.array([-np.inf, -np.inf, 0, 0, 2, 2], np.float32)
    high = np.array([np.inf, 1, np.inf, 1, 2, 2], np.float32)
    x0 = jnp.clip(jnp.zeros(6), low, high)
    with jax.debug_nans(True):
        found = into(box((low, high), x0), jnp.array([5.0, 3, -3, 1.25, 9, -9]))
    np.testing.assert_array_equal(found, [5, -1, 3, 0.75, 2, 2])


def test_half_precision_is_reflected_in_its_own():
    x0 = jnp.zeros(3, jnp.bfloat16)
    found = into(box((-1.0, 1.0), x0), jnp.array([0.25, 1.5, -3.0], jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(jnp.float32), [0.25, 0.5, 1.0])


def test_integers_are_not_reflected():
    x0 = {"x": jnp.zeros(2), "n": jnp.array([5])}
    found = into(box((-1.0, 1.0), x0), {"x": jnp.full(2, 1.5), "n": x0["n"]})
    np.testing.assert_allclose(found["x"], [0.5, 0.5])
    np.testing.assert_array_equal(found["n"], [5])


def test_bounds_are_prefixes_of_the_start():
    x0 = {"a": (jnp.zeros(2), jnp.zeros(())), "b": jnp.zeros((2, 3))}
    within = box(({"a": -1.0, "b": np.arange(3) - 3.0}, np.inf), x0)
    low = np.broadcast_arrays(within.lower["b"], np.zeros((2, 3)))[0]
    np.testing.assert_array_equal(low, [[-3, -2, -1]] * 2)
    far = jax.tree.map(lambda x: x - 3.5, x0)
    np.testing.assert_array_equal(into(within, far)["b"], [[-2.5, -0.5, 1.5]] * 2)
    np.testing.assert_array_equal(projected(within, far)["a"][0], [-1, -1])


def test_equal_bounds_fix_a_coordinate():
    x0 = {"a": jnp.zeros(3), "n": jnp.arange(2)}
    within = box((np.array([-1.0, 2, 0]), np.array([1.0, 2, 0])), x0["a"])
    assert num_free(within, x0["a"]) == 1
    np.testing.assert_array_equal(spread(0.5, within, x0["a"]), [0.5, 0, 0])
    ignored = spread(np.array([1, 0, np.nan]), within, x0["a"])
    np.testing.assert_array_equal(ignored, [1, 0, 0])
    np.testing.assert_array_equal(projected(within, x0["a"]), [0, 2, 0])
    everything = box((0.0, {"a": np.zeros(3), "n": 1.0}), x0)
    with pytest.raises(ValueError, match="bounds must leave a coordinate of x0 free"):
        num_free(everything, x0)


def test_the_spread_is_a_third_of_the_widths_unless_given():
    x0 = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    within = box(({"a": 0.0, "b": -3e38}, {"a": np.array([3.0, 6e-6]), "b": 3e38}), x0)
    thirds = spread(None, within, x0)
    np.testing.assert_allclose(thirds["a"], [1, 2e-6], rtol=1e-6)
    np.testing.assert_allclose(thirds["b"], 2e38, rtol=1e-6)
    given_by_leaf = spread({"a": np.array([1, 2]), "b": 3}, within, x0)
    np.testing.assert_array_equal(given_by_leaf["a"], [1, 2])
    assert given_by_leaf["b"] == 3


@pytest.mark.parametrize(
    ("sigma", "bounds", "error", "sentence"),
    [
        (None, None, ValueError, "sigma must be given, or bounds finite everywhere"),
        (None, (0.0, np.inf), ValueError, "sigma must be given, or bounds finite"),
        (np.array([1.0, 0.0]), None, ValueError, "sigma must be finite and above 0"),
        (np.array([1.0, np.nan]), None, ValueError, "sigma must be finite and above"),
        (1e39, None, ValueError, "sigma must be finite and above 0"),
        (np.ones(3), None, ValueError, r"sigma must broadcast to.*\(2,\).*got.*\(3,\)"),
        ([1.0, 1.0], None, ValueError, "sigma must be a number or an array"),
        (True, None, TypeError, "sigma must be real numbers, got dtype bool"),
        ("wide", None, TypeError, "sigma must be real numbers, got dtype <U4"),
        (1.0, (np.nan, 1.0), ValueError, "bounds must have lower <= upper"),
        (1.0, (np.inf, np.inf), ValueError, "bounds must have.*numbers between"),
        (1.0, (-np.inf, -np.inf), ValueError, "bounds must have.*numbers between"),
        (1.0, (0.0, 1j), TypeError, "The upper bound must be real numbers"),
    ],
)
def test_what_cannot_be_searched_is_named(sigma, bounds, error, sentence):
    x0 = jnp.zeros(2)
    with pytest.raises(error, match=sentence):
        spread(sigma, box(bounds, x0), x0)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.search import stopping
from qiaso_jax.search.result import MinimizeStatus

EPSILON = float(np.finfo(np.float32).eps)


def after(*steps):
    """The stretch after some steps, each a list of values."""
    stretch, best = stopping.empty(jnp.float32), jnp.inf
    for values in steps:
        values = jnp.asarray(values, jnp.float32)
        best = jnp.minimum(best, jnp.min(jnp.where(jnp.isfinite(values), values, 1e9)))
        stretch = stopping.extended(stretch, values, best, EPSILON)
    return stretch


def test_a_stretch_counts_equal_steps_until_values_differ():
    assert (after([1, 1], [1, 1]).length, after([1, 1]).differed) == (2, False)
    stretch = after([1, 1], [1, 2], [1, 1])
    assert (stretch.length, stretch.differed) == (1, True)


@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-30, 3e38])
def test_equal_is_within_four_epsilons_of_the_magnitude(scale):
    near, far = 1 - 3.5 * EPSILON, 1 - 5 * EPSILON
    assert after(np.multiply(scale, [1, near])).length == 1
    assert after(np.multiply(scale, [1, far])).length == 0
    assert after([scale], [scale * near]).length == 2
    assert after([0, 0]).length == 1


def test_a_slow_descent_is_no_stretch():
    # Each step is within four epsilons of the one before.
    stretch = after(*([1 - 2 * EPSILON * step] * 4 for step in range(40)))
    assert stretch.length < 4
    assert stretch.differed


def test_a_plateau_above_the_best_value_is_no_stretch():
    assert after([2, 1], *[[2, 2]] * 20).length == 0


def test_steps_without_a_finite_value_do_not_count():
    stretch = after([np.nan, np.inf], [1, 1, -np.inf], [np.nan] * 2)
    assert (stretch.length, stretch.differed) == (1, False)
    assert after([-3e38, 3e38]).differed


def test_sigma_halves_within_the_patience():
    for size, rate in [(100, 0.5), (30, 1.4)]:
        steps = stopping.patience(size, rate)
        assert np.exp(-rate / size * steps) <= 0.5 < np.exp(-rate / size * (steps - 1))
    assert stopping.patience(1, 0.5) == 5


@pytest.mark.parametrize(
    ("best", "length", "differed", "steps_left", "expected"),
    [
        (1.0, 9, True, 0, MinimizeStatus.TARGET_REACHED),
        (1.5, 9, True, 1, MinimizeStatus.CONVERGED),
        (1.5, 9, True, 0, MinimizeStatus.CONVERGED),
        (1.5, 9, False, 1, MinimizeStatus.RUNNING),
        (1.5, 9, False, 0, MinimizeStatus.FLAT),
        (1.5, 8, True, 1, MinimizeStatus.RUNNING),
        (1.5, 8, True, 0, MinimizeStatus.BUDGET_SPENT),
        (np.inf, 0, False, 1, MinimizeStatus.RUNNING),
        (np.inf, 0, False, 0, MinimizeStatus.NO_FINITE_VALUE),
    ],
)
def test_status(best, length, differed, steps_left, expected):
    stretch = stopping.Stretch(best, jnp.asarray(length), jnp.asarray(differed))
    status = jax.jit(stopping.status)(best, stretch, steps_left, 1.0, 9)
    assert status.dtype == jnp.int32
    assert MinimizeStatus(int(status)) is expected

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qiaso_jax import factorised_qiaso, qiaso, relative
from qiaso_jax.spread import check_sigma, spread, unresolved
from qiaso_jax.superposition import Superposition

PARAMS = {"w": jnp.full((2, 3), 2.0), "b": jnp.array([3.0, 4.0])}
STEP = jnp.int32(5)


@pytest.mark.parametrize(
    ("sigma", "w", "b"),
    [
        (0.1, 0.1, 0.1),
        (lambda t: 0.05 * (t + 5), 0.5, 0.5),
        ({"w": 0.1, "b": lambda t: (t + 5) / 20}, 0.1, 0.5),
        (lambda t: {"w": 0.05 * (t + 5), "b": 0.2}, 0.5, 0.2),
        ({"w": 0.1, "b": np.array([1.0, 2.0])}, 0.1, [1, 2]),
        ({"w": jnp.array([1.0, 2.0, 3.0]), "b": 1.0}, [[1, 2, 3]] * 2, 1),
        (relative(0.1), 0.2, 0.1 * np.sqrt(12.5)),
        ({"w": relative(lambda t: (t + 5) / 20), "b": 0.3}, 1.0, 0.3),
    ],
)
def test_the_spread_of_every_leaf(sigma, w, b):
    check_sigma(sigma)
    of = spread(sigma, STEP, PARAMS)
    for name, expected in (("w", w), ("b", b)):
        shape = PARAMS[name].shape
        np.testing.assert_allclose(
            np.broadcast_to(of[name], shape), np.broadcast_to(expected, shape), 1e-6
        )


@pytest.mark.parametrize("make", [qiaso, factorised_qiaso])
def test_candidates_have_the_spread_of_their_leaf(make):
    sigma = {"w": jnp.array([[1.0, 1e-3, 1e3]]), "b": 0.0625}
    tx = make(8, sigma, collapse_every=2)
    of_one = make(8, 1.0, collapse_every=2).init(PARAMS).candidates
    candidates = tx.init(PARAMS).candidates
    np.testing.assert_allclose(
        candidates["w"], np.asarray(of_one["w"]) * np.array([1, 1e-3, 1e3]), rtol=1e-6
    )
    np.testing.assert_array_equal(candidates["b"], of_one["b"] / 16)


def test_six_coordinates_of_very_different_ranges():
    """As the unit cube by hand, of which each coordinate is a unit of its own."""
    width = jnp.array([1e-6, 1e-3, 1.0, 1e2, 1e4, 1e6])

    def loss(x):
        return jnp.sum((x / width - 0.3) ** 2)

    def reached(sigma, x0, loss):
        tx = qiaso(40, lambda t: 1e-2 ** (t / 100) * sigma)

        def step(carry, _):
            x, state = carry
            updates, state = tx.update(None, state, x, value_fn=loss)
            return (optax.apply_updates(x, updates), state), None

        carry, _ = jax.lax.scan(step, (x0, tx.init(x0)), length=400)
        return float(loss(carry[0]))

    by_hand = reached(0.3, jnp.zeros(6), lambda y: jnp.sum((y - 0.3) ** 2))
    by_sigma = reached(0.3 * width, jnp.zeros(6), loss)
    assert by_hand < 1e-9
    assert by_sigma < 10 * by_hand + 1e-12


@pytest.mark.parametrize(
    ("sigma", "error", "sentence"),
    [
        ({"w": 0.1, "b": -1.0}, ValueError, r"sigma\['b'\] must be .* above 0, got -1"),
        ({"w": 0.1, "b": "x"}, TypeError, r"sigma\['b'\] must be a real number"),
        (np.array([0.1, 0.0]), ValueError, "sigma must be finite and above 0, got 0"),
        (np.array([0.1, np.inf]), ValueError, "sigma must be finite and above 0"),
        ({}, TypeError, "sigma must be a real number, got {}"),
    ],
)
def test_a_bad_sigma_is_named(sigma, error, sentence):
    with pytest.raises(error, match=sentence):
        qiaso(sigma=sigma)


@pytest.mark.parametrize(
    ("sigma", "sentence"),
    [
        ({"v": 0.1}, "sigma must be a number, .* or a pytree of these"),
        ({"w": jnp.ones(4), "b": 1.0}, r"broadcasts to \(2, 3\), .*params\['w'\]; got"),
        ({"w": 1.0, "b": jnp.ones((1, 2))}, r"params\['b'\]; got shape \(1, 2\)"),
    ],
)
def test_a_sigma_that_does_not_fit_is_named(sigma, sentence):
    tx = qiaso(4, sigma)
    with pytest.raises(ValueError, match=sentence):
        tx.update(
            None, tx.init(PARAMS), PARAMS, value_fn=lambda p: jnp.sum(p["b"] ** 2)
        )


@pytest.mark.parametrize("factor", [0.0, -1.0, np.inf])
def test_a_relative_spread_is_above_zero(factor):
    with pytest.raises(ValueError, match="factor must be finite and above 0"):
        relative(factor)


def test_a_relative_spread_needs_values():
    tx = qiaso(4, relative(0.1), collapse_every=2)
    with pytest.raises(ValueError, match=r"relative to params\['b'\] needs its values"):
        tx.init(jax.eval_shape(lambda: PARAMS))


@pytest.mark.parametrize(
    ("schedule", "step"),
    [
        (optax.linear_schedule(0.1, 0.0, 1000), 1000),
        (optax.cosine_decay_schedule(0.1, 777), 777),
        (optax.linear_schedule(0.0, 0.1, 10), 0),
        (optax.constant_schedule(0.0), 0),
        (lambda t: {"w": 0.1, "b": 0.1 - 0.001 * t}, 100),
        (lambda t: jnp.array([0.1, 0.1 - 0.001 * t]), 100),
    ],
)
def test_a_schedule_that_reaches_zero_is_warned_of(schedule, step):
    with pytest.warns(UserWarning, match=f"sigma is 0 at step {step}"):
        qiaso(sigma=schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        optax.exponential_decay(0.1, 10, 0.5),
        lambda t: 0.1 / (1 + t),
        optax.cosine_decay_schedule(0.1, 777, alpha=0.01),
        lambda t: relative(0.1),
    ],
)
def test_one_that_ends_above_it_or_never_is_not(schedule):
    qiaso(sigma=schedule)


def test_a_schedule_of_what_is_not_known_is_not_looked_at():
    def first_offset(sigma):
        tx = qiaso(4, lambda t: sigma * 0.9**t, collapse_every=2)
        return tx.init(jnp.ones(3)).candidates[0, 0]

    one, two = jax.vmap(first_offset)(jnp.array([0.1, 0.2]))
    assert two == pytest.approx(2 * float(one))


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64]
)
def test_unresolved_is_what_rounding_leaves_as_it_is(dtype):
    """Against the sum itself, in double precision and rounded."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=400) * 10.0 ** rng.uniform(-4, 2, 400), dtype)
    weights = weights.at[:3].set(0)
    for sigma in (1e-7, 1e-4, 1e-2, 1.0):
        real = np.float64(jnp.real(weights))
        rounded = (real + np.sign(real) * sigma).astype(jnp.finfo(dtype).dtype)
        expected = np.mean(np.float64(rounded) == real)
        got = float(unresolved(weights, jnp.asarray(sigma)))
        assert got == pytest.approx(expected, abs=0.01)


def test_unresolved_of_no_spread_and_of_no_weights():
    assert unresolved({"x": jnp.zeros(3), "y": None}, {"x": jnp.array(0.0)}) == 1
    assert unresolved(jnp.zeros((0, 3)), jnp.array(0.1)) == 0
    half = {"x": jnp.full(4, 1e6), "y": jnp.ones(4)}
    assert unresolved(half, {"x": jnp.array(1e-3), "y": jnp.array(1e-3)}) == 0.5


@pytest.mark.parametrize("make", [qiaso, factorised_qiaso])
def test_offsets_below_the_resolution_are_reported(make):
    params = jnp.full(3, 4, jnp.bfloat16)
    for sigma, share in ((1e-3, 1), (0.1, 0)):
        tx = make(10, sigma)
        updates, state = tx.update(
            None, tx.init(params), params, value_fn=lambda p: jnp.sum(p**2)
        )
        assert state.info.unresolved == share
        assert bool(jnp.any(updates != 0)) == (share == 0)


def test_a_scalar_spread_is_that_of_all_leaves():
    layout = Superposition(6, True, False)
    key = jax.random.key(0)
    each = {"w": jnp.full((2, 3), 0.5), "b": jnp.full(2, 0.5)}
    for one, other in zip(
        jax.tree.leaves(layout.offsets(key, PARAMS, spread(0.5, jnp.int32(0), PARAMS))),
        jax.tree.leaves(layout.offsets(key, PARAMS, each)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_half_of_the_spacing_is_lost():
    spacing = float(jnp.finfo(jnp.float32).eps)
    at_half, above = jnp.float32([0.5, 0.51]) * spacing
    assert 1 + at_half == 1 != 1 + above
    assert unresolved(jnp.ones(1), at_half) == 1
    assert unresolved(jnp.ones(1), above) == 0

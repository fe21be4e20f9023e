import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import gaussian_tunnelling

K = 200
LOG_P = jnp.full((K,), -np.log(K)).at[7].add(0.5)
OFFSETS = {"x": jnp.zeros((K, 50)), "n": None}


def jumps(tunnelling, step=0, losses=None, offsets=OFFSETS, seed=0):
    return tunnelling.jump(
        jax.random.key(seed),
        jnp.asarray(step),
        offsets,
        LOG_P,
        jnp.zeros(K) if losses is None else losses,
    )


@pytest.mark.parametrize("step", [0, 1, 100, 5000])
def test_the_probability_decays_exponentially(step):
    tunnelling = gaussian_tunnelling(0.02, 0.8, 0.995, transition_steps=3)
    alpha = -np.log(0.995) / 3
    assert tunnelling.probability(jnp.asarray(step)) == pytest.approx(
        0.8 * np.exp(-alpha * step), rel=1e-4
    )


@pytest.mark.slow
def test_each_candidate_but_the_best_jumps_with_the_probability():
    certain, moved = jumps(gaussian_tunnelling(0.1, 1.0))
    assert moved == K - 1
    assert not certain["x"][7].any()
    assert (np.delete(np.asarray(certain["x"]), 7, axis=0) != 0).all()

    _, moved = jax.vmap(lambda s: jumps(gaussian_tunnelling(0.1, 0.3), seed=s))(
        jnp.arange(20)
    )
    trials = 20 * (K - 1)
    # 5 standard deviations of a binomial: fails for one seed in about 10^6.
    assert abs(int(moved.sum()) - 0.3 * trials) < 5 * (0.21 * trials) ** 0.5

    none, moved = jumps(gaussian_tunnelling(0.1, 0.0))
    assert moved == 0
    np.testing.assert_array_equal(none["x"], OFFSETS["x"])


def test_the_count_is_of_the_candidates_that_moved():
    offsets, moved = jumps(gaussian_tunnelling(0.1, 0.3))
    assert moved == np.count_nonzero(np.asarray(offsets["x"]).any(axis=1))


def test_jumps_are_gaussian_of_the_given_length():
    offsets, _ = jumps(gaussian_tunnelling(0.1, 1.0, sigma=3.0))
    x = np.delete(np.asarray(offsets["x"]), 7, axis=0)
    assert x.std() == pytest.approx(0.3, rel=5 / (2 * x.size) ** 0.5)
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 5 / K**0.5


def test_jumps_add_to_the_offsets():
    start = {"x": jnp.ones((K, 50)), "n": None}
    tunnelling = gaussian_tunnelling(0.1, 0.5)
    from_zero, _ = jumps(tunnelling)
    from_one, _ = jumps(tunnelling, offsets=start)
    np.testing.assert_allclose(from_one["x"] - 1, from_zero["x"], atol=1e-6)
    assert from_one["n"] is None


@pytest.mark.parametrize(("gate", "sign"), [("as_printed", +1), ("as_described", -1)])
def test_the_gate_follows_the_loss(gate, sign):
    losses = jnp.linspace(-3, 3, K)
    plain, _ = jumps(gaussian_tunnelling(0.1, 1.0))
    gated, _ = jumps(
        gaussian_tunnelling(0.1, 1.0, gate=gate, gate_slope=2.0, gate_scale=1.5),
        losses=losses,
    )
    moved = np.arange(K) != 7
    ratio = np.asarray(gated["x"])[moved] / np.asarray(plain["x"])[moved]
    factor = 1.5 / (1 + np.exp(sign * 2.0 * np.linspace(-3, 3, K)))[moved]
    np.testing.assert_allclose(ratio, np.repeat(factor[:, None], 50, 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("gate", "jumped"), [("as_printed", 0), ("as_described", K - 1)]
)
def test_a_loss_that_overflowed_counts_as_the_highest(gate, jumped):
    offsets, _ = jumps(
        gaussian_tunnelling(0.1, 1.0, gate=gate), losses=jnp.full(K, jnp.nan)
    )
    assert np.isfinite(offsets["x"]).all()
    assert np.count_nonzero(np.asarray(offsets["x"]).any(axis=1)) == jumped


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"epsilon": 0.0}, ValueError, "epsilon must be finite and above 0, got 0"),
        (
            {"initial_probability": 1.5},
            ValueError,
            "initial_probability must be finite",
        ),
        ({"initial_probability": -0.1}, ValueError, "initial_probability must be"),
        ({"decay": 1.1}, ValueError, "decay must be finite and above 0 and at most 1"),
        ({"sigma": 0.0}, ValueError, "sigma must be finite and above 0, got 0"),
        ({"gate_scale": -1.0}, ValueError, "gate_scale must be finite and at least 0"),
        ({"decay": 0.0}, ValueError, "decay must be finite and above 0 and at most 1"),
        ({"gate": "open"}, ValueError, "gate must be one of None, 'as_printed'"),
        ({"sigma": "wide"}, TypeError, "sigma must be a real number, got 'wide'"),
        ({"transition_steps": 0}, ValueError, "transition_steps must be at least 1"),
        ({"gate_slope": np.nan}, ValueError, "gate_slope must be finite, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        gaussian_tunnelling(**arguments)


def test_by_default_the_probability_falls_from_one_and_jumps_are_short():
    plain = gaussian_tunnelling()
    assert plain == gaussian_tunnelling(
        0.02, 1.0, 0.995, transition_steps=1, sigma=1.0, gate=None
    )
    gated, _ = jumps(gaussian_tunnelling(gate="as_described"), losses=jnp.ones(K))
    free, _ = jumps(plain)
    np.testing.assert_allclose(gated["x"], free["x"] / (1 + np.exp(-1.0)), rtol=1e-5)


def test_the_count_is_a_32_bit_integer():
    with jax.enable_x64(True):
        _, moved = jumps(gaussian_tunnelling(0.1, 0.3))
    assert moved.dtype == jnp.int32


def test_jumps_have_the_dtype_of_the_offsets():
    start = jnp.zeros((K, 3), jnp.bfloat16)
    offsets, _ = jumps(gaussian_tunnelling(0.1, 1.0), offsets=start)
    assert offsets.dtype == jnp.bfloat16

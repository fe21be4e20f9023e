import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiaso_jax import MinimizeStatus, minimize
from qiaso_jax.search import covariance
from qiaso_jax.search.covariance import DIAGONAL, FULL
from qiaso_jax.search.low_rank import LOW_RANK

SIZE, NUMBER = 5, 8


def random_state(kind, size=SIZE):
    """A superposition that has come some way, in float64."""
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(size, size)) / 3 + np.eye(size)
    matrix = factor @ factor.T
    if kind is DIAGONAL:
        matrix = np.diag(matrix)
    begun = covariance.begun(kind, jnp.asarray(rng.normal(size=size)), jnp.array(0.7))
    begun = begun._replace(covariance=jnp.asarray(matrix))
    _, root, scale = kind.renewed(begun)
    return begun._replace(
        root=scale * root,
        path=jnp.asarray(rng.normal(size=size)),
        path_sigma=jnp.asarray(rng.normal(size=size)),
        age=jnp.asarray(9, jnp.int32),
    )


def stepped(kind, gaussian, z, p):
    w = p - 1 / len(p)
    w = covariance.tempered(kind, gaussian.mean.size, p, w)
    found = covariance.moments(kind, gaussian, z, p, w)
    return covariance.collapsed(kind, gaussian, found, p, w)


@pytest.mark.parametrize("number", [NUMBER, 16, 40])
@pytest.mark.parametrize("kind", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_one_step_by_numpy(kind, number):
    with jax.enable_x64(True):
        before = random_state(kind)
        rng = np.random.default_rng(4)
        z, p = rng.normal(size=(number, SIZE)), rng.dirichlet(np.ones(number))
        after = stepped(kind, before, jnp.asarray(z), jnp.asarray(p))
        n, mass = SIZE, 1 / np.sum(p**2)
        rate = covariance.rates(kind, n, jnp.asarray(mass))
        before, after, rate = jax.device_get((before, after, rate))

    root = np.asarray(before.root if kind is FULL else np.diag(before.root))
    matrix = np.asarray(
        before.covariance if kind is FULL else np.diag(before.covariance)
    )
    y = z @ root.T
    c_sigma = (mass + 2) / (n + mass + 5)
    p_sigma = (1 - c_sigma) * before.path_sigma + np.sqrt(
        c_sigma * (2 - c_sigma) * mass
    ) * (p @ z)
    typical = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
    c_path = (4 + mass / n) / (n + 4 + 2 * mass / n)
    settled = np.sqrt(1 - (1 - c_sigma) ** 20)
    goes = np.linalg.norm(p_sigma) / settled < (1.4 + 2 / (n + 1)) * typical
    path = (1 - c_path) * before.path
    if goes:
        path = path + np.sqrt(c_path * (2 - c_path) * mass) * (p @ y)
    w = p - 1 / number
    most = (1 - rate.rank_one - rate.rank_mu) / (n * rate.rank_mu)
    negative = -w[w < 0].sum()
    w = np.where(w < 0, w * min(1, most / negative), w)
    second = sum(
        (wk * n / (zk @ zk) if wk < 0 else wk) * np.outer(yk, yk)
        for wk, zk, yk in zip(w, z, y, strict=True)
    )
    expected = (
        (1 - rate.rank_one - rate.rank_mu * w.sum()) * matrix
        + rate.rank_one
        * (np.outer(path, path) + (1 - goes) * c_path * (2 - c_path) * matrix)
        + rate.rank_mu * second
    )
    found = np.asarray(after.covariance)
    if kind is DIAGONAL:
        expected = np.diag(expected)
        scale = np.exp(np.mean(np.log(expected)))
    else:
        scale = np.exp(np.linalg.slogdet(expected)[1] / n)
    if int(10 % max(1, covariance.LAZY / (n * (rate.rank_one + rate.rank_mu)))):
        scale = 1.0
    np.testing.assert_allclose(found, expected / scale, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(after.path, path / np.sqrt(scale), rtol=1e-10)
    np.testing.assert_allclose(after.path_sigma, p_sigma, rtol=1e-10)
    np.testing.assert_allclose(after.mean, before.mean + 0.7 * (p @ y), rtol=1e-10)
    growth = c_sigma / rate.damping * (np.linalg.norm(p_sigma) / typical - 1)
    # Half the change of log det C / N by those that are better, C being the identity.
    better = np.maximum(w, 0)[:, None, None] * z[:, :, None] * z[:, None, :]
    change = np.trace(better.sum(axis=0)) / n - np.maximum(w, 0).sum()
    growth += np.clip(mass / n - 1, 0, 1) * rate.rank_mu * change / 2
    np.testing.assert_allclose(after.sigma, 0.7 * np.exp(growth), rtol=1e-10)


@pytest.mark.parametrize("kind", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_the_root_is_one_and_keeps_the_determinant(kind):
    with jax.enable_x64(True):
        state = random_state(kind)
        matrix, root, scale = kind.renewed(state)
    before, matrix, full = (
        np.asarray(x if kind is FULL else np.diag(x))
        for x in (state.covariance, matrix, root)
    )
    np.testing.assert_allclose(full @ full.T, matrix, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(float(scale) ** 2 * matrix, before, atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_many_candidates_take_fewer_steps():
    """The variance of those that are better tells more than the path of the mean."""

    def steps(number):
        result = minimize(
            lambda x: jnp.sum(x**2),
            jnp.full(5, 3.0),
            sigma=2.0,
            num_candidates=number,
            max_evaluations=400 * number,
            target=1e-8,
            restarts=0,
        )
        assert result.status == MinimizeStatus.TARGET_REACHED
        return int(result.nit)

    few, many = steps(8), steps(128)
    assert many < 0.8 * few


@functools.cache
def without_selection(kind, number=NUMBER):
    """log σ and C of many searches, after steps whose ranks are random."""

    def step(gaussian, key):
        directions, order = jax.random.split(key)
        z = jax.random.normal(directions, (number, SIZE), gaussian.mean.dtype)
        p = jax.nn.softmax(-5 * jnp.arange(number) / (number - 1))
        p = jax.random.permutation(order, p)
        return stepped(kind, gaussian, z, p), None

    @jax.jit
    def walked(key):
        begun = covariance.begun(kind, jnp.zeros(SIZE), jnp.array(1.0))
        return jax.lax.scan(step, begun, jax.random.split(key, 100))[0]

    with jax.enable_x64(True):
        return jax.device_get(
            jax.vmap(walked)(jax.random.split(jax.random.key(0), 1000))
        )


@pytest.mark.parametrize(
    ("kind", "number"),
    [(FULL, NUMBER), (FULL, 40), (DIAGONAL, NUMBER), (LOW_RANK, NUMBER)],
    ids=["full", "many", "diagonal", "low_rank"],
)
def test_neither_spread_nor_covariance_drift_without_selection(kind, number):
    walked = without_selection(kind, number)
    log_sigma = np.log(walked.sigma)
    error = log_sigma.std() / math.sqrt(len(log_sigma))
    # σ goes its random way; over 100 steps by less than a tenth on average.
    assert abs(log_sigma.mean()) < 0.1 + 3.5 * error
    variances = jax.vmap(kind.variances)(walked)
    roots = jax.vmap(jax.vmap(kind.spread, (None, 0)), (0, None))(
        walked.root, jnp.eye(SIZE)
    )
    log_volume = 2 * np.linalg.slogdet(roots)[1] / SIZE
    if kind is DIAGONAL:
        log_volume = np.log(variances).mean(axis=1)
    elif kind is FULL:
        log_volume = np.linalg.slogdet(walked.covariance)[1] / SIZE
    # Renewed every few steps, between which it may move a little.
    assert np.abs(log_volume).max() < 0.5
    logs = np.log(variances)
    errors = logs.std(axis=0) / math.sqrt(len(logs))
    assert (np.abs(logs.mean(axis=0) - logs.mean()) < 3.5 * errors).all()


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from([4, 8, 40]),
    st.sampled_from([1, 2, 7]),
    st.sampled_from(["best", "worst", "furthest", "all"]),
)
def test_the_covariance_stays_positive_definite(seed, number, size, chosen):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        gaussian = covariance.begun(FULL, jnp.zeros(size), jnp.array(1.0))
        step = jax.jit(functools.partial(stepped, FULL))
        for _ in range(40):
            z = rng.normal(size=(number, size))
            order = {
                "best": z[:, 0],
                "worst": -np.sum(z**2, axis=1),
                "furthest": np.sum(z**2, axis=1),
                "all": np.zeros(number),
            }[chosen]
            ranks = np.argsort(np.argsort(order)) / (number - 1)
            p = np.exp(-5 * ranks)
            gaussian = step(gaussian, jnp.asarray(z), jnp.asarray(p / p.sum()))
        values = np.linalg.eigvalsh(gaussian.covariance)
    assert np.isfinite(values).all()
    assert values[0] > 0


def test_candidates_without_a_loss_have_no_weight():
    known = jnp.array([True, False, True, True])
    p, w = covariance.weights(jnp.log(jnp.array([0.5, 0.2, 0.2, 0.1])), known)
    np.testing.assert_allclose(p, [0.5, 0, 0.2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(w, [0.5 - 1 / 3, 0, 0.2 - 1 / 3, 0.1 - 1 / 3], rtol=1e-5)

"""Weights move as far as the nodes behind them by σ, in whatever unit they are in."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qiaso_jax
from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.scaling import noise_size, path_of
from qiaso_jax.node_space.spaces import analyse
from qiaso_jax.program.equations import evaluate

B, INPUTS, OUTPUTS, SIGMA = 40, 30, 20, 0.01
RNG = np.random.default_rng(0)
W = RNG.normal(size=(INPUTS, OUTPUTS))
X = RNG.normal(size=(B, INPUTS)) + 0.3


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        yield


def sizes(value_fn, params, sigma=SIGMA, **batch):
    """Of the noise at each site in weight space, and whether it is capped."""
    params = jax.tree.map(jnp.asarray, params)
    model = bind_model(value_fn, params, jax.tree.map(jnp.asarray, batch), None)
    analysis = analyse(model, "weights")
    program, sites = analysis.program, analysis.sites

    @jax.jit
    def found(leaves, batch):
        clean = evaluate(program, [*leaves, *batch])
        return [
            noise_size(
                program, sites, i, path_of(program, sites, i), clean,
                jnp.asarray(sigma), model.size,
            )
            for i in range(len(sites.sites))
        ]  # fmt: skip

    return [(float(far), bool(cap)) for far, cap in found(model.leaves, model.batch)]


def moved(nodes, params, x, far, draws=200):
    """How far the nodes move in root mean square, by many draws in NumPy."""
    rng = np.random.default_rng(1)
    before, total = nodes(params, x), 0.0
    for _ in range(draws):
        z = rng.choice([-1.0, 1.0], params.shape)
        total += np.mean((nodes(params + far * z, x) - before) ** 2)
    return np.sqrt(total / draws)


def share(weights, nodes):
    """The factor that the documentation names: √√(weights per node)."""
    return max(weights / max(nodes, 1), 1) ** 0.25


LINEAR = {
    "a product": lambda w, x: x @ w,
    "a product, of a part": lambda w, x: x @ w[:, :5],
    "a scaled one": lambda w, x: x @ (w * 0.1),
    "two products": lambda w, x: x @ (w @ np.cos(W.T @ W)),
    "a sum of rows": lambda w, x: x[:, :OUTPUTS] + w.sum(0),
}


@pytest.mark.parametrize("name", LINEAR)
def test_nodes_behind_linear_maps_move_by_sigma(name):
    nodes = LINEAR[name]

    def value_fn(w, x):
        return jnp.sum(jnp.tanh(nodes(w, x)) ** 2, axis=1)

    ((far, capped),) = sizes(value_fn, W, x=X)
    per_example = nodes(W, X).shape[1]
    expected = SIGMA * share(W.size, per_example)
    # One draw of 600 signs, the same in every run, stands for all noise: of the sums of
    # rows, 20 in all, its root mean square has a relative standard deviation of 16 %.
    tolerance = 0.5 if name == "a sum of rows" else 0.25
    np.testing.assert_allclose(moved(nodes, W, X, far), expected, tolerance)
    assert not capped


def test_more_weights_than_nodes_move_the_nodes_more():
    def value_fn(w, x):
        return jnp.tanh(x @ w)

    one = W[:, 0]
    ((far, _),) = sizes(value_fn, one, x=X)
    found = moved(lambda w, x: x @ w, one, X, far, 2000)
    np.testing.assert_allclose(found, SIGMA * INPUTS**0.25, 0.5)
    assert found > 1.2 * SIGMA


def test_the_size_is_in_proportion_to_sigma():
    def value_fn(w, x):
        return jnp.sum(jnp.tanh(x @ w), axis=1)

    small, large = (sizes(value_fn, W, s, x=X)[0][0] for s in (1e-3, 4e-3))
    np.testing.assert_allclose(large, 4 * small, 1e-9)


@pytest.mark.parametrize("look", [1 / 64, 1 / 16, 1 / 4, 1])
def test_the_size_is_by_the_least_response_of_all_looks(look):
    def moves(d):
        near = (jnp.abs(d) > 0.6 * look) & (jnp.abs(d) < 1.6 * look)
        return jnp.where(near, jnp.sign(d) * look / 4, d)

    def size(made_of):
        def value_fn(w, x):
            return jnp.sum(jnp.tanh(x @ made_of(w)), axis=1)

        ((far, _),) = sizes(value_fn, np.ones_like(W), x=X)
        return far

    expected = 4 * size(lambda w: w)
    np.testing.assert_allclose(size(lambda w: 1 + moves(w - 1)), expected, 1e-9)


def rounded(w):
    return jnp.round(w * 4) / 4


def straight_through(w):
    return w + jax.lax.stop_gradient(rounded(w) - w)


def normalised(w):
    return w / jnp.sqrt(jnp.sum(w**2, axis=0, keepdims=True))


MADE_OF = {
    "plain": lambda w: w,
    "rounded": rounded,
    "straight through": straight_through,
    "clipped": lambda w: jnp.clip(w, -0.5, 0.5),
    "normalised": normalised,
    "signs": jnp.sign,
    "rounded, then normalised": lambda w: normalised(rounded(w) + 0.1),
}


def once(w, x):
    return jnp.sum(jnp.tanh(x @ w) ** 2, axis=1)


def in_a_scan(w, x):
    def step(h, _):
        return jnp.tanh(x[:, :OUTPUTS] + h @ w[:OUTPUTS]), None

    return jax.lax.scan(step, x[:, :OUTPUTS], length=3)[0].sum(1)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [once, in_a_scan], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", MADE_OF)
def test_the_unit_of_a_parameter_does_not_matter(name, loss):
    make = MADE_OF[name]

    def size(unit):
        def value_fn(theta, x):
            return loss(make(unit * theta), x)

        ((far, capped),) = sizes(value_fn, W / unit, x=X)
        return far * unit, capped

    far, capped = size(1.0)
    assert far > 0
    for unit in (1e-2, 128.0):
        in_units, also = size(unit)
        assert capped == also
        np.testing.assert_allclose(in_units, far, 1e-5)


@pytest.mark.parametrize("within", [False, True])
def test_the_unit_does_not_matter_where_it_is_made_within_a_loop(within):
    def value_fn(unit):
        def losses(theta, x):
            def step(h, factor):
                w = rounded(unit * theta * (factor if within else 1.0))
                return jnp.tanh(x[:, :OUTPUTS] + h @ w[:OUTPUTS]), None

            return jax.lax.scan(step, x[:, :OUTPUTS], jnp.array([1.0, 2.0]))[0].sum(1)

        return losses

    ((far, _),) = sizes(value_fn(1.0), W, x=X)
    ((small, _),) = sizes(value_fn(0.01), W / 0.01, x=X)
    np.testing.assert_allclose(0.01 * small, far, 1e-5)


def test_updates_scale_with_the_unit():
    def updates(unit):
        def value_fn(theta, x):
            return once(rounded(unit * theta), x)

        theta = jnp.asarray(W / unit)
        tx = qiaso_jax.node_qiaso(
            8, SIGMA, optimizer=optax.sgd(1.0), space="weights", examples=1.0
        )
        found, _ = jax.jit(
            lambda s, t, x: tx.update(None, s, t, value_fn=value_fn, x=x)
        )(tx.init(theta), theta, jnp.asarray(X))
        return found

    plain, hundredths = updates(1.0), updates(0.01)
    assert np.any(plain != 0)
    # What a gradient does: dL/dθ is unit · dL/dw.
    np.testing.assert_allclose(hundredths, 0.01 * plain, 1e-5, 1e-12)


def test_noise_is_no_larger_than_the_weights():
    # Weights that all but cancel move their nodes little, however far they go.
    def value_fn(w, x):
        return once(1e-6 * w, x)

    ((far, capped),) = sizes(value_fn, W, x=X)
    assert capped
    np.testing.assert_allclose(far, np.sqrt(np.mean(W**2)), 1e-9)


def test_weights_that_are_zero_have_no_cap_of_zero():
    ((far, capped),) = sizes(once, 0 * W, x=X)
    assert far > 0
    assert not capped
    np.testing.assert_allclose(
        moved(lambda w, x: x @ w, 0 * W, X, far), SIGMA * share(W.size, OUTPUTS), 0.25
    )


def test_one_site_does_not_drown_the_other():
    # The second kernel goes through a rounding in hundredths, and is in their unit.
    def value_fn(p, x):
        h = jnp.tanh(x @ p["first"])
        return jnp.sum((h @ (jnp.round(p["second"]) * 0.01)) ** 2, axis=1)

    second = 100 * RNG.normal(size=(OUTPUTS, INPUTS))
    # More than the steps of the rounding, which would move nodes further.
    sigma = 10 * SIGMA
    found = sizes(value_fn, {"first": W, "second": second}, sigma, x=X)
    (first, _), (hundredths, _) = found
    h = np.tanh(X @ W)
    far = moved(lambda w, h: h @ (np.round(w) * 0.01), second, h, hundredths)
    np.testing.assert_allclose(far, sigma * share(second.size, INPUTS), 0.25)
    np.testing.assert_allclose(
        moved(lambda w, x: x @ w, W, X, first), sigma * share(W.size, OUTPUTS), 0.25
    )


def test_losses_may_depend_on_weights_alone():
    def value_fn(p, x):
        return once(p["w"], x) + jnp.sum(p["v"] ** 2)

    v, *_ = sizes(value_fn, {"v": np.full(3, 2.0), "w": W}, x=X)
    assert 0 < v[0] <= 2.0

from functools import partial

import chex
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import qiaso_jax
from qiaso_jax import qiaso

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array(0.7)}
W, B = np.float64(PARAMS["w"]), np.float64(PARAMS["b"])


def loss(params, target=0.0):
    w, b = params["w"], params["b"]
    return jnp.sum((w - target) ** 2) + 0.5 * jnp.abs(b) + jnp.sin(w[0, 0] * b)


def loss_in_numpy(w, b, target=0.0):
    return (
        np.sum((w - target) ** 2, axis=(-2, -1))
        + 0.5 * np.abs(b)
        + np.sin(w[..., 0, 0] * b)
    )


def run(tx, params, num_steps, value_fn=loss, **kwargs):
    """Parameters after ``num_steps`` gradient-free steps, and the reports of each."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(None, state, params, value_fn=value_fn, **kwargs)
        return (optax.apply_updates(params, updates), state), state.info

    (params, state), infos = jax.jit(
        lambda carry: jax.lax.scan(step, carry, length=num_steps)
    )((params, tx.init(params)))
    return params, state, infos


def step_of(tx, value_fn=loss):
    """A step on the parameters, ``(state, **arguments) -> (updates, state)``."""
    step = jax.jit(partial(tx.update, None, value_fn=value_fn))
    return lambda state, **arguments: step(state, PARAMS, **arguments)


def weights_in_numpy(log_prior, losses, scaling, rate):
    """Exponential weights in float64, written from the specification."""
    scaled = {
        None: lambda x: x,
        "zscore": scipy.stats.zscore,
        "rank": lambda x: (scipy.stats.rankdata(x) - 1) / (len(x) - 1) - 0.5,
    }[scaling](losses)
    exponent = log_prior - rate * scaled
    exponent -= exponent.max()
    return exponent - np.log(np.exp(exponent).sum())


@pytest.mark.parametrize(
    ("scaling", "collapse", "candidate_batch_size"),
    [
        (None, "expectation", None),
        ("zscore", "expectation", 2),
        ("zscore", "best", None),
        ("rank", "expectation", None),
        ("rank", "best", 2),
    ],
)
def test_one_step_is_the_algorithm(scaling, collapse, candidate_batch_size):
    tx = qiaso(
        7,
        0.3,
        2.0,
        kl_strength=0.8,
        loss_scaling=scaling,
        collapse=collapse,
        candidate_batch_size=candidate_batch_size,
    )
    state = tx.init(PARAMS)
    candidates = qiaso_jax.ask(tx, state, PARAMS)
    w, b = np.float64(candidates["w"]), np.float64(candidates["b"])
    losses = loss_in_numpy(w, b, 0.2)
    p = np.exp(weights_in_numpy(-np.log(7), losses, scaling, 2.0 / 0.8))
    readout = p if collapse == "expectation" else np.eye(7)[np.argmin(losses)]

    updates, state = step_of(tx)(state, target=0.2)

    np.testing.assert_allclose(
        updates["w"], np.einsum("k,kij->ij", readout, w) - PARAMS["w"], atol=1e-5
    )
    np.testing.assert_allclose(updates["b"], readout @ b - PARAMS["b"], atol=1e-5)
    info = state.info
    assert info.expected_loss == pytest.approx(p @ losses, rel=1e-4)
    assert info.best_loss == pytest.approx(losses.min(), rel=1e-4)
    assert info.entropy == pytest.approx(scipy.stats.entropy(p), rel=1e-3)
    assert info.kl == pytest.approx(scipy.stats.entropy(p, np.ones(7)), abs=1e-4)
    assert info.effective_candidates == pytest.approx(1 / np.sum(p**2), rel=1e-3)
    assert info.collapsed
    assert info.num_nonfinite == info.num_skipped == info.num_tunnelled == 0
    np.testing.assert_allclose(state.log_amplitudes, -np.log(7), rtol=1e-6)


def test_amplitudes_accumulate_until_the_collapse():
    tx = qiaso(6, 0.3, 0.4, loss_scaling=None, collapse="best", collapse_every=3)
    state = tx.init(PARAMS)
    step = step_of(tx)
    log_p = np.full(6, -np.log(6))
    for target in (0.0, 0.5, -0.3):
        offsets = jax.tree.map(np.float64, state.candidates)
        losses = loss_in_numpy(W + offsets["w"], B + offsets["b"], target)
        log_p = weights_in_numpy(log_p, losses, None, 0.4)
        updates, state = step(state, target=target)
        if target != -0.3:
            np.testing.assert_allclose(state.log_amplitudes, log_p, atol=1e-4)
            chex.assert_trees_all_equal(updates, optax.tree.zeros_like(PARAMS))
            chex.assert_trees_all_close(state.candidates, offsets, atol=1e-7)
            assert not state.info.collapsed
    winner = np.argmax(log_p)
    np.testing.assert_allclose(updates["w"], offsets["w"][winner], rtol=1e-6)
    assert state.info.collapsed
    np.testing.assert_allclose(state.log_amplitudes, -np.log(6), rtol=1e-6)
    # Section 2.3: fresh candidates near the chosen weights, which stay in play.
    assert not np.array_equal(state.candidates["w"], offsets["w"])
    np.testing.assert_array_equal(state.candidates["w"][0], np.zeros((2, 2)))


def test_without_the_prior_the_amplitudes_forget():
    tx = qiaso(6, 0.3, 0.4, kl_strength=None, loss_scaling=None, collapse_every=9)
    state, step = tx.init(PARAMS), step_of(tx)
    for target in (1.0, 0.0):
        offsets = jax.tree.map(np.float64, state.candidates)
        _, state = step(state, target=target)
    losses = loss_in_numpy(W + offsets["w"], B + offsets["b"])
    expected = weights_in_numpy(0.0, losses, None, 0.4)
    np.testing.assert_allclose(state.log_amplitudes, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [None, "zscore", "rank"])
def test_lemma_3_1_holds_at_every_step(scaling):
    eta, kl_strength = 1.5, 0.7
    tx = qiaso(
        8, 0.5, eta, kl_strength=kl_strength, loss_scaling=scaling, collapse_every=5
    )
    _, _, infos = run(tx, PARAMS, 40)
    slack = infos.expected_decrease - kl_strength / eta * infos.kl
    assert (slack >= -1e-4).all()
    assert (infos.kl > 1e-3).any()


@pytest.mark.slow
def test_sampling_moves_to_a_candidate():
    tx = qiaso(5, 0.3, collapse="sample", key=4)
    state = tx.init(PARAMS)
    candidates = qiaso_jax.ask(tx, state, PARAMS)
    updates, _ = step_of(tx)(state)
    moved = optax.apply_updates(PARAMS, updates)
    assert any(np.allclose(moved["w"], w, atol=1e-6) for w in candidates["w"])


def test_small_eta_displaces_along_the_gradient():
    tx = qiaso(4000, 0.01, 1e-3, loss_scaling=None)
    updates, _ = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=loss))(
        tx.init(PARAMS)
    )
    gradient, _ = jax.flatten_util.ravel_pytree(jax.grad(loss)(PARAMS))
    moved, _ = jax.flatten_util.ravel_pytree(updates)
    expected = -1e-3 * 0.01**2 * gradient
    # Each of 5 coordinates has a relative error of about √(5/2000) = 5 %.
    assert jnp.linalg.norm(moved - expected) < 0.25 * jnp.linalg.norm(expected)


@pytest.mark.slow
def test_the_displacement_feeds_an_optimizer():
    plain, _, _ = run(qiaso(10, 0.1, optimizer=None), PARAMS, 5)
    same, state, _ = run(qiaso(10, 0.1, optimizer=optax.sgd(1.0)), PARAMS, 5)
    chex.assert_trees_all_close(plain, same, rtol=1e-6)
    trained, state, _ = run(qiaso(10, 0.1, optimizer=optax.adam(0.05)), PARAMS, 400)
    assert optax.tree.get(state, "count") == 400
    np.testing.assert_allclose(trained["w"], np.zeros((2, 2)), atol=0.15)


def test_the_optimizer_steps_on_collapse_only():
    tx = qiaso(10, 0.1, collapse_every=4, optimizer=optax.adam(0.05))
    _, state, infos = run(tx, PARAMS, 10)
    assert optax.tree.get(state, "count") == 2
    assert infos.collapsed.tolist() == [False, False, False, True] * 2 + [False] * 2


@pytest.mark.slow
def test_candidates_that_tunnelled_are_the_ones_evaluated():
    tunnelling = qiaso_jax.gaussian_tunnelling(5.0, 1.0, 1.0)
    tx = qiaso(6, 0.01, collapse="best", collapse_every=2, tunnelling=tunnelling)
    state, step = tx.init(PARAMS), step_of(tx)
    _, state = step(state)
    assert state.info.num_tunnelled == 5
    spread = np.abs(state.candidates["w"]).max(axis=(1, 2))
    best = np.argmax(state.log_amplitudes)
    assert spread[best] < 0.1
    assert (np.delete(spread, best) > 0.1).all()
    # Far away the loss is large: no candidate that has jumped is taken.
    updates, _ = step(state)
    assert np.abs(updates["w"]).max() < 0.1


def nan_where(condition):
    def value_fn(params):
        return jnp.where(condition(params), jnp.nan, loss(params))

    return value_fn


@pytest.mark.slow
def test_candidates_without_a_finite_loss_get_probability_zero():
    tx = qiaso(20, 0.3, 1.0, loss_scaling="zscore", collapse_every=3)
    state = tx.init(PARAMS)
    bad = PARAMS["w"][0, 0] + state.candidates["w"][:, 0, 0] > 1.1
    assert 0 < bad.sum() < 20
    _, state = step_of(tx, nan_where(lambda p: p["w"][0, 0] > 1.1))(state)
    np.testing.assert_array_equal(state.log_amplitudes == -np.inf, bad)
    assert np.exp(state.log_amplitudes).sum() == pytest.approx(1, abs=1e-5)
    assert state.info.num_nonfinite == bad.sum()
    assert np.isfinite(state.info.expected_loss)
    assert state.info.num_skipped == 0


@pytest.mark.slow
@pytest.mark.parametrize("candidate_batch_size", [None, 4])
def test_complex_weights(candidate_batch_size):
    dtype = jnp.complex64
    params = {"x": jnp.ones(3, dtype), "y": jnp.ones(2)}
    tx = qiaso(10, 0.1, candidate_batch_size=candidate_batch_size)

    def value_fn(p):
        return jnp.sum(jnp.abs(p["x"]) ** 2).astype(dtype).real

    after, state, infos = run(tx, params, 60, value_fn)
    chex.assert_trees_all_equal_dtypes(after, params)
    assert state.log_amplitudes.dtype == infos.expected_loss.dtype == jnp.float32
    assert infos.expected_loss[-1] < 0.5 * infos.expected_loss[0]


@pytest.mark.parametrize("params", [{"x": jnp.zeros((0, 3))}, jnp.array(2.0)])
def test_empty_arrays_and_scalars(params):
    tx = qiaso(4, 0.1, collapse_every=2, tunnelling=qiaso_jax.gaussian_tunnelling())
    after, _, infos = run(
        tx, params, 3, lambda p: sum(map(jnp.sum, jax.tree.leaves(p)), jnp.zeros(()))
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)
    assert np.isfinite(infos.expected_loss).all()


@pytest.mark.slow
@pytest.mark.parametrize("collapse", ["expectation", "best", "sample"])
@pytest.mark.parametrize("num_candidates", [1, 2, 3])
def test_few_candidates(collapse, num_candidates):
    tx = qiaso(num_candidates, 0.1, collapse=collapse)
    after, _, _infos = run(tx, PARAMS, 5)
    assert np.isfinite(after["w"]).all()
    if collapse == "best" and num_candidates == 1:
        chex.assert_trees_all_equal(after, PARAMS)


@pytest.mark.slow
def test_sigma_and_eta_by_inject_hyperparams():
    injected = optax.inject_hyperparams(
        qiaso, static_args=("num_candidates", "collapse_every", "key")
    )(sigma=optax.linear_schedule(0.2, 0.1, 4), eta=0.5)
    scheduled = qiaso(sigma=optax.linear_schedule(0.2, 0.1, 4), eta=0.5)
    params, state, _ = [*run_wrapped(injected, 4)]
    expected, _, _ = run(scheduled, PARAMS, 4)
    chex.assert_trees_all_close(params, expected, rtol=1e-4, atol=1e-5)
    assert state.hyperparams["eta"] == 0.5
    # A value can be set by hand, without compiling again.
    state.hyperparams["eta"] = jnp.array(0.0)
    updates, _ = injected.update(
        optax.tree.zeros_like(PARAMS), state, PARAMS, value_fn=loss
    )
    np.testing.assert_allclose(updates["w"], np.zeros((2, 2)), atol=1e-6)


def run_wrapped(tx, num_steps):
    params, state = PARAMS, tx.init(PARAMS)
    update = jax.jit(lambda s, p: tx.update(None, s, p, value_fn=loss))
    for _ in range(num_steps):
        updates, state = update(state, params)
        params = optax.apply_updates(params, updates)
    return params, state, None


def test_integers_must_be_static_under_inject_hyperparams():
    with pytest.raises(TypeError, match=r"num_candidates.*static_args"):
        optax.inject_hyperparams(qiaso)(sigma=0.1).init(PARAMS)


@pytest.mark.slow
def test_nnx_optimizer():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    graph, _params = nnx.split(model)
    x = jnp.array([[1.0, 2.0, -1.0], [0.5, 0.1, 0.3]])
    y = jnp.array([[1.0], [0.0]])

    def value_fn(params, x, y):
        return jnp.mean((nnx.merge(graph, params)(x) - y) ** 2)

    tx = qiaso(20, 0.05, optimizer=optax.adam(0.05))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = value_fn(nnx.state(model, nnx.Param), x, y)
    step = nnx.jit(
        lambda model, optimizer: optimizer.update(
            model,
            optax.tree.zeros_like(nnx.state(model, nnx.Param)),
            value_fn=value_fn,
            x=x,
            y=y,
        )
    )
    for _ in range(100):
        step(model, optimizer)
    assert value_fn(nnx.state(model, nnx.Param), x, y) < 0.05 * before


@pytest.mark.slow
@pytest.mark.parametrize("num_candidates", [1, 2, 7])
@pytest.mark.parametrize("candidate_batch_size", [None, 3])
def test_a_step_evaluates_each_candidate_once(num_candidates, candidate_batch_size):
    seen = []

    def counted(params):
        jax.debug.callback(lambda w: seen.append(np.array(w)), params["w"])
        return loss(params)

    tx = qiaso(num_candidates, 0.1, candidate_batch_size=candidate_batch_size)
    jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=counted))(tx.init(PARAMS))
    jax.effects_barrier()
    assert len(seen) == num_candidates
    assert len(np.unique(np.stack(seen), axis=0)) == num_candidates


@pytest.mark.slow
def test_chunks_keep_memory_independent_of_the_candidates():
    num_weights = 50_000
    params = jnp.zeros(num_weights)

    def temporary_bytes(num_candidates, candidate_batch_size):
        tx = qiaso(num_candidates, candidate_batch_size=candidate_batch_size)
        state = tx.init(params)
        step = jax.jit(lambda s, p: tx.update(None, s, p, value_fn=lambda p: p @ p))
        return step.lower(state, params).compile().memory_analysis().temp_size_in_bytes

    in_chunks = temporary_bytes(256, 4)
    assert in_chunks < 32 * 4 * num_weights
    assert in_chunks < 1.1 * temporary_bytes(64, 4)
    assert temporary_bytes(256, None) > 100 * 4 * num_weights


@pytest.mark.parametrize(
    ("directions", "limit"),
    # The displacement, and beside it dense candidates, a pair at a time; with copies of
    # the parameters it is a third of them more.
    [("low_rank", 1.2), ("rademacher", 3.0)],
)
def test_donated_parameters_are_not_copied(directions, limit):
    params = [jnp.ones((400, 500)) for _ in range(3)]

    def loss(params):
        hidden = jnp.ones(400)
        for weights in params:
            hidden = jnp.tanh(hidden @ weights) @ jnp.ones((500, 400))
        return jnp.sum(hidden)

    tx = qiaso(
        30,
        directions=directions,
        candidate_batch_size=2,
        optimizer=optax.sgd(1e-3),
    )

    def step(params, state):
        updates, state = tx.update(None, state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params))
    memory = compiled.compile().memory_analysis()
    held = sum(leaf.nbytes for leaf in params)
    assert memory.alias_size_in_bytes >= held
    assert memory.temp_size_in_bytes < limit * held


def test_all_candidates_at_once():
    tx = qiaso(6, 0.1)
    state = tx.init(PARAMS)
    expected = tx.update(None, state, PARAMS, value_fn=loss, target=0.1)
    together = tx.update(
        None,
        state,
        PARAMS,
        candidates_value_fn=lambda c, target: jax.vmap(lambda p: loss(p, target))(c),
        target=0.1,
    )
    chex.assert_trees_all_close(together, expected, rtol=1e-6)


@pytest.mark.slow
def test_the_papers_settings_run():
    assert qiaso_jax.PAPER["num_candidates"] == 30
    _, _, infos = run(qiaso(**qiaso_jax.PAPER), PARAMS, 30)
    assert infos.collapsed.tolist() == ([False] * 9 + [True]) * 3
    assert infos.num_tunnelled[0] == 29
    assert (infos.expected_decrease >= -1e-5).all()
    # T_0 = 1 and the floor of the temperature, 1e-3.
    eta = qiaso_jax.PAPER["eta"]
    assert eta(0) == 1
    assert eta(10**6) == pytest.approx(1e3)
    with pytest.raises(TypeError):
        qiaso_jax.PAPER["sigma"] = 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"collapse_every": 0}, ValueError, "collapse_every must be at least 1"),
        ({"kl_strength": 0}, ValueError, "kl_strength must be finite and above 0"),
        ({"collapse": "mean"}, ValueError, "collapse must be one of 'expectation', "),
        ({"loss_scaling": "std"}, ValueError, "loss_scaling must be one of None"),
        ({"tunnelling": 0.1}, TypeError, "made by qiaso_jax.gaussian_tunnelling"),
        (
            {"loss_scaling": 2},
            ValueError,
            "a function losses -> scaled losses; got 2",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        qiaso(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"value_fn": None}, ValueError, "give update one of value_fn=.*got neither"),
        ({"candidates_value_fn": loss}, ValueError, "got both"),
        (
            {"params": {"v": jnp.ones(2)}},
            ValueError,
            r"state must come .* for the same params.*state.candidates\['v'\]",
        ),
        ({"value_fn": lambda p: loss(p) + 0j}, TypeError, "got complex64"),
    ],
)
def test_a_bad_update_is_named(arguments, error, sentence):
    tx = qiaso(4, 0.1, collapse_every=2)
    arguments = {"updates": None, "params": PARAMS, "value_fn": loss, **arguments}
    params, updates = arguments.pop("params"), arguments.pop("updates")
    with pytest.raises(error, match=sentence):
        tx.update(updates, tx.init(PARAMS), params, **arguments)


def test_candidates_are_stored_where_they_live_on():
    params = jnp.ones((3, 2))
    assert qiaso(6).init(params).candidates == ()
    for settings in (
        {"collapse_every": 2},
        {"tunnelling": qiaso_jax.gaussian_tunnelling()},
    ):
        assert qiaso(6, **settings).init(params).candidates.shape == (6, 3, 2)


def test_a_readout_and_a_scaling_of_ones_own():
    def worst(key, log_amplitudes):
        del key
        return jax.nn.one_hot(jnp.argmin(log_amplitudes), 7)

    def doubled(losses):
        return 2 * losses

    tx = qiaso(
        7,
        0.3,
        0.7,
        loss_scaling=doubled,
        collapse=qiaso_jax.Readout(worst, keeps_centre=True),
    )
    state = tx.init(PARAMS)
    candidates = qiaso_jax.ask(tx, state, PARAMS)
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[0], candidates), PARAMS)
    w, b = np.float64(candidates["w"]), np.float64(candidates["b"])
    losses = loss_in_numpy(w, b)
    p = np.exp(weights_in_numpy(0.0, 2 * losses, None, 0.7))
    updates, state = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=loss))(state)
    np.testing.assert_allclose(updates["w"], w[np.argmax(losses)] - W, atol=1e-5)
    assert state.info.expected_loss == pytest.approx(p @ losses, rel=1e-4)
    # Without the word, no candidate keeps the centre.
    free = qiaso(7, 0.3, collapse=worst)
    first = qiaso_jax.ask(free, free.init(PARAMS), PARAMS)["w"][0]
    assert (first != PARAMS["w"]).all()


def test_what_a_scaling_cannot_say_excludes_a_candidate():
    def log_loss(losses):
        return jnp.log(losses)  # NaN for losses below 0

    tx = qiaso(20, 0.3, loss_scaling=log_loss, collapse_every=2)
    state = tx.init(PARAMS)
    x = PARAMS["b"] + state.candidates["b"] - 0.7
    assert 0 < (x < 0).sum() < 20
    _, state = step_of(tx, lambda p: p["b"] - 0.7)(state)
    np.testing.assert_array_equal(state.log_amplitudes == -np.inf, x < 0)
    assert all(np.isfinite(field) for field in state.info)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"loss_scaling": jnp.sum},
            r"loss_scaling must return .* shape \(4,\) of the losses",
        ),
        ({"loss_scaling": lambda x: x > 0}, "loss_scaling must return .* got bool"),
        (
            {"collapse": lambda key, p: p[:2]},
            r"collapse must return .* shape \(2,\)",
        ),
        ({"collapse": lambda key, p: jnp.argmax(p)}, "collapse must return .* int32"),
    ],
)
def test_a_function_that_returns_something_else_is_named(settings, sentence):
    tx = qiaso(4, 0.1, **settings)
    with pytest.raises(ValueError, match=sentence):
        tx.update(None, tx.init(PARAMS), PARAMS, value_fn=loss)

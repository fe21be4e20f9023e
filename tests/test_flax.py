"""Train states for linen and helpers for nnx, against loops written by hand."""

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

import qiaso_jax
from qiaso_jax import flax as qiaso_flax

pytestmark = pytest.mark.slow

X = jnp.linspace(-1, 1, 8)[:, None]
Y = 2 * X + 1


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def linen_state(tx, cls=qiaso_flax.TrainState):
    model = nn.Dense(1)
    params = model.init(jax.random.key(0), X)["params"]
    return cls.create(apply_fn=model.apply, params=params, tx=tx)


def linen_loss(params, batch):
    x, y = batch
    return jnp.mean((nn.Dense(1).apply({"params": params}, x) - y) ** 2)


def test_with_gradients_it_is_flaxs_train_state():
    ours = linen_state(optax.adam(0.1))
    theirs = linen_state(optax.adam(0.1), train_state.TrainState)
    for _ in range(3):
        grads = jax.grad(linen_loss)(theirs.params, (X, Y))
        ours = ours.apply_gradients(grads=grads, value_fn=linen_loss, batch=(X, Y))
        theirs = theirs.apply_gradients(grads=grads)
    assert_trees_equal(ours.params, theirs.params)
    assert_trees_equal(ours.opt_state, theirs.opt_state)
    assert int(ours.step) == 3


@pytest.mark.parametrize("hybrid", [False, True])
def test_extra_arguments_reach_the_optimizer(hybrid):
    tx = qiaso_jax.qiaso(6, sigma=0.1, key=3)
    tx = optax.chain(optax.sgd(0.1), tx) if hybrid else tx
    state = linen_state(tx)
    grads = jax.grad(linen_loss)(state.params, (X, Y)) if hybrid else None
    after = state.apply_gradients(grads=grads, value_fn=linen_loss, batch=(X, Y))

    gradients = grads or jax.tree.map(jnp.zeros_like, state.params)
    updates, opt_state = tx.update(
        gradients, state.opt_state, state.params, value_fn=linen_loss, batch=(X, Y)
    )
    assert_trees_equal(after.params, optax.apply_updates(state.params, updates))
    assert_trees_equal(after.opt_state, opt_state)
    assert after.tx is tx


def test_fields_are_replaced_and_not_forwarded():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda _: (), update)
    state = linen_state(tx, qiaso_flax.BatchStatsTrainState)
    state = state.apply_gradients(batch_stats={"mean": 1}, batch=2)
    assert state.batch_stats == {"mean": 1}
    assert seen == {"batch": 2}


def test_what_an_update_computes_cannot_be_given():
    state = linen_state(optax.sgd(0.1))
    with pytest.raises(ValueError, match="computes params, step"):
        state.apply_gradients(params={}, step=3)


def test_train_state_runs_under_scan():
    state = linen_state(qiaso_jax.qiaso(10, sigma=0.1, optimizer=optax.adam(0.1)))

    @jax.jit
    def train(state):
        def step(state, _):
            return state.apply_gradients(value_fn=linen_loss, batch=(X, Y)), None

        return jax.lax.scan(step, state, length=150)[0]

    # From a loss of order one.
    assert linen_loss(train(state).params, (X, Y)) < 0.01


def test_linen_batch_statistics_are_those_of_the_new_parameters():
    model = nn.Sequential([nn.Dense(3), nn.BatchNorm(False, momentum=0.5)])
    state = qiaso_flax.BatchStatsTrainState.create(
        apply_fn=model.apply, tx=optax.sgd(0.1), **model.init(jax.random.key(0), X)
    )
    after = state.refresh_batch_stats(X)
    outputs = X @ state.params["layers_0"]["kernel"]
    stats = after.batch_stats["layers_1"]
    np.testing.assert_allclose(stats["mean"], 0.5 * outputs.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.5 + 0.5 * outputs.var(0), atol=1e-6)
    assert_trees_equal(after.params, state.params)


class Model(nnx.Module):
    """Everything that a forward pass can change: statistics, random streams."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(1, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(self.norm(self.linear(x))))


def nnx_loss(model, x, y):
    return jnp.mean((model(x) - y) ** 2)


def test_nnx_value_fn_is_the_loss_and_leaves_no_trace():
    model = Model()
    before = nnx.to_pure_dict(nnx.state(nnx.clone(model)))
    value_fn = qiaso_flax.nnx_value_fn(model, nnx_loss)
    params = nnx.state(model, nnx.Param)
    value = value_fn(params, x=X, y=Y)
    assert_trees_equal(
        jax.tree.map(jax.random.key_data, _keys(before)),
        jax.tree.map(jax.random.key_data, _keys(nnx.to_pure_dict(nnx.state(model)))),
    )
    assert_trees_equal(before["norm"], nnx.to_pure_dict(nnx.state(model))["norm"])
    assert value == nnx_loss(model, X, Y)  # which does leave a trace
    assert (before["norm"]["mean"] != model.norm.mean[...]).any()


def _keys(state):
    return [
        leaf
        for leaf in jax.tree.leaves(state)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def test_nnx_value_fn_takes_candidates_and_names_its_arguments():
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    value_fn = qiaso_flax.nnx_value_fn(model, nnx_loss)
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    candidates = jax.tree.map(lambda p: jnp.stack([p, p + 1]), params)
    losses = jax.vmap(lambda c: value_fn(c, x=X, y=Y))(candidates)
    expected = [
        jnp.mean((X * (model.kernel[...] + k) + model.bias[...][None] + k - Y) ** 2)
        for k in (0, 1)
    ]
    np.testing.assert_allclose(losses, jnp.array(expected), rtol=1e-5)

    tx = qiaso_jax.qiaso(4)
    updates, _ = tx.update(
        None, tx.init(params), params, value_fn=value_fn, x=X, y=Y, other="ignored"
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_nnx_optimizer_trains_with_batch_norm():
    model = Model()
    model.dropout.rate = 0.0
    tx = qiaso_jax.qiaso(10, sigma=0.1, optimizer=optax.adam(0.05))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        value_fn = qiaso_flax.nnx_value_fn(model, nnx_loss)
        zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
        optimizer.update(model, zeros, value_fn=value_fn, x=X, y=Y)
        qiaso_flax.nnx_refresh_batch_stats(model, X)

    for _ in range(150):
        step(model, optimizer)
    model.eval()
    # From a loss of order one, with the running statistics.
    assert nnx_loss(model, X, Y) < 0.05


def test_nnx_refresh_changes_batch_statistics_alone():
    model = Model()
    model.eval()
    before = nnx.to_pure_dict(nnx.state(nnx.clone(model)))
    outputs = X @ model.linear.kernel[...] + model.linear.bias[...][None]
    qiaso_flax.nnx_refresh_batch_stats(model, X)
    np.testing.assert_allclose(model.norm.mean[...], 0.5 * outputs.mean(0), atol=1e-6)
    assert model.norm.use_running_average
    assert model.dropout.deterministic
    after = nnx.to_pure_dict(nnx.state(model))
    assert_trees_equal(before["linear"], after["linear"])
    assert_trees_equal(
        before["dropout"]["rngs"]["count"], after["dropout"]["rngs"]["count"]
    )


def test_nnx_loss_must_take_the_model():
    with pytest.raises(TypeError, match="must take the model as its first argument"):
        qiaso_flax.nnx_value_fn(Model(), lambda *, x: x)


def test_without_flax_the_import_says_what_to_install():
    code = (
        "import sys; sys.modules['flax'] = None\n"
        "import qiaso_jax\n"
        "try:\n    import qiaso_jax.flax\n"
        "except ImportError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'qiaso-jax[flax]'" in result.stdout

"""Train states for linen and helpers for nnx, against loops written by hand."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

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

ROOT = Path(__file__).parents[1]
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


def recorder(seen):
    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda _: (), update)


def test_fields_are_replaced_and_not_forwarded_to_the_optimizer():
    seen = {}
    state = linen_state(recorder(seen), qiaso_flax.BatchStatsTrainState)
    state = state.apply_gradients(
        batch_stats={"mean": 1}, batch=2, value_fn=lambda p, batch_stats: batch_stats
    )
    assert state.batch_stats == {"mean": 1}
    assert seen.keys() == {"batch", "value_fn"}
    assert seen["batch"] == 2


@pytest.mark.parametrize("name", ["value_fn", "candidates_value_fn"])
@pytest.mark.parametrize(
    "value_fn",
    [
        lambda params, batch_stats: batch_stats,
        lambda params, *, batch_stats: batch_stats,
        lambda params, batch_stats=-1: batch_stats,
        lambda params, **rest: rest["batch_stats"],
    ],
)
def test_a_field_that_is_given_reaches_value_fn(name, value_fn):
    seen = {}
    state = linen_state(recorder(seen), qiaso_flax.BatchStatsTrainState)
    after = state.apply_gradients(batch_stats=3, **{name: value_fn})
    assert seen[name](state.params) == 3
    assert after.batch_stats == 3


class MoreFields(qiaso_flax.TrainState):
    target: jax.Array | None = None


def test_a_field_that_value_fn_requires_is_the_states_own():
    seen = {}
    state = linen_state(recorder(seen), MoreFields).replace(target=5, step=7)

    def value_fn(candidate, params, apply_fn, target, step=-1):
        return candidate, params, apply_fn, target, step

    state.apply_gradients(value_fn=value_fn)
    own = ("candidate", state.params, state.apply_fn, 5, -1)
    assert seen["value_fn"]("candidate") == own
    # What a user has bound is as it was.
    state.apply_gradients(value_fn=partial(value_fn, target=6))
    assert seen["value_fn"]("candidate")[3] == 6
    state.apply_gradients(value_fn=linen_loss)
    assert seen["value_fn"] is linen_loss


def test_linen_batch_statistics_as_an_argument_train():
    model = nn.Sequential([nn.BatchNorm(True, momentum=0.5), nn.Dense(1)])
    tx = qiaso_jax.qiaso(6, sigma=0.1, key=3)
    state = qiaso_flax.BatchStatsTrainState.create(
        apply_fn=model.apply, tx=tx, **model.init(jax.random.key(0), X)
    )

    def loss(params, batch_stats, x, y):
        return jnp.mean(
            (model.apply({"params": params, "batch_stats": batch_stats}, x) - y) ** 2
        )

    stats = jax.tree.map(lambda leaf: leaf + 1.0, state.batch_stats)
    bound = partial(loss, batch_stats=stats)
    updates, _ = tx.update(
        None, state.opt_state, state.params, value_fn=bound, x=X, y=Y
    )
    given = jax.jit(
        lambda state: state.apply_gradients(value_fn=loss, batch_stats=stats, x=X, y=Y)
    )(state)
    expected = optax.apply_updates(state.params, updates)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), given.params, expected)
    own = state.replace(batch_stats=stats).apply_gradients(value_fn=loss, x=X, y=Y)
    assert_trees_equal(own.batch_stats, stats)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), own.params, expected)


@pytest.mark.parametrize("name", ["state", "updates"])
def test_a_name_that_update_has_taken_is_refused_in_a_sentence(name):
    state = linen_state(qiaso_jax.qiaso(4))
    with pytest.raises(ValueError, match=f"cannot forward {name}, which .*partial"):
        state.apply_gradients(value_fn=lambda params, state: 0.0, **{name: 1})


@pytest.mark.parametrize("form", ["object", "transformation"])
def test_extra_arguments_reach_what_multi_steps_wraps(form):
    steps = optax.MultiSteps(qiaso_jax.qiaso(6, sigma=0.1, key=3), 2)
    tx = steps if form == "object" else steps.gradient_transformation()
    state = linen_state(tx)
    opt_state, params = steps.init(state.params), state.params
    for _ in range(4):
        state = state.apply_gradients(value_fn=linen_loss, batch=(X, Y))
        updates, opt_state = steps.update(
            optax.tree.zeros_like(params),
            opt_state,
            params,
            value_fn=linen_loss,
            batch=(X, Y),
        )
        params = optax.apply_updates(params, updates)
    assert_trees_equal(state.params, params)
    assert int(state.opt_state.gradient_step) == 2


def test_an_update_gets_the_arguments_that_it_names():
    seen = {}

    class Named:
        def init(self, params):
            return ()

        def update(self, updates, state, params=None, *, batch):
            seen["batch"] = batch
            return updates, state

    linen_state(Named()).apply_gradients(value_fn=linen_loss, batch=2, other=3)
    assert seen == {"batch": 2}


def test_flaxs_own_state_does_not_do_and_the_docs_say_which_one_does():
    state = linen_state(qiaso_jax.qiaso(4), train_state.TrainState)
    with pytest.raises(ValueError, match="value_fn"):
        state.apply_gradients(
            grads=optax.tree.zeros_like(state.params), value_fn=linen_loss
        )
    page = (ROOT / "docs/flax.md").read_text()
    assert "`qiaso_jax.flax.TrainState`, not `flax.training.train_state`'s" in page


def test_the_loops_of_the_docs_train():
    page = (ROOT / "docs/flax.md").read_text()
    linen, nnx_loop = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(linen, names)
    # Both from a loss above one.
    assert names["loss_fn"](names["state"].params, X, Y, step=0) < 0.1
    names = {}
    exec(nnx_loop, names)
    assert nnx_loss(names["model"], X, Y) < 0.1


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
    forked = nnx.clone(model)
    nnx.fork_rngs(forked)
    value_fn = qiaso_flax.nnx_value_fn(model, nnx_loss)
    params = nnx.state(model, nnx.Param)
    value = value_fn(params, x=X, y=Y)
    after = nnx.to_pure_dict(nnx.state(model))
    assert_trees_equal(
        jax.tree.map(jax.random.key_data, _keys(before)),
        jax.tree.map(jax.random.key_data, _keys(after)),
    )
    assert_trees_equal(before["norm"], after["norm"])
    assert after["dropout"]["rngs"]["count"] == 1
    assert value == value_fn(params, x=X, y=Y)
    np.testing.assert_allclose(value, nnx_loss(forked, X, Y), rtol=1e-6)
    assert (before["norm"]["mean"] != forked.norm.mean[...]).any()


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


BITS = jnp.ones(64)


class Shared(nnx.Module):
    """Layers that draw from one stream."""

    def __init__(self, rngs):
        self.a = nnx.Dropout(0.5, rngs=rngs)
        self.b = nnx.Dropout(0.5, rngs=rngs)
        self.b.rngs = self.a.rngs
        self.weight = nnx.Param(jnp.zeros(2))

    def __call__(self):
        return jnp.stack([self.a(BITS), self.b(BITS)])


class Nested(nnx.Module):
    """Streams of several names, within modules and kept by the model itself."""

    def __init__(self, rngs):
        self.inner = Shared(rngs)
        self.rngs = rngs
        self.weight = nnx.Param(jnp.zeros(2))

    def __call__(self):
        noise = self.rngs.noise.bernoulli(shape=BITS.shape)
        return jnp.concatenate([self.inner(), noise[None]])


class Mapped(nnx.Module):
    """Streams that have one key for each of their members."""

    def __init__(self, rngs):
        self.members = nnx.vmap(Shared)(rngs.split(3))

    def __call__(self):
        return nnx.vmap(lambda member: member())(self.members).reshape(-1, 64)


@pytest.mark.parametrize("cls", [Shared, Nested, Mapped])
def test_nnx_dropout_is_drawn_anew_in_each_step_and_alike_for_its_candidates(cls):
    model = cls(nnx.Rngs(0, noise=1))
    others = nnx.Not(nnx.RngCount)
    before, counts = nnx.clone(model), nnx.state(nnx.clone(model), nnx.RngCount)

    @nnx.jit
    def step(model):
        value_fn = qiaso_flax.nnx_value_fn(model, lambda model: model())
        params = nnx.as_pure(nnx.state(model, nnx.Param))
        candidates = jax.tree.map(lambda p: jnp.stack([p, p + 1, p - 1]), params)
        return jax.vmap(value_fn)(candidates)

    masks = np.array([step(model) for _ in range(4)])
    assert (masks == masks[:, :1]).all()
    # Of 64 bits at random, two agree by chance with probability 1e-16 for any of 300.
    drawn = masks[:, 0].reshape(-1, 64)
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    jax.tree.map(
        lambda before, after: np.testing.assert_array_equal(before + 4, after),
        nnx.to_pure_dict(counts),
        nnx.to_pure_dict(nnx.state(model, nnx.RngCount)),
    )
    assert_trees_equal(*(_raw(nnx.state(each, others)) for each in (before, model)))


def _raw(state):
    """Keys as their data, which NumPy can compare."""
    return [
        jax.random.key_data(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
        for leaf in jax.tree.leaves(nnx.to_pure_dict(state))
    ]


def test_the_documented_nnx_step_draws_dropout_anew():
    model = Shared(nnx.Rngs(0))
    tx = qiaso_jax.qiaso(4, sigma=0.1)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def loss_fn(model, weights):
        return model()[0] @ weights

    @nnx.jit
    def step(model, optimizer, weights):
        zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
        value_fn = qiaso_flax.nnx_value_fn(model, loss_fn)
        optimizer.update(model, zeros, value_fn=value_fn, weights=weights)

    losses = []
    for _ in range(4):
        step(model, optimizer, jnp.linspace(0.0, 1.0, 64))
        losses.append(float(optimizer.opt_state.info.expected_loss[...]))
    assert len(set(losses)) == 4


def test_nnx_value_fn_of_a_model_without_streams_changes_nothing():
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    # A model that is closed over could not be changed.
    value = jax.jit(
        lambda x, y: qiaso_flax.nnx_value_fn(model, nnx_loss)(
            nnx.state(model, nnx.Param), x, y
        )
    )(X, Y)
    np.testing.assert_allclose(value, nnx_loss(model, X, Y), rtol=1e-6)


class Watched(nnx.Module):
    """Keeps its dropout mask among the batch statistics."""

    def __init__(self):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        self.mask = nnx.BatchStat(BITS)

    def __call__(self):
        self.mask[...] = self.dropout(BITS)
        return self.mask[...]


def test_nnx_refresh_has_dropout_of_its_own_and_leaves_that_of_steps():
    model, alone = Watched(), Watched()

    @nnx.jit
    def mask(model):
        value_fn = qiaso_flax.nnx_value_fn(model, lambda model: model())
        return value_fn(nnx.state(model, nnx.Param))

    steps, refreshes = [], []
    for _ in range(4):
        steps.append(mask(model))
        nnx.jit(qiaso_flax.nnx_refresh_batch_stats)(model)
        refreshes.append(model.mask[...])
    assert_trees_equal(steps, [mask(alone) for _ in range(4)])
    assert len(np.unique(np.array(steps + refreshes), axis=0)) == 8


def test_linen_dropout_is_drawn_anew_in_each_step_and_alike_for_its_candidates():
    model, key = nn.Dropout(0.5, deterministic=False), jax.random.key(1)

    def update(updates, state, params=None, *, value_fn, **extra):
        candidates = jax.tree.map(lambda p: jnp.stack([p, p + 1]), params)
        return updates, jax.vmap(lambda c: value_fn(c, **extra))(candidates)

    tx = optax.GradientTransformationExtraArgs(lambda _: jnp.zeros((2, 64)), update)
    state = qiaso_flax.TrainState.create(
        apply_fn=model.apply, params={"weight": jnp.zeros(2)}, tx=tx
    )

    def masks(params, apply_fn, step):
        return apply_fn({}, BITS, rngs={"dropout": jax.random.fold_in(key, step)})

    step = jax.jit(lambda state: state.apply_gradients(value_fn=masks))
    drawn = []
    for _ in range(4):
        state = step(state)
        drawn.append(np.array(state.opt_state))
    drawn = np.array(drawn)
    assert (drawn == drawn[:, :1]).all()
    assert len(np.unique(drawn[:, 0], axis=0)) == 4


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

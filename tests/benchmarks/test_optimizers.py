import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from benchmarks.cli import UserError
from benchmarks.harness import evolution, networks, optimizers, transformations
from benchmarks.harness.interface import Objective, Setting, State
from benchmarks.harness.networks import Batch, Network

pytestmark = pytest.mark.slow

SETTING = Setting(
    peak_learning_rate=0.05,
    schedule="constant",
    sigma=0.1,
    num_candidates=6,
    examples=0.5,
    steps_per_epoch=10,
    total_steps=100,
)
BATCH = Batch(jnp.ones((3, 2, 2, 1)), jnp.array([0, 1, 2]))


@pytest.fixture(autouse=True)
def _evosax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def counting(calls, batch_norm=False):
    """A network of ten biases that counts the examples it is evaluated on."""

    def init(key, images):
        del key, images
        return {"bias": jnp.zeros(10)}, {"mean": jnp.zeros(1)} if batch_norm else {}

    def apply(params, batch_stats, images, train):
        del train
        jax.debug.callback(lambda _: calls.append(len(images)), params["bias"][0])
        return jnp.tile(params["bias"], (len(images), 1)), batch_stats

    return Network(init, apply, convolutional=False)


def first_state(optimizer, network):
    return optimizer.init(jax.random.key(7), *network.init(None, None))


def test_registry_and_names_agree():
    assert set(optimizers.REGISTRY) == set(optimizers.NAMES)
    for entry in optimizers.REGISTRY.values():
        assert len(entry.grid) == 5
        assert list(entry.grid) == sorted(entry.grid)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["qiaso", "qiaso-paper", "pgpe", "open-es", "cma-es"])
def test_sample_forwards_are_what_is_evaluated(name, batch_norm):
    calls = []
    network = counting(calls, batch_norm)
    shape = jax.eval_shape(network.init, None, None)[0]
    optimizer = optimizers.build(name, network, SETTING, shape)
    state = first_state(optimizer, network)
    jax.block_until_ready(jax.jit(optimizer.step)(state, BATCH))
    jax.effects_barrier()
    claimed = optimizers.sample_forwards(name, SETTING, batch_norm)
    assert sum(calls) == claimed * len(BATCH.labels)


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("sgd", 3),
        ("sophia", 3.6),
        ("muon", 3),
        ("hybrid", 3 + 0.5 * 6),
        ("hybrid-muon", 3 + 0.5 * 6),
        ("snes", 6),
        ("node-qiaso", 1 + 0.5 * (1 + 6)),
    ],
)
def test_sample_forwards_by_hand(name, cost):
    assert optimizers.sample_forwards(name, SETTING, False) == pytest.approx(cost)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["sgd", "qiaso", "hybrid"])
def test_training_loss_is_smoothed(name):
    network = counting([])
    setting = SETTING._replace(label_smoothing=0.2, sigma=1e-6)
    shape = jax.eval_shape(network.init, None, None)[0]
    optimizer = optimizers.build(name, network, setting, shape)
    bias = jnp.linspace(0.0, 3.0, 10)
    state = first_state(optimizer, network)._replace(params={"bias": bias})
    log_p = scipy.special.log_softmax(np.linspace(0, 3, 10))
    expected = -np.mean([0.8 * log_p[label] + 0.2 * log_p.mean() for label in range(3)])
    assert float(optimizer.step(state, BATCH)[1]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("examples", [0.4, 1.0])
@pytest.mark.parametrize("name", ["hybrid", "hybrid-muon"])
def test_hybrid_evaluates_candidates_on_so_many_examples(name, examples):
    calls = []
    network = counting(calls)
    setting = SETTING._replace(examples=examples)
    shape = jax.eval_shape(network.init, None, None)[0]
    optimizer = optimizers.build(name, network, setting, shape)
    state = first_state(optimizer, network)
    batch = Batch(jnp.ones((10, 2, 2, 1)), jnp.arange(10))
    jax.block_until_ready(jax.jit(optimizer.step)(state, batch))
    jax.effects_barrier()
    # One forward pass with a backward one, and six candidates.
    assert sum(calls) == 10 + 6 * 10 * examples


def test_without_a_selection_one_clean_pass_is_enough():
    setting = SETTING._replace(examples=1.0)
    assert optimizers.sample_forwards("node-qiaso", setting, False) == 1 + 6


def test_adam_is_optax_adam_on_the_gradient():
    network = networks.build("mlp", hidden=(5,))
    images = jax.random.normal(jax.random.key(0), (8, 2, 2, 1))
    batch = Batch(images, jnp.arange(8))
    params, stats = network.init(jax.random.key(1), images)
    optimizer = optimizers.build("adam", network, SETTING, params)
    state = optimizer.init(jax.random.key(2), params, stats)

    def loss_fn(params):
        hidden = jax.nn.relu(
            images.reshape(8, 4) @ params["Dense_0"]["kernel"]
            + params["Dense_0"]["bias"][None]
        )
        logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), batch.labels])

    tx = optax.adam(0.05)
    expected, inner = params, tx.init(params)
    for _ in range(3):
        loss, grads = jax.value_and_grad(loss_fn)(expected)
        updates, inner = tx.update(grads, inner, expected)
        expected = optax.apply_updates(expected, updates)
        state, reported = optimizer.step(state, batch)
        assert float(reported) == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, expected
    )


@pytest.mark.parametrize(
    "make",
    [
        evolution.cma_es,
        evolution.sep_cma_es,
        evolution.open_es,
        evolution.snes,
        evolution.pgpe,
    ],
)
def test_evolution_minimises(make):
    # A quadratic in disguise: the loss is what `Objective.loss` returns.
    target = jnp.linspace(-1, 1, 5)

    class Sphere(Objective):
        def loss(self, params, batch_stats, batch):
            del batch_stats, batch
            return jnp.sum((params["x"] - target) ** 2)

    objective = Sphere(lambda *_: (jnp.zeros(()), {}))
    setting = SETTING._replace(num_candidates=20)
    start = {"x": jnp.zeros(5)}
    optimizer = evolution.from_evosax(make, objective, setting, start)

    @jax.jit
    def run(state):
        def step(state, _):
            return optimizer.step(state, BATCH)

        return jax.lax.scan(step, state, length=300)[0]

    state = run(optimizer.init(jax.random.key(0), start, {}))
    np.testing.assert_allclose(state.params["x"], target, atol=0.05)


def test_sep_cma_es_has_the_rates_of_a_diagonal():
    solution = {"x": np.zeros(50)}
    _, dense = evolution.cma_es(SETTING, solution)
    _, diagonal = evolution.sep_cma_es(SETTING, solution)
    # Ros and Hansen 2008, equation 4, for N = 50.
    assert float(diagonal.c_mu / dense.c_mu) == pytest.approx(52 / 3, rel=1e-5)
    assert float(diagonal.c_1 / dense.c_1) == pytest.approx(52 / 3, rel=1e-5)


def test_cma_es_refuses_a_large_network():
    with pytest.raises(UserError, match=r"N = 5,000 weights.*sep-cma-es"):
        evolution.cma_es(SETTING, {"x": np.zeros(5000)})


def first_update(name, params, batch, network):
    """How far a first step moves each parameter."""
    optimizer = optimizers.build(name, network, SETTING, params)
    state = optimizer.init(jax.random.key(2), params, {})
    return optax.tree.sub(jax.jit(optimizer.step)(state, batch)[0].params, params)


def test_muon_makes_singular_values_of_hidden_kernels_equal():
    network = networks.build("mlp", hidden=(6, 5))
    images = jax.random.normal(jax.random.key(0), (64, 2, 2, 2))
    batch = Batch(images, jnp.arange(64) % 10)
    params, _ = network.init(jax.random.key(1), images)
    moved = first_update("muon", params, batch, network)
    rate = SETTING.learning_rate(0)
    for layer, fan_out in (("Dense_0", 6), ("Dense_1", 5)):
        kernel = params[layer]["kernel"]
        step = -moved[layer]["kernel"] / rate
        step = np.asarray(step - transformations.MUON_WEIGHT_DECAY * kernel, np.float64)
        step /= np.sqrt(max(1, fan_out / len(kernel)))
        # Five iterations of the polynomial leave them between 0.7 and 1.2.
        values = np.linalg.svd(step, compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.3
    # The first step of Nadam, g (0.9·0.1/(1 − 0.9²) + 1) / |g|, wherever there is a
    # gradient.
    expected = rate * transformations.MUON_ADAM * (0.9 * 0.1 / (1 - 0.9**2) + 1)
    for leaf in (moved["Dense_0"]["bias"], moved["Dense_2"]["kernel"]):
        np.testing.assert_allclose(abs(leaf).max(), expected, rtol=1e-3)


def test_muon_takes_a_convolutions_kernel_as_one_matrix():
    axes = transformations.hidden_kernels(
        {"a": jnp.zeros((3, 3, 4, 8)), "b": jnp.zeros(8), "c": jnp.zeros((8, 10))}
    )
    assert axes == {"a": ((0, 1, 2), 3), "b": None, "c": None}


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("hybrid", "alone"), [("hybrid", "adam"), ("hybrid-muon", "muon")]
)
def test_candidates_move_a_hybrid_less_than_its_gradient_does(hybrid, alone):
    network = networks.build("mlp", hidden=(64,))
    # As many numbers as enter a 3×3 convolution of 256 channels.
    images = jax.random.normal(jax.random.key(0), (64, 48, 48, 1))
    batch = Batch(images, jnp.arange(64) % 10)
    params, _ = network.init(jax.random.key(1), images)
    both = first_update(hybrid, params, batch, network)["Dense_0"]["kernel"]
    step = first_update(alone, params, batch, network)["Dense_0"]["kernel"]
    more = float(jnp.linalg.norm(both - step) / jnp.linalg.norm(step))
    assert 0.01 < more < 0.15


def test_seeds_give_different_candidates():
    network = counting([])
    optimizer = optimizers.build("qiaso", network, SETTING, {"bias": jnp.zeros(10)})

    def one_step(key):
        state = optimizer.init(key, *network.init(None, None))
        return optimizer.step(state, BATCH)[0].params["bias"]

    moved = jax.jit(jax.vmap(one_step))(jax.random.split(jax.random.key(0)))
    assert not np.allclose(moved[0], moved[1])


def test_a_state_is_made_of_arrays():
    network = counting([])
    for name in ("hybrid", "qiaso-paper", "pgpe"):
        optimizer = optimizers.build(name, network, SETTING, {"bias": jnp.zeros(10)})
        state = first_state(optimizer, network)
        assert isinstance(state, State)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_cosine_ends_at_zero():
    cosine = SETTING._replace(schedule="cosine").learning_rate
    assert float(cosine(0)) == pytest.approx(0.05)
    assert float(cosine(50)) == pytest.approx(0.025)
    assert float(cosine(100)) == pytest.approx(0, abs=1e-9)
    assert SETTING.learning_rate(99) == 0.05

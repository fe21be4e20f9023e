"""The tests that evosax runs on its own algorithms, run on ours through ask and tell.

They are in evosax's repository alone, not in its wheels, nor in its source
distributions of 0.2 and later, so they run where a copy of it is named::

    git clone https://github.com/RobertTLange/evosax /tmp/evosax
    EVOSAX_SOURCE=/tmp/evosax pytest tests/test_evosax_suite.py

``AskTell`` is an algorithm as evosax's users write their own. What it does is tested
here in any case, by the optax loop that it stands for.
"""

import importlib.util
import inspect
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms.distribution_based.base import (
    DistributionBasedAlgorithm,
    Params,
    State,
)
from evosax.problems import BBOBProblem
from flax import struct

import qiaso_jax

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

# As in the conftest of evosax.
NUM_DIMS, NUM_GENERATIONS, POPULATION_SIZE = 2, 16, 8

START = np.array([2.0, -3.0], np.float32)


@struct.dataclass
class AskTellState(State):
    opt_state: optax.OptState


class AskTell(DistributionBasedAlgorithm):
    """An algorithm of evosax made of one of ours; its keys are those of our state."""

    def __init__(self, make, population_size, solution):
        super().__init__(population_size, solution)
        self.tx = make(population_size)

    @property
    def _default_params(self):
        return Params()

    def _init(self, key, params):
        mean = jnp.full(self.num_dims, jnp.nan)  # which evosax replaces
        opt_state = self.tx.init(mean)
        return AskTellState(
            best_solution=mean,
            best_fitness=jnp.inf,
            generation_counter=0,
            mean=mean,
            opt_state=optax.tree.set(opt_state, key=jax.random.key_data(key)),
        )

    def _ask(self, key, state, params):
        return qiaso_jax.ask(self.tx, state.opt_state, state.mean), state

    def _tell(self, key, population, fitness, state, params):
        updates, opt_state = qiaso_jax.tell(
            self.tx, state.opt_state, state.mean, fitness
        )
        mean = optax.apply_updates(state.mean, updates)
        return state.replace(mean=mean, opt_state=opt_state)


def qiaso(population_size):
    return qiaso_jax.qiaso(population_size, 0.3, optimizer=optax.adamw(0.1))


def stored_qiaso(population_size):
    return qiaso_jax.qiaso(population_size, 0.5, collapse="best", collapse_every=2)


def factorised_qiaso(population_size):
    return qiaso_jax.factorised_qiaso(4, 0.5, num_measurements=population_size)


MAKERS = [qiaso, stored_qiaso, factorised_qiaso]
ALGORITHMS = {make.__name__: partial(AskTell, make) for make in MAKERS}


@pytest.fixture
def problem():
    return BBOBProblem(fn_name="sphere", num_dims=NUM_DIMS, seed=0)


def run(algorithm, problem, key, mean, num_generations=NUM_GENERATIONS):
    """A scan of generations: the state after it, and the metrics of each."""
    params = algorithm.default_params
    problem_state = problem.init(key)

    def generation(state, key):
        population, state = algorithm.ask(key, state, params)
        fitness, *_ = problem.eval(key, population, problem_state)
        return algorithm.tell(key, population, fitness, state, params)

    state = algorithm.init(key, mean, params)
    return jax.lax.scan(generation, state, jax.random.split(key, num_generations))


@pytest.mark.parametrize("make", MAKERS)
def test_runs_are_those_of_the_optax_loop(make, problem):
    key = jax.random.key(1)
    state, _ = run(AskTell(make, POPULATION_SIZE, START), problem, key, START)

    problem_state = problem.init(key)

    def loss(x):
        fitness, *_ = problem.eval(key, x[None], problem_state)
        return fitness[0]

    tx = make(POPULATION_SIZE)
    mean = START
    opt_state = optax.tree.set(
        tx.init(jnp.full(NUM_DIMS, jnp.nan)), key=jax.random.key_data(key)
    )
    update = jax.jit(partial(tx.update, value_fn=loss))
    for _ in range(NUM_GENERATIONS):
        updates, opt_state = update(None, opt_state, mean)
        mean = optax.apply_updates(mean, updates)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_runs_of_many_keys_are_runs_of_each(make, problem):
    algorithm = AskTell(make, POPULATION_SIZE, START)

    def mean_after(key):
        return run(algorithm, problem, key, START)[0].mean

    keys = jax.random.split(jax.random.key(2), 3)
    means, each = jax.vmap(mean_after)(keys), [mean_after(key) for key in keys]
    np.testing.assert_allclose(means, jnp.stack(each), rtol=1e-4)
    assert len({tuple(mean) for mean in means.tolist()}) == 3


@pytest.mark.parametrize("make", MAKERS)
def test_the_sphere_is_descended(make, problem):
    algorithm = AskTell(make, POPULATION_SIZE, START)
    state, metrics = run(algorithm, problem, jax.random.key(3), START, 100)
    assert jnp.all(jnp.diff(metrics["best_fitness"]) <= 0)
    assert state.best_fitness == metrics["best_fitness"][-1]
    np.testing.assert_allclose(state.mean, problem.x_opt, atol=1.0)
    np.testing.assert_allclose(state.best_solution, problem.x_opt, atol=0.25)


def test_a_population_has_the_structure_of_the_solution():
    solution = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    algorithm = AskTell(qiaso, POPULATION_SIZE, solution)
    params = algorithm.default_params
    state = algorithm.init(jax.random.key(0), solution, params)
    population, _ = algorithm.ask(jax.random.key(0), state, params)
    assert jax.tree.map(jnp.shape, population) == {"w": (8, 2, 3), "b": (8, 3)}


SOURCE = os.environ.get("EVOSAX_SOURCE")
SUITE = ["test_run", "test_run_scan", "test_base_api"]
needs_source = pytest.mark.skipif(
    SOURCE is None,
    reason="EVOSAX_SOURCE must name a copy of evosax's repository, where its tests are",
)


def evosax_tests():
    path = Path(SOURCE) / "tests/test_algorithms/test_distribution_based.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments_of(test):
    return inspect.signature(test).parameters


@needs_source
def test_the_suite_has_no_other_tests_of_every_algorithm():
    of_every = [
        name
        for name, test in inspect.getmembers(evosax_tests(), inspect.isfunction)
        if "distribution_based_algorithm_name" in arguments_of(test)
    ]
    assert of_every == sorted(SUITE)


@needs_source
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("test", SUITE)
def test_evosax_suite(test, name, problem):
    module = evosax_tests()
    module.distribution_based_algorithms = ALGORITHMS
    fixtures = {
        "distribution_based_algorithm_name": name,
        "key": jax.random.key(0),
        "num_dims": NUM_DIMS,
        "num_generations": NUM_GENERATIONS,
        "population_size": POPULATION_SIZE,
        "bbob_problem": problem,
    }
    test = getattr(module, test)
    test(**{argument: fixtures[argument] for argument in arguments_of(test)})

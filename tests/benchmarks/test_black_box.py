import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from benchmarks.black_box import __main__ as black_box
from benchmarks.black_box import hyperparameters, pendulum, rivals, shifted
from benchmarks.black_box.problem import Instance, Problem, Search
from benchmarks.cli import UserError

pytestmark = pytest.mark.slow

COMPILED = ("minimize", "evosax CMA-ES", "evosax SNES", "evosax Open-ES")
"""Methods that take seconds to compile."""


def paraboloid(seed):
    """Least at 1 in three dimensions, whatever the seed."""
    return Instance(
        lambda points: np.sum((points - 1) ** 2, axis=1),
        start=np.full(3, -2.0),
        lower=np.full(3, -4.0),
        upper=np.full(3, 4.0),
        is_bounded=True,
        integers=np.zeros(3, bool),
        measures=lambda x: {"value": float(np.sum((x - 1) ** 2))},
    )


def test_pendulum_without_a_torque_moves_as_the_equation_says():
    # θ'' = 3 g / (2 l) sin θ, and the energy m l² θ'²/6 + m g l/2 cos θ stays.
    seconds, number = 1e-4, 12_000
    with jax.enable_x64(True):
        first = jnp.array([0.3, 0.5])
        states = jax.lax.scan(
            lambda state, _: (pendulum.moved(state, 0.0, seconds),) * 2,
            first,
            length=number,
        )[1]
    solved = scipy.integrate.solve_ivp(
        lambda _, state: [state[1], 15 * np.sin(state[0])],
        (0, seconds * number),
        np.array([0.3, 0.5]),
        rtol=1e-10,
        atol=1e-10,
    )
    np.testing.assert_allclose(states[-1], solved.y[:, -1], atol=1e-2)
    angle, speed = np.asarray(states).T
    assert speed.max() > 7  # it has fallen
    energy = speed**2 / 6 + 5 * np.cos(angle)
    np.testing.assert_allclose(energy, 0.5**2 / 6 + 5 * np.cos(0.3), atol=5e-3)


def test_a_torque_accelerates_by_three_and_speed_is_limited():
    still = jnp.array([0.0, 0.0])
    assert pendulum.moved(still, 2.0)[1] == pytest.approx(2 * 3 * 0.05)
    fast = jnp.array([np.pi / 2, 7.9])
    assert pendulum.moved(fast, 2.0)[1] == 8.0


def test_the_policy_is_a_perceptron():
    weights = np.random.default_rng(0).standard_normal(pendulum.SIZE)
    angle, speed = 2.0, -3.0
    signal, taken = np.array([math.cos(angle), math.sin(angle), speed / 8]), 0
    for n, m in ((3, 32), (32, 32), (32, 1)):
        kernel = weights[taken : taken + n * m].reshape(n, m)
        bias = weights[taken + n * m : taken + (n + 1) * m]
        taken += (n + 1) * m
        signal = np.tanh((signal @ kernel + bias) / np.sqrt(n + 1))
    assert taken == pendulum.SIZE > 1000
    torque = pendulum.policy(jnp.asarray(weights), jnp.array([angle, speed]))
    assert torque == pytest.approx(2 * signal[0], rel=1e-4)


def test_a_return_is_minus_the_cost_of_all_steps():
    # Without a torque, hanging at rest, each of 200 steps costs π².
    value = pendulum.mean_return(jnp.zeros(pendulum.SIZE), jnp.array([np.pi]))
    assert value == pytest.approx(-200 * np.pi**2, rel=1e-3)
    held_out = pendulum.angles(pendulum.HELD_OUT)
    training = pendulum.angles(pendulum.TRAINING)
    assert abs(held_out[:, None] - training).min() > 1e-3


@pytest.mark.parametrize("name", shifted.FUNCTIONS)
def test_shifted_functions_are_least_at_their_shift(name):
    function = shifted.FUNCTIONS[name]
    assert function(np.zeros(7)) == pytest.approx(0, abs=1e-12)
    x = np.random.default_rng(1).uniform(-4, 4, (200, 7))
    assert np.all(function(x) > 0)
    one = shifted.instance(name, 5, 0.0, seed=3)
    values = one.values(x[:, :5])
    np.testing.assert_allclose(values, [one.measures(y)["value"] for y in x[:, :5]])
    # The shift is the first thing drawn after the rotation.
    rng = np.random.default_rng([3, 5])
    rng.standard_normal((5, 5))
    shift = rng.uniform(-4, 4, 5)
    assert one.measures(shift)["value"] == pytest.approx(0, abs=1e-12)


def test_functions_equal_their_textbook_forms():
    x = np.random.default_rng(2).uniform(-4, 4, (20, 6))
    wave = np.cos(2 * np.pi * x)
    rastrigin = 60 + np.sum(x**2 - 10 * wave, axis=1)
    ackley = 20 + math.e - np.exp(np.mean(wave, axis=1))
    ackley -= 20 * np.exp(-0.2 * np.sqrt(np.mean(x**2, axis=1)))
    rosenbrock = [scipy.optimize.rosen(y + 1) for y in x]
    np.testing.assert_allclose(shifted.rastrigin(x), rastrigin)
    np.testing.assert_allclose(shifted.ackley(x), ackley)
    np.testing.assert_allclose(shifted.rosenbrock(x), rosenbrock)


def test_rotations_are_orthogonal_and_without_a_preferred_sign():
    rng = np.random.default_rng(0)
    matrices = np.array([shifted.rotation(rng, 4) for _ in range(2000)])
    unit = np.einsum("nij,nkj->nik", matrices, matrices)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(4), unit.shape), atol=1e-12)
    # Of uniform ones each entry has mean 0 and variance 1/4; five standard errors.
    assert abs(matrices.mean(axis=0)).max() < 5 * 0.5 / np.sqrt(2000)


def test_noise_is_on_values_and_not_on_measures():
    noisy = shifted.instance("Ackley", 3, 1.0, seed=0)
    points = np.zeros((4000, 3))
    errors = noisy.values(points) - noisy.measures(points[0])["value"]
    assert abs(errors.mean()) < 4 / np.sqrt(4000)
    assert abs(errors.std() - 1) < 4 / np.sqrt(8000)


def test_hyperparameters_are_what_their_names_say():
    made = hyperparameters.model(np.array([-2.0, 1.0, 0.0, 2.6, -0.5, 0.5, 0.4]))
    wanted = {"alpha": 0.01, "gamma": 10.0, "coef0": 1.0, "degree": 3}
    assert made.get_params().items() >= (wanted | {"kernel": "polynomial"}).items()


def test_cross_validation_is_that_of_scikit_learn():
    from sklearn.model_selection import KFold, cross_val_score

    one = hyperparameters.instance(5)
    images, known, *_ = hyperparameters.data(5)
    folds = KFold(hyperparameters.FOLDS, shuffle=True, random_state=5)
    x = np.array([-3.0, -1.5, 0.0, 3.0, 1.0, 0.0, 0.0])
    scores = cross_val_score(hyperparameters.model(x), images, known, cv=folds)
    assert -one.values(x[None])[0] == pytest.approx(scores.mean())


def test_a_search_counts_and_notes_the_best_and_evaluates_no_more():
    search = Search(paraboloid(0), budget=3)
    np.testing.assert_array_equal(
        search.values(np.array([[1, 1, 2], [1, 1, 3]])), [1, 4]
    )
    np.testing.assert_array_equal(search.best, [1, 1, 2])
    values = search.values(np.array([[1, 1, 1.5], [1, 1, 1]]))
    np.testing.assert_array_equal(values, [0.25, np.inf])
    assert search.left == 0
    np.testing.assert_array_equal(search.values(np.ones((2, 3))), [np.inf, np.inf])
    np.testing.assert_array_equal(search.best, [1, 1, 1.5])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.nightly) if name in COMPILED else name
        for name in rivals.METHODS
    ],
)
def test_each_method_spends_the_budget_in_the_box_and_approaches_the_optimum(name):
    one, seen = paraboloid(0), []

    def values(points):
        seen.append(points)
        return one.values(points)

    method = rivals.METHODS[name]
    search = Search(one._replace(values=values), budget=300)
    # evosax relies on the promotion that this project's tests forbid.
    with jax.numpy_rank_promotion("allow"):
        mean = method.search(search, method.settings[-1], 1)
    points = np.concatenate(seen)
    assert 300 - rivals.population(3) < len(points) <= 300
    assert np.all((points >= one.lower) & (points <= one.upper))
    assert search.least < 1  # 27 at the start
    if mean is not None:
        assert one.measures(mean)["value"] < 2


def test_the_setting_is_chosen_on_other_seeds():
    told = []

    def search(search, setting, seed):
        told.append((setting, seed))
        search.values(np.full((1, 3), setting))

    command = black_box.Command(seeds=3, tuning_seeds=2)
    problem = Problem("paraboloid", paraboloid, 10)
    run = black_box.tuned(command, problem, rivals.Method(search, (0.0, 2.5, 1.5)))
    assert run["setting"] == 1.5
    tuning = list(itertools.product((0.0, 2.5, 1.5), range(2)))
    reported = [(1.5, seed) for seed in range(1000, 1003)]
    assert told == tuning + reported
    assert run["found"] == [{"best seen": {"value": 0.75}}] * 3
    worst = problem._replace(sign=-1)
    run = black_box.tuned(command, worst, rivals.Method(search, (0.0, 2.5, 1.5)))
    assert run["setting"] == 2.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole run of the command with few evaluations."""
    folder = tmp_path_factory.mktemp("black_box")
    groups = {
        "hyper-parameters": (hyperparameters.PROBLEM._replace(evaluations=20),),
        "10-D, noise": shifted.problems(10, 1.0, 20)[:2],
    }
    methods = ("cma", "differential evolution", "random search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(black_box, "GROUPS", groups)
        black_box.main(
            black_box.Command(
                output=folder,
                groups=tuple(groups),
                methods=methods,
                seeds=2,
                tuning_seeds=1,
                budget=0.5,
            )
        )
    return folder


def test_every_method_has_a_row_and_every_seed_a_result(folder):
    content = json.loads((folder / "results.json").read_text())
    assert {"cma", "scipy", "scikit-learn"} <= content["versions"].keys()
    runs = content["runs"]
    assert [run["evaluations"] for run in runs] == [10] * 3 + [100] * 6
    assert all(len(run["found"]) == 2 for run in runs)
    text = (folder / "table.md").read_text()
    for run in runs:
        measure, *_ = run["found"][0]["best seen"]
        values = [found["best seen"][measure] for found in run["found"]]
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        assert f"| {median:.3g} ({q1:.3g} to {q3:.3g}) |" in text
    assert text.count("| cma, mean |") == 1
    assert text.count("| random search |") == 1
    assert "random search, mean" not in text


def test_stored_table_is_what_the_stored_numbers_give():
    folder = black_box.Command().output
    content = json.loads((folder / "results.json").read_text())
    assert black_box.page(content) == (folder / "table.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"groups": ("12-D",)}, r"--groups must be among 'pendulum', .*'12-D'"),
        ({"methods": ()}, "--methods must name at least one"),
        ({"budget": 0.0}, "--budget must be positive"),
    ],
)
def test_impossible_commands_are_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        black_box.main(black_box.Command(output=tmp_path / "none", **settings))
    assert not (tmp_path / "none").exists()

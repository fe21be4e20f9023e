import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.rastrigin import __main__ as rastrigin
from benchmarks.rastrigin import methods, rivals

pytestmark = pytest.mark.slow

BUDGET = 620


def test_function_equals_its_textbook_form_in_float64():
    x = np.random.default_rng(1).uniform(-5.12, 5.12, (50, methods.DIMENSION))
    expected = 10 * methods.DIMENSION + np.sum(x**2 - 10 * np.cos(2 * np.pi * x), -1)
    np.testing.assert_allclose(methods.rastrigin(x, np), expected, rtol=1e-12)
    single = methods.rastrigin(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    assert methods.rastrigin(jnp.zeros(methods.DIMENSION)) == 0


def test_function_keeps_its_digits_near_the_minimum():
    # To second order, 30 (1 + 20 π²) h²; the textbook form rounds it to zero.
    h = 1e-5
    value = methods.rastrigin(jnp.full(methods.DIMENSION, h, jnp.float32))
    expected = methods.DIMENSION * (1 + 20 * math.pi**2) * h**2
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_starts_are_in_the_box_and_do_not_depend_on_the_number_of_seeds():
    starts = methods.starting_points(7)
    assert starts.shape == (7, methods.DIMENSION)
    assert np.all(np.abs(starts) <= methods.HALF_WIDTH)
    np.testing.assert_array_equal(starts[:3], methods.starting_points(3))


def test_cma_spends_the_whole_budget_by_restarting():
    run = rivals.cma_es(20_000, methods.starting_points(1), population=10)
    assert run.evaluations == 20_000
    assert run.settings["restarts_per_seed"] >= 1
    again = rivals.cma_es(20_000, methods.starting_points(1), population=10)
    assert run.values == again.values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole run of the command with few settings and few evaluations."""
    folder = tmp_path_factory.mktemp("rastrigin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rastrigin, "SNES_POPULATIONS", (30,))
        patch.setattr(rastrigin, "OPEN_ES_POPULATIONS", (30,))
        patch.setattr(rastrigin, "OPEN_ES_RATES", (0.03, 0.1))
        patch.setattr(rastrigin, "OPEN_ES_LAST_SIGMAS", (1e-2,))
        command = rastrigin.Command(output=folder, seeds=2, evaluations=(BUDGET,))
        # evosax relies on the promotion that this project's tests forbid.
        with jax.numpy_rank_promotion("allow"):
            rastrigin.main(command)
    return folder


def test_results_say_what_was_run(folder):
    results = json.loads((folder / "results.json").read_text())
    assert {"date", "revision", "versions", "machine", "command"} <= results.keys()
    assert {"jax", "evosax", "cma"} <= results["versions"].keys()
    assert results["seeds"] == [0, 1]
    methods_run = {run["method"] for run in results["runs"]}
    assert methods_run == {
        "QIASO, faithful",
        "QIASO, working",
        "random search",
        "cma",
        "evosax SNES",
        "evosax Open_ES",
    }
    shown = [run["method"] for run in results["runs"] if run["shown"]]
    assert sorted(shown) == sorted([*methods_run, "cma", "cma"])
    assert len(results["runs"]) == len(shown) + 1  # the other rate of Open_ES


def test_every_method_has_the_same_budget(folder):
    for run in json.loads((folder / "results.json").read_text())["runs"]:
        population = run["settings"]["population"]
        assert run["budget"] == BUDGET
        assert BUDGET - population < run["evaluations"] <= BUDGET
        assert run["evaluations"] % population == 0


def test_values_are_finite_and_summarised(folder):
    for run in json.loads((folder / "results.json").read_text())["runs"]:
        assert len(run["values"]) == 2
        assert all(0 <= value < 1000 for value in run["values"])
        np.testing.assert_allclose(run["quartiles"][1], np.median(run["values"]))
        assert run["quartiles"] == sorted(run["quartiles"])
        assert run["solved"] == 0
        assert run["seconds"] > 0


def test_table_has_a_row_per_method(folder):
    table = (folder / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 8
    assert len({row.count("|") for row in rows}) == 1


def test_stored_table_is_what_the_stored_numbers_give():
    folder = rastrigin.Command().output
    results = json.loads((folder / "results.json").read_text())
    fields = methods.Run.__dataclass_fields__
    runs = [
        methods.Run(**{name: run[name] for name in fields})
        for run in results["runs"]
        if run["shown"]
    ]
    text = rastrigin.page(runs, len(results["seeds"]))
    assert text == (folder / "table.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"evaluations": (100,)}, "--evaluations must be at least 300"),
        ({"evaluations": ()}, "--evaluations must name at least one"),
    ],
)
def test_impossible_commands_are_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        rastrigin.main(rastrigin.Command(output=tmp_path / "none", **settings))
    assert not (tmp_path / "none").exists()

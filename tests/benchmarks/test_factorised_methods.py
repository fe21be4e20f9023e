import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.factorised import __main__ as factorised
from benchmarks.factorised import methods, network
from benchmarks.rastrigin.methods import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole run of the command with little of everything."""
    folder = tmp_path_factory.mktemp("factorised")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factorised, "LEARNING_RATES", (0.01, 0.03))
        some = ("whole vector", "leaf, measured")
        optimizers = {name: network.OPTIMIZERS[name] for name in some}
        patch.setattr(network, "OPTIMIZERS", optimizers)
        patch.setattr(
            methods, "FUNCTIONS", {"rotated Rastrigin": methods.rotated_rastrigin}
        )
        command = factorised.Command(
            output=folder,
            seeds=1,
            evaluations=(1900,),
            network_seeds=2,
            network_evaluations=250,
            sizes=(3,),
        )
        with jax.numpy_rank_promotion("raise"):
            factorised.main(command)
    return folder


@pytest.mark.nightly
def test_results_say_what_was_run(folder):
    results = json.loads((folder / "results.json").read_text())
    assert {"date", "revision", "versions", "machine", "command"} <= results.keys()
    searches = results["searches"]
    assert {s["function"] for s in searches} == {"rotated Rastrigin"}
    assert len(searches) == 4
    for search in searches:
        assert 1900 - 930 < search["evaluations"] <= 1900
        assert search["evaluations"] % search["settings"]["population"] == 0
        assert all(0 < value < 1000 for value in search["values"])
    assert len(results["network"]) == 2 * 2
    assert sum(each["shown"] for each in results["network"]) == 2
    for training in results["network"]:
        assert training["evaluations"] == 240
        assert np.isfinite(training["train_losses"]).all()
    assert [each["evaluations"] for each in results["cost"]] == [90, 300]


@pytest.mark.nightly
def test_table_has_a_row_for_each(folder):
    table = (folder / "table.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(lines) == 3 * 2 + 4 + 2 + 2
    assert "nan" not in table


def test_the_rotation_keeps_the_minimum_and_mixes_the_coordinates():
    assert methods.rotated_rastrigin(jnp.zeros(methods.DIMENSION)) == 0
    step = jnp.eye(methods.DIMENSION)[0]
    # A whole step along an axis is another minimum of the function itself only.
    assert methods.rastrigin(step) == pytest.approx(1, abs=1e-5)
    assert methods.rotated_rastrigin(step) > 2


def test_stored_tables_are_what_the_stored_numbers_give():
    folder = factorised.Command().output
    results = json.loads((folder / "results.json").read_text())
    searches = [
        (
            each["function"],
            Run(**{name: each[name] for name in Run.__dataclass_fields__}),
        )
        for each in results["searches"]
    ]
    shown = [each for each in results["network"] if each.pop("shown")]
    text = factorised.page(
        searches,
        [network.Training(**each) for each in shown],
        [methods.Cost(**each) for each in results["cost"]],
    )
    assert text == (folder / "table.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"network_seeds": 0}, "--network-seeds must be at least 1"),
        ({"evaluations": (100,)}, "--evaluations must be at least 930"),
        ({"network_evaluations": 100}, "must be at least 120"),
    ],
)
def test_impossible_commands_are_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        factorised.main(factorised.Command(output=tmp_path, **settings))

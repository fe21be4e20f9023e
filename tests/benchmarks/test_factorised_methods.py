import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks.factorised import __main__ as factorised
from benchmarks.factorised import methods


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole run of the command with little of everything."""
    folder = tmp_path_factory.mktemp("factorised")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factorised, "LEARNING_RATES", (0.01, 0.03))
        optimizers = methods.network_optimizers()
        some = {name: optimizers[name] for name in ("whole vector", "leaf, measured")}
        patch.setattr(methods, "network_optimizers", lambda: some)
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
            factorised.run(command, Console(quiet=True))
    return folder


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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (factorised.Command(seeds=0), "--seeds must be at least 1, got 0"),
        (factorised.Command(network_seeds=0), "--network-seeds must be at least 1"),
        (factorised.Command(evaluations=(100,)), "must each be at least 930"),
        (factorised.Command(network_evaluations=100), "must be at least 120"),
    ],
)
def test_impossible_commands_are_refused(command, message, capsys):
    assert factorised.main(command) == 1
    assert message in " ".join(capsys.readouterr().out.split())

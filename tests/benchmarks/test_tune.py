import json

import pytest

from benchmarks import tune
from benchmarks.harness.optimizers import NAMES, REGISTRY

pytestmark = pytest.mark.slow


def test_every_optimizer_has_a_trial_of_every_value():
    for name in NAMES:
        for value in REGISTRY[name].grid:
            experiment = tune.trial_experiment(name, value)
            assert getattr(experiment, REGISTRY[name].tunes) == value
            assert experiment.first_seed == tune.SEED


def test_the_best_finite_trial_is_chosen(tmp_path, monkeypatch):
    entry = REGISTRY["sgd"]._replace(grid=(1e-4, 0.1, 1e30))
    monkeypatch.setitem(REGISTRY, "sgd", entry)
    original = tune.trial_experiment

    def small(name, value):
        return tune.dataclasses.replace(
            original(name, value), dataset="digits", hidden=(8,)
        )

    monkeypatch.setattr(tune, "trial_experiment", small)
    output = tmp_path / "rates.json"
    output.write_text(json.dumps({"chosen": {"adam": 7}, "optimizers": {}}))
    tune.main(tune.Command(optimizers=("sgd",), output=output))
    content = json.loads(output.read_text())
    assert content["chosen"] == {"adam": 7, "sgd": 0.1}
    trials = content["optimizers"]["sgd"]["trials"]
    assert [trial["value"] for trial in trials] == [1e-4, 0.1, 1e30]
    assert trials[2]["validation_loss"] is None
    assert trials[1]["validation_accuracy"] > trials[0]["validation_accuracy"]


def test_stored_trials_are_of_the_grid_and_as_many_for_all():
    stored = json.loads(tune.RATES.read_text())
    assert set(stored["chosen"]) == set(NAMES)
    for name, report in stored["optimizers"].items():
        assert [trial["value"] for trial in report["trials"]] == list(
            REGISTRY[name].grid
        )
        best = max(trial["validation_accuracy"] for trial in report["trials"])
        (chosen,) = [t for t in report["trials"] if t["value"] == report["chosen"]]
        assert chosen["validation_accuracy"] == pytest.approx(best)

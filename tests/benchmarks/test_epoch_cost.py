import json

import pytest

from benchmarks import epoch_cost
from benchmarks.cli import UserError
from benchmarks.harness.settings import Experiment

pytestmark = pytest.mark.slow

DIGITS = Experiment(
    dataset="digits", hidden=(8,), batch_size=64, candidates=4, validation=0, limit=140
)
ENTRIES = (
    "adam",
    "node-qiaso",
    "node-qiaso:examples=1",
    "hybrid",
    "hybrid:examples=0.25",
    "hybrid-muon:examples=0.5",
)


def command(*optimizers, **settings):
    return epoch_cost.Command(optimizers, DIGITS, **settings)


@pytest.mark.nightly
def test_every_entry_is_timed_at_the_same_batch_size(tmp_path):
    output = tmp_path / "results" / "cost.json"
    epoch_cost.main(command(*ENTRIES, rounds=2, output=output))
    content = json.loads(output.read_text())
    assert {"date", "revision", "versions", "machine"} <= content.keys()
    assert content["rounds"] == 2
    report = content["optimizers"]
    assert tuple(report) == ENTRIES
    for row in report.values():
        assert row["examples_per_epoch"] == 128
        assert len(row["seconds_of_rounds"]) == 2
        assert min(row["seconds_of_rounds"]) <= row["seconds"]
        assert row["seconds"] <= max(row["seconds_of_rounds"])
        assert row["ratio"] > 0
    assert report["adam"]["ratio"] == report["adam"]["cpu_ratio"] == 1
    # A clean pass of all, another of those drawn, and their four candidates.
    cost = {entry: row["sample_forwards"] / 128 for entry, row in report.items()}
    # The hybrid sees a gradient, and its candidates all examples or a quarter.
    expected = [3, 1 + 5 / 4, 1 + 4, 3 + 4, 3 + 1, 3 + 2]
    assert [cost[entry] for entry in ENTRIES] == expected
    settings = [report[entry]["experiment"] for entry in ENTRIES]
    assert [each["examples"] for each in settings] == [None, 0.25, 1, 1, 0.25, 0.5]
    assert all(each["batch_size"] == 64 for each in settings)


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        ((), "must name at least one"),
        (("adm",), "must be of sgd, .*got 'adm'"),
        (("qiaso", "adam:examples=0.5"), "adam takes no --examples"),
        (("adam", "nadam"), "adam takes no --candidates"),
        (("node-qiaso:sigma=0.1",), ":examples=FRACTION.*got 'node-qiaso:sigma=0.1'"),
        (("node-qiaso:examples=",), "no number"),
        (("node-qiaso:examples=half",), "'node-qiaso:examples=half' is no number"),
        (("node-qiaso:examples=2",), "in \\(0, 1\\], got 2"),
    ],
)
def test_entries_that_cannot_be_are_refused(optimizers, message):
    with pytest.raises(UserError, match=message):
        epoch_cost.experiments(command(*optimizers))


def test_the_optimizer_of_one_run_is_refused():
    one = epoch_cost.Command(experiment=Experiment(optimizer="sgd"))
    with pytest.raises(UserError, match="here it is --optimizers"):
        epoch_cost.experiments(one)


def test_no_rounds_are_refused():
    with pytest.raises(UserError, match="--rounds must be at least 1, got 0"):
        epoch_cost.main(command("adam", rounds=0))

"""The command that injects faults, and the page that its numbers are shown on."""

import json
import signal

import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.faults import __main__ as faults
from benchmarks.faults import endurance, files, processes, report, searching, training

pytestmark = pytest.mark.slow

WITHOUT_GRADIENTS = ["qiaso", "qiaso, ranks", "factorised_qiaso", "node_qiaso"]


def by_fault(rows):
    return {row["injected"]: row for row in rows}


@pytest.mark.nightly
@pytest.mark.parametrize("name", WITHOUT_GRADIENTS)
def test_what_is_injected_in_a_training_is_counted(name):
    rows = by_fault(training.train(name, 60, 2))
    assert rows.keys() == training.FAULTS.keys()
    evaluated = 60 * training.methods()[name].number
    for injected, row in rows.items():
        fault = training.FAULTS[injected]
        nowhere = [0, 0]
        if name != "node_qiaso":
            expected = nowhere if np.isfinite(fault.value) else row["hits"]
            assert row["nonfinite"] == expected
        assert row["skipped"] == (row["steps_hit"] if fault.step else nowhere)
        assert row["flat"] == (row["steps_hit"] if fault.stretch else nowhere)
        assert row["moved"] == nowhere
        assert None not in row["train_loss"]
        # Within five standard deviations: 5e-7 for each of 44 numbers.
        if fault.each:
            deviation = np.sqrt(evaluated * fault.each * (1 - fault.each))
            away = np.abs(np.array(row["hits"]) - evaluated * fault.each)
            assert (away < 5 * deviation + 1).all()
    assert rows["nothing"]["hits"] == rows["nothing"]["nonfinite"] == [0, 0]


@pytest.mark.nightly
def test_gradients_of_nan_are_lost_in_adam_unless_they_are_left_out():
    bare = training.train("hybrid", 60, 2)[1]
    wrapped = training.train("hybrid, in apply_if_finite", 60, 2)[1]
    assert bare["hits"] == wrapped["hits"]
    assert bare["train_loss"] == [None, None]
    assert wrapped["moved"] == wrapped["skipped"] == [0, 0]
    assert None not in wrapped["train_loss"]


def test_simulations_that_die_are_counted(monkeypatch):
    monkeypatch.setattr(searching, "NUM_STEPS", 10)
    rows = by_fault(searching.asked_and_told("qiaso", 1))
    assert rows["nothing"]["hits"] == [0]
    assert 50 < rows["50% of simulations die"]["hits"][0] < 250
    for injected, row in rows.items():
        died = "die" in injected
        assert row["nonfinite"] == (row["hits"] if died else [0])
        assert row["value"][0] < 90


def test_holes_in_a_function_are_as_wide_as_said():
    rows = searching.minimised(2)
    for share, row in zip(searching.SHARES, rows, strict=True):
        found = np.array(row["nonfinite"]) / searching.BUDGET
        # Of 12,000 the standard deviation is 0.5 % at most.
        assert np.abs(found - share).max() < 0.03
        assert max(row["value"]) < 1e-3


@pytest.mark.nightly
def test_a_training_that_was_killed_is_the_same(tmp_path):
    row = processes.ended(tmp_path, "adam", signal.SIGKILL, 1)
    assert row["same"]
    assert row["times"] == 1
    # At most two checkpoints are under way.
    assert 0 <= row["again"] < 3 * processes.CHECKPOINT_EVERY


@pytest.mark.parametrize("damage", files.DAMAGES)
def test_every_damage_damages(damage):
    rng = np.random.default_rng(0)
    content = rng.bytes(200)
    for _ in range(100):
        damaged = files.DAMAGES[damage](content, rng)
        assert damaged != content
        assert len(damaged) <= len(content)


@pytest.mark.parametrize("damage", files.DAMAGES)
def test_damage_is_not_misread_where_there_is_a_digest(damage, tmp_path):
    row = files.damaged_checkpoints(tmp_path, damage, 3)
    alone, compared = files.damaged_bytes(damage, 100)
    assert row["misread"] == compared["misread"] == 0
    assert compared["refused"] == 100
    # This is what the digest is for.
    assert (alone["misread"] > 0) == (damage != "a file truncated")
    for each in (row, alone, compared):
        assert sum(each[name] for name in files.OUTCOMES) == each["trials"]


def test_states_of_something_else_are_refused():
    for row in (files.old_states(), files.foreign_states()):
        assert row["refused"] == row["trials"] > 2


@pytest.mark.nightly
@pytest.mark.parametrize("name", endurance.METHODS)
def test_nothing_drifts_in_a_hundred_thousand_steps(name):
    row = endurance.endured(name, 100_000, 2_000)
    assert row["step"] == 100_000
    # Rounding of a sum of exponentials in float32.
    assert row["unnormalised"] < 1e-6
    # Offsets of 0.01 and Adam's steps of 0.01 leave the centre about there.
    assert row["distance"] < row["worst_distance"] + 1e-6 < 0.05
    # Two thousand states would be more than that.
    assert row["growth"] < 1


def test_the_stored_page_is_what_the_stored_numbers_give():
    command = faults.Command()
    content = json.loads((command.output / "results.json").read_text())
    text = report.page(content)
    assert (command.output / "table.md").read_text() == f"# Faults\n\n{text}"
    document = command.docs.read_text()
    assert report.placed(document, text) == document
    assert {"date", "revision", "machine", "versions"} <= content.keys()


def test_stored_numbers_hold_what_the_page_says():
    content = json.loads((faults.Command().output / "results.json").read_text())
    for row in content["trainings"]:
        if "hybrid" not in row["method"]:
            assert row["moved"] == [0] * content["settings"]["seeds"]
    assert all(row["same"] for row in content["processes"])
    for row in content["files"]:
        assert row["misread"] == 0 or row["reader"] == "msgpack, alone"
    assert all(row["step"] == row["steps"] == 1_000_000 for row in content["long"])


def test_the_command_leaves_results_and_page(tmp_path, monkeypatch, capsys):
    stored = json.loads((faults.Command().output / "results.json").read_text())
    parts = {
        "trainings": "trainings",
        "searches": "searches",
        "ended_processes": "processes",
        "damaged_files": "files",
        "long_runs": "long",
    }
    for function, part in parts.items():
        monkeypatch.setattr(faults, function, lambda _, part=part: stored[part])
    docs = tmp_path / "faults.md"
    docs.write_text(f"# Faults\n\nAs it was.\n\n{report.HEADING}\n\nold\n")
    faults.main(faults.Command(output=tmp_path / "results", docs=docs))
    content = json.loads((tmp_path / "results/results.json").read_text())
    assert {part: content[part] for part in parts.values()} == {
        part: stored[part] for part in parts.values()
    }
    text = report.page(content)
    assert docs.read_text() == f"# Faults\n\nAs it was.\n\n{report.HEADING}\n\n{text}"
    assert text in capsys.readouterr().out


def test_a_page_that_is_not_there_is_refused_at_once(tmp_path):
    command = faults.Command(output=tmp_path, docs=tmp_path / "none.md")
    with pytest.raises(UserError, match=r"cannot write the results: .*none\.md"):
        faults.main(command)


@pytest.mark.parametrize("name", ["seeds", "steps", "times", "checkpoints", "calls"])
def test_impossible_commands_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"--{name} must be at least 1, got 0"):
        faults.main(faults.Command(output=tmp_path, **{name: 0}))

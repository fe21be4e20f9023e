import json
import re

import jax
import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.harness import mlp
from benchmarks.node_signal.measure import cosine
from benchmarks.node_space import (
    batch_norm,
    digits,
    quantised,
    report,
    scan_models,
    scan_report,
    scans,
)

pytestmark = pytest.mark.slow

PROVENANCE = {"command", "settings", "date", "revision", "versions", "machine"}


def results(module, command):
    """What a whole run of the command leaves in its folder."""
    module.main(command)
    name = module.__name__.rpartition(".")[2]
    content = json.loads((command.output / f"{name}.json").read_text())
    assert content.keys() >= PROVENANCE
    return content, (command.output / f"{name}.md").read_text()


def check_accuracies(row, command):
    """Recomputes everything from the counts of right answers."""
    assert "refused" not in row
    assert row["test_size"] == 360
    assert row["validation_size"] == 287
    correct = np.array(row["test_correct"])
    assert correct.shape == (command.seeds,)
    assert np.all((correct >= 0) & (correct <= row["test_size"]))
    np.testing.assert_allclose(row["test_accuracies"], correct / 360)
    assert row["test_accuracy"] == pytest.approx(np.mean(correct / 360))
    of_rates = {each["rate"]: each["validation_correct"] for each in row["rates"]}
    assert list(of_rates) == list(command.rates)
    totals = {rate: sum(counts) for rate, counts in of_rates.items()}
    assert totals[row["rate"]] == max(totals.values())


def table_rows(text):
    return [line for line in text.splitlines() if line.startswith("| ")][2:]


@pytest.mark.nightly
def test_quantised_counts_right_answers(tmp_path):
    command = quantised.Command(
        output=tmp_path,
        families=("rounded",),
        seeds=2,
        epochs=1,
        batch_size=256,
        rates=(1e-3, 1e-2),
        units=(0.1,),
    )
    content, text = results(quantised, command)
    rows = content["rows"]
    assert [row["method"] for row in rows] == [
        "node_qiaso",
        'node_qiaso, space="weights"',
        "qiaso",
    ]
    for row in rows:
        check_accuracies(row, command)
    assert {rows[1]["spaces"][name] for name in mlp.KERNELS} == {"weights"}
    assert content["seeds"] == [0, 1]
    assert len(table_rows(text)) == 3


def test_quantised_has_all_rows():
    rows = list(quantised.rows_of(quantised.Command()))
    assert len(rows) == 2 + 3 + 2 + 2 * 3
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("quantiser", "values"), [("binary", 2), ("2-bit", 4), ("8-bit", 255)]
)
def test_quantisers_have_so_many_values(quantiser, values):
    w = np.linspace(-1, 1, 2000, dtype=np.float32)
    found = np.asarray(quantised.QUANTISERS[quantiser](w))
    assert len(np.unique(found)) == values
    assert np.all(np.diff(found) >= 0)
    np.testing.assert_allclose(found, -found[::-1], atol=1e-6)


@pytest.mark.parametrize("family", ["rounded", "straight-through"])
def test_the_unit_does_not_change_the_network(family):
    images = jax.random.normal(jax.random.key(0), (5, 8, 8, 1))
    found = []
    for unit in (1.0, 0.125):
        row = quantised.Row(family, "8-bit", "node_qiaso", unit)
        params = mlp.initial(0, 5, unit)
        found.append(quantised.logits(row, (0.013, params), images))
    np.testing.assert_allclose(*found, atol=1e-5)
    w = mlp.initial(0, 5)["kernel_1"]
    read = quantised.read(quantised.Row("rounded", "8-bit", "qiaso"), w, 0.013)
    multiples = np.asarray(read) / 0.013
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-4)
    np.testing.assert_allclose(read, w, atol=0.0066)


def test_adam_learns_through_straight_through_weights():
    row = quantised.Row("straight-through", "8-bit", "Adam")
    command = quantised.Command(seeds=1, epochs=3, rates=(3e-3,))
    found = quantised.measured(command, row, digits.load(command))
    assert found["test_accuracy"] > 0.8


def test_every_length_of_the_gru_is_a_case():
    command = scans.Command(models=("gru", "cnn"), lengths=(3, 5))
    assert list(scans.cases(command)) == [("gru", 3), ("gru", 5), ("cnn", None)]


def test_scans_have_cosines(tmp_path):
    command = scans.Command(
        output=tmp_path,
        models=("attention",),
        spaces=("auto", "weights"),
        steps=3,
        candidates=2,
        batch_size=8,
    )
    content, text = results(scans, command)
    rows = content["rows"]
    assert [(row["model"], row["length"], row["space"]) for row in rows] == [
        ("attention", None, "auto"),
        ("attention", None, "weights"),
    ]
    for row in rows:
        assert row["kernels"].keys() == {"query", "key", "value", "output", "head"}
        for each in row["kernels"].values():
            assert -1 <= each["cosine"] <= 1
            assert -1 <= each["cosine_of_mean"] <= 1
            assert each["standard_error"] >= 0
        parts = row["trace_seconds"] + row["compile_seconds"]
        assert row["seconds"] == pytest.approx(parts, abs=0.002)
        assert row["step_seconds"] > 0
        assert {site["path"] for site in row["sites"]} == row["spaces"].keys()
    assert set(rows[1]["spaces"].values()) == {"weights"}
    auto, best = (
        np.mean([each["cosine"] for each in row["kernels"].values()]) for row in rows
    )
    (found,) = content["auto"]
    assert found["best_space"] == "weights"
    np.testing.assert_allclose([found["auto"], found["best"]], [auto, best])
    assert found["ratio"] == pytest.approx(auto / best)
    # Of the second table the head and the ruler as well.
    assert len(table_rows(text)) == 2 + (2 + 1)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["gru", "attention", "cnn"])
def test_each_example_has_a_loss_and_each_kernel_a_gradient(name):
    model = scan_models.build(name, 3)
    params = model.init(jax.random.key(0))
    batch = scan_models.batch_of(model, jax.random.key(1), 6)
    losses = model.losses(params, **batch)
    assert losses.shape == (6,)
    alone = model.losses(params, batch["x"][2:3], batch["y"][2:3])
    np.testing.assert_allclose(alone, losses[2:3], rtol=1e-5)
    gradient = jax.grad(lambda p: model.losses(p, **batch).mean())(params)
    kernels = scans.kernels_of(gradient)
    assert len(kernels) >= 3
    assert all(np.linalg.norm(each) > 0 for each in kernels.values())


def test_cosine_against_known_angles():
    assert cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)
    assert cosine(np.ones((2, 2)), -np.ones((2, 2))) == pytest.approx(-1)
    assert cosine(np.zeros(3), np.ones(3)) == 0


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["default", "node", "adam"])
def test_batch_norm_counts_right_answers(method, tmp_path):
    command = batch_norm.Command(
        output=tmp_path,
        methods=(method,),
        seeds=1,
        epochs=1,
        batch_size=128,
        candidates=2,
        channels=(2, 3),
        rates=(1e-2,),
    )
    content, text = results(batch_norm, command)
    (row,) = content["rows"]
    assert row["method"] == method
    check_accuracies(row, command)
    if method == "node":
        kernels = [path for path in row["spaces"] if path.endswith("kernel")]
        assert len(kernels) == 3
        assert all(row["spaces"][path] == "node" for path in kernels)
    assert len(table_rows(text)) == 1


def test_a_refusal_is_a_row():
    def refuse(rate, seed):
        raise ValueError("no parameter enters")

    protocol = digits.Protocol(rates=(1e-3,), seeds=1)
    found = digits.measured(refuse, None, None, digits.load(protocol), protocol)
    assert found == {"refused": "no parameter enters"}
    assert digits.cells(found) == ["", "refused"]
    assert "- *one*: no parameter enters" in report.refusals({"one": found})


def stored(module):
    """The command that wrote the stored results, its rows, and its page."""
    name = module.__name__.rpartition(".")[2]
    results = json.loads((report.RESULTS / f"{name}.json").read_text())
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in results["settings"].items()
    }
    text = (report.RESULTS / f"{name}.md").read_text()
    page = text.removesuffix(f"\nWritten by `{results['command']}`.\n")
    return module.Command(**settings), results, page


@pytest.mark.parametrize("module", [quantised, batch_norm])
def test_stored_tables_are_what_the_stored_numbers_give(module):
    command, results, page = stored(module)
    assert module.page(command, digits.load(command), results["rows"]) == page


def test_stored_cosines_are_what_the_stored_numbers_give():
    command, results, page = stored(scans)
    auto = scan_report.auto_and_best(results["rows"], scans.cases(command))
    assert auto == results["auto"]
    assert scan_report.page(command, results["rows"], auto) == page


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (quantised, {"seeds": 0}, "--seeds must be at least 1, got 0"),
        (quantised, {"rates": ()}, "--rates must name at least one"),
        (quantised, {"step": 0.0}, "--step must be positive, got 0.0"),
        (quantised, {"batch_size": 9999}, "at most the 1150 training examples"),
        (scans, {"lengths": (0, 4)}, "--lengths must be at least 1, got (0, 4)"),
        (scans, {"candidates": 3}, "--candidates must be even, got 3"),
        (scans, {"examples": 2.0}, "--examples must be in (0, 1], got 2.0"),
        (batch_norm, {"channels": (0, 4)}, "--channels must be at least 1"),
    ],
)
def test_impossible_commands_are_refused(module, settings, message, tmp_path):
    command = module.Command(output=tmp_path / "none", **settings)
    with pytest.raises(UserError, match=re.escape(message)):
        module.main(command)
    assert not (tmp_path / "none").exists()

import json

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks.node_space import batch_norm, quantised, report, scan_models, scans

PROVENANCE = {"command", "settings", "date", "revision", "versions", "machine"}


def results(module, command):
    """What a whole run of the command leaves in its folder."""
    module.run(command, Console(quiet=True))
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


def test_quantised_counts_right_answers(tmp_path):
    command = quantised.Command(
        output=tmp_path,
        families=("rounded",),
        seeds=2,
        epochs=1,
        rates=(1e-3, 1e-2),
        units=(0.1,),
        step=None,
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
    assert {rows[1]["spaces"][name] for name in quantised.KERNELS} == {"weights"}
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
    command = quantised.Command(step=0.013)
    images = jax.random.normal(jax.random.key(0), (5, 8, 8, 1))
    found = []
    for unit in (1.0, 0.125):
        row = quantised.Row(family, "8-bit", "node_qiaso", unit)
        params = quantised.initial(0, unit)
        steps = quantised.steps_of(command, row, params)
        found.append(quantised.logits(row, steps, params, images))
    np.testing.assert_allclose(*found, atol=1e-5)
    w = quantised.initial(0, 1.0)["kernel_1"]
    read = quantised.read(quantised.Row("rounded", "8-bit", "qiaso"), w, 0.013)
    multiples = np.asarray(read) / 0.013
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-4)
    np.testing.assert_allclose(read, w, atol=0.0066)


def test_adam_learns_through_straight_through_weights():
    row = quantised.Row("straight-through", "8-bit", "Adam")
    command = quantised.Command(seeds=1, epochs=3, rates=(3e-3,))
    found = quantised.measured(command, row, quantised.task.load())
    assert found["test_accuracy"] > 0.8


def test_scans_have_cosines(tmp_path):
    command = scans.Command(
        output=tmp_path,
        models=("gru", "attention"),
        lengths=(4,),
        spaces=("auto", "weights"),
        steps=3,
        candidates=2,
        batch_size=8,
    )
    content, text = results(scans, command)
    rows = content["rows"]
    assert [(row["model"], row["length"], row["space"]) for row in rows] == [
        ("gru", 4, "auto"),
        ("gru", 4, "weights"),
        ("attention", None, "auto"),
        ("attention", None, "weights"),
    ]
    kernels = {
        "gru": {"input", "recurrent", "head"},
        "attention": {"query", "key", "value", "output", "head"},
    }
    for row in rows:
        assert row["kernels"].keys() == kernels[row["model"]]
        for each in row["kernels"].values():
            assert -1 <= each["cosine"] <= 1
            assert -1 <= each["cosine_of_mean"] <= 1
            assert each["standard_error"] >= 0
        parts = row["trace_seconds"] + row["compile_seconds"]
        assert row["seconds"] == pytest.approx(parts, abs=0.002)
        assert row["seconds"] > 0
        assert row["step_seconds"] > 0
        assert {site["path"] for site in row["sites"]} == row["spaces"].keys()
        if row["space"] == "weights":
            assert set(row["spaces"].values()) == {"weights"}
    for found, (auto, best) in zip(
        content["auto"], zip(rows[::2], rows[1::2], strict=True), strict=True
    ):
        means = [
            np.mean([each["cosine"] for each in row["kernels"].values()])
            for row in (auto, best)
        ]
        assert found["best_space"] == "weights"
        np.testing.assert_allclose([found["auto"], found["best"]], means)
        assert found["ratio"] == pytest.approx(means[0] / means[1])
    # Of two tables more the heads and the rulers as well.
    assert len(table_rows(text)) == 3 * 2 + 2 * 2


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
    assert scans.cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(
        np.sqrt(0.5)
    )
    assert scans.cosine(np.ones((2, 2)), -np.ones((2, 2))) == pytest.approx(-1)
    assert scans.cosine(np.zeros(3), np.ones(3)) == 0


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

    found = quantised.task.tuned(
        refuse, lambda model, split: 0, quantised.task.load(), (1e-3,), 1
    )
    assert found == {"refused": "no parameter enters"}
    assert quantised.task.cells(found) == ["", "refused"]
    assert "- *one*: no parameter enters" in report.refusals(["one"], [found])


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (quantised, {"seeds": 0}, "--seeds must be at least 1, got 0"),
        (quantised, {"rates": ()}, "--rates must be positive, got []"),
        (quantised, {"step": 0.0}, "--step must be positive, got 0.0"),
        (quantised, {"families": ()}, "--families must name at least one"),
        (quantised, {"batch_size": 9999}, "is more than the 1150 training examples"),
        (scans, {"lengths": (0, 4)}, "--lengths must be at least 1, got [0, 4]"),
        (scans, {"candidates": 3}, "--candidates must be even and at least 2, got 3"),
        (scans, {"examples": 2.0}, "--examples must be in (0, 1], got 2.0"),
        (batch_norm, {"channels": (0, 4)}, "--channels must be at least 1"),
        (batch_norm, {"rates": (-1.0,)}, "--rates must be positive, got [-1.0]"),
    ],
)
def test_impossible_commands_are_refused(module, settings, message, tmp_path, capsys):
    command = module.Command(output=tmp_path / "none", **settings)
    assert report.main(module.run, command) == 1
    assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "none").exists()

"""The paper's tables and figures: smoke runs, statistics, verdicts, the report."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
import scipy.stats

from benchmarks import train
from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.paper import __main__ as command
from benchmarks.paper import report, statistics, study
from benchmarks.paper.figures import figure4
from benchmarks.paper.runs import Protocol, rounded
from benchmarks.paper.section import Section, Verdict, Word
from benchmarks.paper.study import Study
from benchmarks.paper.tables import (
    accuracies,
    cost,
    robustness,
    table1,
    table2,
    table4,
    table5,
    table6,
)

TRAINED = (
    *("table1", "table2", "table3", "table4", "table6"),
    *("figure4", "figure7", "figure8", "robustness"),
)
"""The names whose numbers are from runs of the training harness."""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A study whose runs all tests of this module share."""
    folder = tmp_path_factory.mktemp("paper")
    return Study("smoke", results=folder / "results", work=folder / "work")


def leave_curves(order, console):
    """Leaves what ``train.run`` does, without training."""
    experiment = order.experiment
    rng = np.random.default_rng(0)
    losses, accuracies = rng.random((2, experiment.epochs, experiment.seeds)).tolist()
    identity = dataclasses.asdict(experiment) | {"data": ""}
    order.output.mkdir(parents=True)
    records.write_json(order.output / "config.json", {"experiment": identity})
    for epoch in range(experiment.epochs):
        record = {
            "train_loss": losses[epoch],
            "test_loss": losses[epoch],
            "test_accuracy": accuracies[epoch],
            "timing": {"seconds": 1.0},
            "sample_forwards": 1.0,
        }
        records.append(order.output / "metrics.jsonl", record)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What the command stores of all that is trained, read back."""
    folder = tmp_path_factory.mktemp("stored")
    modules = {name: command.MODULES[name] for name in TRAINED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", leave_curves)
        patch.setattr(command, "MODULES", modules)
        command.main(command.Command("all", Study("smoke", folder, folder)))
    return {
        name: json.loads((folder / f"smoke/{name}.json").read_text())
        for name in modules
    }


@pytest.mark.parametrize("name", TRAINED)
def test_smoke(contents, name):
    """The command runs, and its section follows from the stored file alone."""
    content = contents[name]
    assert content["profile"] == "smoke"
    assert {"machine", "versions", "revision", "date"} <= content.keys()
    section = command.MODULES[name].section(content)
    assert section.body.strip()
    assert all(verdict.word in Word.__args__ for verdict in section.verdicts)


def test_the_page_follows_from_stored_files_alone(contents, tmp_path):
    results = tmp_path / "results"
    (results / "cpu").mkdir(parents=True)
    left_out = "table4"
    for name in contents.keys() - {left_out}:
        (results / "cpu" / f"{name}.json").write_text(json.dumps(contents[name]))
    written = []
    for docs in (tmp_path / "a", tmp_path / "b"):
        report.write(results, docs, command.MODULES)
        files = [path for path in docs.rglob("*") if path.is_file()]
        written.append({path.relative_to(docs): path.read_bytes() for path in files})
    assert written[0] == written[1]
    pages = {str(p): c.decode() for p, c in written[0].items() if p.suffix == ".md"}
    absent = pages["reproduction.md"].split("## Not measured")[1]
    assert f"- `python -m benchmarks.paper {left_out}`" in absent
    assert f"reproduction/{left_out}.md" not in pages
    first = pages["reproduction/table1.md"]
    assert first.startswith("# Table 1: initialisation and seeds\n\n`python -m")
    assert "benchmarks.paper table1 --profile smoke" in first
    assert "../figures/figure8_ablation.svg" in pages["reproduction/figure8.md"]


@pytest.mark.slow
def test_the_page_in_the_docs_is_that_of_the_stored_results(tmp_path):
    page = report.write(study.RESULTS, tmp_path, command.MODULES)
    docs = study.RESULTS.parents[2] / "docs"
    folders = [folder / report.FOLDER for folder in (tmp_path, docs)]
    names, kept = ({path.name for path in folder.iterdir()} for folder in folders)
    assert names == kept
    for path in [page, *folders[0].iterdir()]:
        assert path.read_text() == (docs / path.relative_to(tmp_path)).read_text()
    for figure in (tmp_path / "figures").iterdir():
        assert (docs / "figures" / figure.name).exists()
    ledger = (folders[0] / "ledger.md").read_text()
    for claim in report.HEADLINES:
        assert ledger.count(f"\n| {claim} |") == page.read_text().count(claim) == 1


@pytest.mark.slow
def test_cost_is_measured_and_told(smoke, monkeypatch):
    monkeypatch.setattr(cost, "GROUPS", {"batches of 512": (512, {"adam": {}})})
    content = cost.measure(smoke)
    (row,) = content["rows"]
    assert row["ratio"] == row["cpu_ratio"] == 1
    assert row["sample_forwards"] == 3
    assert "| Adam | batches of 512 |" in cost.section(content).body


class TestTable5:
    @pytest.mark.slow
    def test_steps_run_and_take_memory(self):
        for step in (table5.step(4, 32, chunk=None), table5.step(4, 32, chunk=1)):
            step.call()
            assert step.bytes > 0
        with jax.numpy_rank_promotion("allow"):  # evosax's CMA-ES
            table5.cma_es_step(8).call()

    def test_verdicts_follow_the_exponents(self, smoke, monkeypatch):
        def step(num_candidates, num_weights, chunk):
            return table5.Step(lambda: None, num_candidates * num_weights)

        def cma_es_step(num_weights):
            return table5.Step(lambda: None, num_weights**2)

        monkeypatch.setattr(table5, "step", step)
        monkeypatch.setattr(table5, "cma_es_step", cma_es_step)
        monkeypatch.setattr(cost, "measure", lambda study: {"rows": []})
        content = table5.measure(smoke)
        linear, quadratic = content["rows"][0], content["rows"][-1]
        assert linear["memory_exponent"] == pytest.approx(1)
        assert quadratic["memory_exponent"] == pytest.approx(2)
        for row in content["rows"]:
            row["time_exponent"] = row["memory_exponent"]
        words = [verdict.word for verdict in table5.section(content).verdicts]
        assert words == [*["reproduced"] * 3, "contradictory"]
        linear["time_exponent"] = 2
        assert table5.section(content).verdicts[0].word == "not reproduced"


def test_report_prefers_the_full_profile(tmp_path):
    for profile in ("cpu", "full"):
        (tmp_path / profile).mkdir()
        (tmp_path / profile / "table1.json").write_text(f'{{"profile": "{profile}"}}')
    found = report.best(tmp_path, "table1")
    assert found == {"profile": "full"}
    assert report.best(tmp_path, "table2") is None


def test_report_of_nothing_and_of_damage(tmp_path):
    with pytest.raises(UserError, match="holds no measurement"):
        report.write(tmp_path, tmp_path, command.MODULES)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/table1.json").write_text('{"rows": [')
    with pytest.raises(UserError, match=r"table1\.json is damaged"):
        report.write(tmp_path, tmp_path, command.MODULES)


def test_results_that_cannot_be_written_are_refused_before_training(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(table1, "measure", lambda study: pytest.fail("it measured"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--results .*file: "):
        command.main(command.Command("table1", Study("cpu", tmp_path / "file")))


def test_a_row_that_the_paper_does_not_have_stands_beside_no_figure():
    rows = [
        {"dataset": "digits", "form": form, "accuracy": [98.5], "protocol": "p"}
        for form in ("adam", "muon-deep")
    ]
    text = accuracies.accuracy_table(rows, {"mnist": {"adam": (98.4, 0.1)}})
    heading, *_, adam, muon = text.splitlines()
    assert heading == "### digits"
    assert adam == "| Adam | 98.4 ± 0.1 | 98.50 | p |"
    assert muon == "| Muon, 24-64²-256⁴, augmented |  | 98.50 | p |"


def test_ledger_counts_the_verdicts():
    sections = {
        "table1": Section("a", "b", [Verdict("c", "d", "wrong")] * 2),
        "table2": Section("a", "b", [Verdict("e", "f", "reproduced")]),
    }
    text = report.ledger(sections)
    assert "3 claims: 1 reproduced, 2 wrong." in text
    assert text.count("| c | **wrong** | d | [table1](table1.md) |") == 2
    page = report.verdict(sections, absent=[])
    assert "| **wrong** | 2 |" in page
    assert "| [a](reproduction/table1.md) | 2 wrong |" in page


class TestStudy:
    @pytest.mark.slow
    def test_a_run_is_trained_once(self, smoke, monkeypatch):
        first = smoke.run("digits", "adam")
        assert first.curves["test_accuracy"].shape == (2, 2)
        assert first.protocol == Protocol(2, 2, 640)

        def never(*_):
            raise AssertionError("trained again")

        monkeypatch.setattr(train, "run", never)
        second = smoke.run("digits", "adam")
        np.testing.assert_array_equal(
            second.final("test_loss"), first.final("test_loss")
        )

    def test_a_run_with_other_settings_is_not_taken_for_it(self, smoke, tmp_path):
        smoke.run("digits", "adam")
        path = smoke.folder / "runs/digits-adam.json"
        content = json.loads(path.read_text())
        content["experiment"]["epochs"] = 7
        other = Study("smoke", tmp_path, tmp_path / "work", train=False)
        (tmp_path / "smoke/runs").mkdir(parents=True)
        (tmp_path / "smoke/runs/digits-adam.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="other settings"):
            other.run("digits", "adam")

    def test_a_run_older_than_a_setting_has_its_default(self, smoke, tmp_path):
        smoke.run("digits", "adam")
        content = json.loads((smoke.folder / "runs/digits-adam.json").read_text())
        del content["experiment"]["zoom"]
        other = Study("smoke", tmp_path, tmp_path / "work", train=False)
        (tmp_path / "smoke/runs").mkdir(parents=True)
        path = tmp_path / "smoke/runs/digits-adam.json"
        path.write_text(json.dumps(content))
        assert other.run("digits", "adam").experiment["zoom"] == 0
        content["experiment"]["zoom"] = 0.1
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="other settings"):
            other.run("digits", "adam")

    def test_missing_rows_say_what_they_take(self, tmp_path):
        empty = Study("cpu", tmp_path, tmp_path / "work", train=False)
        content = table1.measure(empty)
        assert all(row["missing"].startswith("not run: ") for row in content["rows"])
        section = table1.section(content)
        assert "100 epochs" in section.body
        assert section.verdicts == []

    def test_profiles_differ_in_epochs_seeds_and_subset_only(self, tmp_path):
        cpu, full = (
            Study(p, tmp_path).experiment("mnist", "node") for p in ("cpu", "full")
        )
        assert cpu == full
        cpu, full = (
            Study(p, tmp_path).experiment("cifar10", "working") for p in ("cpu", "full")
        )
        differing = {
            name for name in vars(cpu) if getattr(cpu, name) != getattr(full, name)
        }
        assert differing == {"epochs", "seeds", "limit"}

    def test_rounding(self):
        values = {"a": [1.23456789, 3], "b": np.array([1e-9 / 3])}
        assert rounded(values) == {"a": [1.2346, 3], "b": [3.3333e-10]}


class TestStatistics:
    def test_interval_is_students(self):
        values = np.random.default_rng(0).normal(98, 0.1, 10)
        low, high = scipy.stats.t.interval(
            0.95, 9, values.mean(), scipy.stats.sem(values)
        )
        assert statistics.half_width(values) == pytest.approx((high - low) / 2)
        assert np.isnan(statistics.half_width(values[:1]))

    def test_welch_from_intervals_is_welch(self):
        rng = np.random.default_rng(1)
        a, b = rng.normal(98.7, 0.1, 10), rng.normal(98.6, 0.2, 10)
        implied = statistics.welch_from_intervals(
            a.mean(), statistics.half_width(a), b.mean(), statistics.half_width(b), 10
        )
        assert implied == pytest.approx(statistics.welch(a, b))
        assert np.isnan(statistics.welch(a, b[:1]))

    def test_holm_rejects_what_its_closed_tests_reject(self):
        """Holm = the closure of Bonferroni: every intersection with it is rejected."""
        rng = np.random.default_rng(2)
        for _ in range(200):
            p = rng.uniform(0, 0.1, rng.integers(1, 5))
            adjusted = statistics.holm(p)
            for i in range(len(p)):
                others = [j for j in range(len(p)) if j != i]
                closed = max(
                    (size + 1) * min(p[i], *(p[j] for j in chosen), 1)
                    for size in range(len(p))
                    for chosen in itertools.combinations(others, size)
                )
                assert adjusted[i] == pytest.approx(min(closed, 1))

    def test_effect_size(self):
        a, b = np.array([2.0, 4.0, 6.0]), np.array([1.0, 3.0, 5.0])
        # Means 1 apart, both variances 4, and 1 - 3 / 15 for four degrees of freedom.
        assert statistics.hedges_g(a, b) == pytest.approx(0.5 * 0.8)
        assert np.isnan(statistics.hedges_g(a, b[:1]))
        assert np.isnan(statistics.hedges_g(np.ones(3), np.ones(3)))

    def test_the_papers_intervals_contradict_its_p_values(self):
        # By hand: sd = 0.08 √10 / 2.262 = 0.112 and 0.154; t = 0.53 / 0.0602 = 8.8.
        assert table4.implied("mnist", "adam") < 1e-6
        (verdict,) = table4.verdicts({"rows": []})
        assert verdict.word == "contradictory"


class TestVerdicts:
    @pytest.mark.parametrize(
        ("form", "accuracy", "protocol", "word"),
        [
            ("faithful", 98.9, "5 epochs, 2 seeds", "reproduced"),
            ("node", 98.9, "100 epochs, 10 seeds", "reproduced by another method"),
            ("node", 97.5, "100 epochs, 10 seeds", "not reproduced"),
            ("node", 97.5, "10 epochs, 10 seeds", "not measured"),
            ("node", 97.5, "100 epochs, 1 seed, 2,000 examples", "not measured"),
        ],
    )
    def test_table2_follows_its_number(self, form, accuracy, protocol, word):
        row = {"dataset": "mnist", "form": form, "protocol": protocol, "loss": 0.1}
        content = {"rows": [row | {"accuracy": accuracy, "seconds": 1.0}]}
        (verdict,) = table2.section(content).verdicts
        assert verdict.word == word

    def test_table2_makes_no_claim_for_the_paper(self):
        row = {"form": "adam-wide", "protocol": "8 epochs", "loss": 0.1, "seconds": 1.0}
        row |= {"dataset": "fashion_mnist", "accuracy": 93.0}
        section = table2.section({"rows": [row]})
        cells = [cell.strip() for cell in section.body.splitlines()[4].split("|")]
        # The paper's accuracy, loss and seconds: it has no such row.
        assert [cells[i] for i in (2, 5, 7)] == ["", "", ""]
        assert cells[3] == "93.00"
        assert not section.verdicts

    def test_table4_needs_a_significant_win(self):
        rng = np.random.default_rng(0)

        def verdict(mean, protocol="100 epochs"):
            row = {"dataset": "mnist", "protocol": "100 epochs"}
            rows = [
                row | {"form": f, "accuracy": rng.normal(98, 0.1, 10)}
                for f in table4.BASELINES
            ]
            ours = {"form": "node", "protocol": protocol}
            rows.append(row | ours | {"accuracy": rng.normal(mean, 0.1, 10)})
            return table4.verdicts({"rows": rows})[0]

        assert verdict(98.8).word == "reproduced by another method"
        assert verdict(98.0).word == "not reproduced"
        assert "against" not in verdict(98.8).found
        assert "10 epochs against 100 epochs" in verdict(98.8, "10 epochs").found

    @pytest.mark.parametrize(
        ("rises", "epochs", "word"),
        [
            (0.0, 100, "reproduced by another method"),
            (0.0, 5, "not measured"),
            (0.2, 100, "not reproduced"),
            (0.2, 5, "not reproduced"),
        ],
    )
    def test_figure4_is_borne_out_by_all_epochs_only(self, rises, epochs, word):
        protocol = str(Protocol(epochs, 2))
        row = {"form": "node", "rises": rises, "protocol": protocol}
        (verdict,) = figure4.verdicts([row])
        assert verdict.word == word

    def test_relative_rate(self):
        full = np.array([2.0, 1.0, 0.5, 0.4])
        slow = np.array([2.0, 1.9, 1.2, 0.5])
        # The common loss 0.5 is reached after 3 epochs and after 4.
        assert table6.relative_rate(full, slow) == pytest.approx(3 / 4)
        assert table6.relative_rate(full, np.array([2.0, 2.1, 2.2, 2.3])) is None

    def test_robustness_is_a_range(self):
        def content(last, protocol="100 epochs, 3 seeds"):
            grid = itertools.product(robustness.MEANS, robustness.SPREADS)
            row = {"form": "node", "protocol": protocol}
            rows = [
                row | {"mean": m, "spread": s, "accuracy": [97.0, 97.2]}
                for m, s in grid
            ]
            rows[-1]["accuracy"] = [last]
            return {"rows": rows}

        (verdict,) = robustness.verdicts(content(97.2))
        assert verdict.word == "reproduced by another method"
        (verdict,) = robustness.verdicts(content(96.5))
        assert verdict.word == "not reproduced"
        assert verdict.found.startswith("0.60 points")
        (verdict,) = robustness.verdicts(content(96.5, "10 epochs, 3 seeds"))
        assert verdict.word == "not measured"

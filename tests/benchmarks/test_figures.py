"""Figures from stored numbers: they show these, and say what they are."""

import json

import numpy as np
import pytest

from benchmarks import figures, headline
from benchmarks.cli import UserError
from benchmarks.harness import plotting
from benchmarks.paper import report
from benchmarks.paper.figures import figure4, figure7, figure8
from benchmarks.step_cost import report as step_cost_report


def stored(path):
    return json.loads((figures.RESULTS / path).read_text())


def words(legend):
    return [text.get_text() for text in legend.get_texts()]


def caption(figure):
    return " ".join(figure._supxlabel.get_text().split())


def test_every_figure_is_there_as_svg_and_as_png():
    folders = figures.RESULTS, figures.DOCS
    pixels = {path for folder in folders for path in folder.rglob("*.png")}
    assert all(path.with_suffix(".svg").exists() for path in pixels)
    runs = (figures.RESULTS / "train").glob("*/config.json")
    assert {path.with_name("curves.png") for path in runs} <= pixels


@pytest.fixture(scope="module")
def content():
    return headline.collected(headline.RESULTS)


class TestHeadline:
    def test_is_what_is_stored(self, content):
        assert json.loads(json.dumps(content)) == stored("headline/headline.json")

    def test_accuracies_and_costs(self, content):
        packed = stored(headline.RUNS["node space"])
        run = content["methods"]["node space"]
        accuracy = 100 * np.array(packed["curves"]["test_accuracy"])
        assert run["seeds"] == 10 == accuracy.shape[1]
        assert run["accuracy"][-1] == pytest.approx(accuracy[-1].mean(), abs=0.006)
        assert run["least"][-1] == pytest.approx(accuracy[-1].min(), abs=0.006)
        assert run["sample_forwards"][-1] == packed["sample_forwards"]
        assert run["seconds"][-1] == pytest.approx(
            100 * packed["seconds_per_epoch"] / 10, abs=1e-3
        )
        folder = headline.RESULTS / headline.RUNS["SNES"]
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        run = content["methods"]["SNES"]
        assert run["accuracy"][-1] == round(100 * last["test_accuracy"][0], 2)
        assert run["sample_forwards"][-1] == last["sample_forwards"]

    def test_the_figure_shows_them(self, content):
        drawn = headline.figure(content)
        for ax, cost, unit in zip(
            drawn.axes, ("seconds", "sample_forwards"), (1, 1e6), strict=True
        ):
            for line, run in zip(ax.lines, content["methods"].values(), strict=True):
                expected = np.array(run[cost]) / unit, run["accuracy"]
                np.testing.assert_array_equal(line.get_data(), expected)
                assert ax.get_ylim()[0] < min(run["least"])
        *others, adam = words(drawn.legends[0])
        assert [*others, "Adam"] == [*headline.RUNS]
        assert adam == "Adam (gradients)"

    def test_the_caption_says_how(self, content):
        said = caption(headline.figure(content))
        for part in (
            "MLP 128-64",
            "at most 180 million sample-forwards",
            "Seeds: 1 (node space 10, Adam 10)",
            "Candidates: 30 (low rank 256)",
            "2 cores of Intel(R) Xeon(R) Processor",
        ):
            assert part in said

    def test_unlike_runs_are_refused(self, monkeypatch, tmp_path):
        packed = stored(headline.RUNS["node space"])
        for name, hidden in (("a", [128, 64]), ("b", [512, 256])):
            packed["experiment"]["hidden"] = hidden
            (tmp_path / name).write_text(json.dumps(packed))
        monkeypatch.setattr(headline, "RUNS", {"one": "a", "other": "b"})
        with pytest.raises(UserError, match="differ in hidden"):
            headline.collected(tmp_path)

    def test_a_missing_run_is_told(self, tmp_path):
        with pytest.raises(UserError, match="is no whole run"):
            headline.collected(tmp_path)


def test_one_epoch_is_a_point_and_its_protocol_is_told():
    folder = figures.RESULTS / "train/cifar10-cnn-node-qiaso"
    experiment = json.loads((folder / "config.json").read_text())["experiment"]
    record = json.loads((folder / "metrics.jsonl").read_text())
    protocol = plotting.protocol(experiment)
    assert protocol == (
        "node-qiaso on cifar10, cnn, minibatches of 256, K = 16, σ = 0.02, rate 0.001"
    )
    drawn = plotting.curves([record], protocol)
    accuracy = drawn.axes[1].lines[0]
    assert accuracy.get_marker() == "o"
    assert accuracy.get_ydata() == [100 * record["test_accuracy"][0]]
    assert caption(drawn) == f"{protocol}; one seed."


def test_a_step_has_a_line_for_each_method():
    networks = stored("step_cost/results.json")["networks"]
    drawn = step_cost_report.cost(networks)
    for ax, found in zip(drawn.axes, networks.values(), strict=True):
        names = [label.get_text() for label in ax.get_yticklabels()]
        numbers = list(found["candidates"])
        assert words(ax.get_legend()) == [f"K = {number}" for number in numbers]
        for line, rows in zip(ax.lines, found["candidates"].values(), strict=True):
            shown = {
                names[place]: value
                for value, place in zip(*line.get_data(), strict=True)
            }
            assert shown == {
                name: row["seconds"] for name, row in rows.items() if "seconds" in row
            }


def test_figures_of_accuracies_have_a_legend_and_all_that_was_measured():
    folder = figures.RESULTS / "paper"
    for module, places in ((figure7, 0.15), (figure8, 0.12)):
        name = module.__name__.rpartition(".")[2]
        rows = report.best(folder, name)["rows"]
        rows = [row for row in rows if "accuracy" in row]
        ax = module.figure(rows).axes[0]
        assert words(ax.get_legend()) == ["the paper", "measured"]
        errors, at = ax.containers[1].lines[0].get_data()
        expected = [100 - np.mean(row["accuracy"]) for row in rows]
        np.testing.assert_allclose(errors, expected)
        np.testing.assert_allclose(at, np.arange(len(rows)) - places)
        low, high = sorted(ax.get_xlim())
        assert low < min(errors) <= max(errors) < high


def test_a_band_that_reaches_below_nothing_is_left_out():
    row = {
        "form": "adam",
        "protocol": "2 epochs, 2 seeds",
        "train_loss": [0.5, 1e-7],
        "train_loss_sd": [0.1, 1e-6],
        "test_accuracy": [0.9, 0.98],
        "test_accuracy_sd": [0.01, 0.001],
    }
    losses, errors = figure4.figure([row]).axes
    (band,) = losses.collections
    vertices = np.concatenate([path.vertices for path in band.get_paths()])
    assert np.nanmin(vertices[:, 1]) == pytest.approx(0.4)
    np.testing.assert_allclose(errors.lines[0].get_ydata(), [10, 2])
    assert errors.get_ylim()[0] > errors.get_ylim()[1]

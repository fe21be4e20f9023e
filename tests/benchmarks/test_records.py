import json

import pytest

from benchmarks.cli import UserError
from benchmarks.harness import plotting, records


def line(epoch):
    return {"epoch": epoch, "train_loss": [1.0 / epoch, 2.0], "test_accuracy": [0.5, 1]}


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        records.append(path, line(epoch))
    return path


def test_reads_what_was_appended(metrics):
    assert records.read(metrics) == [line(1), line(2), line(3)]
    assert records.read(metrics.with_name("absent")) == []


def test_torn_line_is_left_out(metrics):
    with metrics.open("a") as file:
        file.write('{"epoch": 4, "train')
    assert records.read(metrics) == [line(1), line(2), line(3)]
    records.truncate(metrics, 3)
    records.append(metrics, line(4))
    assert len(records.read(metrics)) == 4


def test_truncates_to_an_epoch(metrics):
    records.truncate(metrics, 2)
    assert records.read(metrics) == [line(1), line(2)]
    with pytest.raises(UserError, match="up to the checkpoint's, 3"):
        records.truncate(metrics, 3)


def test_not_a_number_is_never_written(metrics):
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.append(metrics, {"epoch": 4, "train_loss": [float("nan")]})
    assert len(records.read(metrics)) == 3


def test_non_finite_numbers_are_named():
    record = line(1) | {"test_loss": [1.0, float("inf")]}
    assert records.non_finite(record) == ["test_loss"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    records.write_json(path, {"a": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_provenance_survives_json():
    content = records.provenance()
    assert json.loads(json.dumps(content)) == content
    assert content["machine"]["backend"] == "cpu" or content["machine"]["device"]


def test_curves_show_means_over_seeds():
    history = [line(1), line(2)]
    figure = plotting.curves(history, "title")
    losses, accuracies = figure.axes
    assert list(losses.lines[0].get_ydata()) == [1.5, 1.25]
    assert list(accuracies.lines[0].get_ydata()) == [75, 75]
    assert accuracies.lines[0].get_marker() == "o"
    assert [text.get_text() for text in losses.get_legend().get_texts()] == [
        "train loss"
    ]

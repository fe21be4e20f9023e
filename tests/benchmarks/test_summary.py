import json

import pytest

from benchmarks import summary
from benchmarks.cli import UserError


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "digits-mlp-node-qiaso"
    folder.mkdir()
    experiment = {
        "dataset": "digits",
        "network": "mlp",
        "hidden": [16, 8],
        "optimizer": "node-qiaso",
        "sigma": 0.02,
        "candidates": 30,
        "batch_size": 64,
    }
    (folder / "config.json").write_text(json.dumps({"experiment": experiment}))
    lines = [
        {
            "epoch": epoch,
            "sample_forwards": 2e6 * epoch,
            "train_loss": [0.5, 0.25],
            "test_accuracy": [0.5, 0.5 + 0.1 * epoch],
            "timing": {"seconds": 3.0},
        }
        for epoch in (1, 2)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return tmp_path


def test_table_is_about_the_last_epoch(runs):
    summary.main(summary.Command(runs))
    text = (runs / "table.md").read_text()
    (line,) = (line for line in text.splitlines() if "digits-mlp" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "digits-mlp-node-qiaso", "digits", "mlp 16-8", "node-qiaso", "30", "64", "2",
        "2", "4.0", "3", "60.00 (50.00 to 70.00)", "0.375",
    ]  # fmt: skip


def test_what_cannot_be_read_is_named(runs):
    with pytest.raises(UserError, match="holds no run"):
        summary.main(summary.Command(runs / "digits-mlp-node-qiaso"))
    (runs / "digits-mlp-node-qiaso" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="digits-mlp-node-qiaso is no whole run"):
        summary.main(summary.Command(runs))

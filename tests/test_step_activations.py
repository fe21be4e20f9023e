"""The example of step activations, on scikit-learn's digits."""

import sys
from pathlib import Path

import datasets.config
import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import step_activations  # pyright: ignore[reportMissingImports]

    yield step_activations
    del sys.modules["step_activations"]


def test_learns_without_gradients(example):
    # An untrained network has 0.1.
    ours, theirs = example.main(epochs=10)
    assert min(ours, theirs) > 0.8


def test_other_data_are_refused(example, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "train.csv").write_text("image,label\n")
    with pytest.raises(SystemExit, match=r"--data-dir must be a copy of ylecun/mnist"):
        example.load(str(tmp_path))

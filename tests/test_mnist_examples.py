"""The two examples, top to bottom, on the real data."""

import sys
from pathlib import Path

import datasets
import pytest

ROOT = Path(__file__).parents[1]
MNIST = ROOT.parent / "shared" / "datasets" / "mnist"

pytestmark = [
    pytest.mark.skipif(not MNIST.is_dir(), reason="needs ../shared/datasets/mnist"),
    # jax's threads and the fork of `datasets`' dependencies, on Python 3.12 and later.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


# An untrained network has 0.1. Lower bounds well below what one seed reaches.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("linen", 0.8), ("nnx", 0.65)])
def test_one_epoch(name, least, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    module = __import__(f"mnist_{name}")
    try:
        assert module.main(str(MNIST), epochs=1) > least
    finally:
        del sys.modules[f"mnist_{name}"]


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_examples_are_short(name):
    lines = (ROOT / "examples" / f"mnist_{name}.py").read_text().splitlines()
    assert len(lines) < 80

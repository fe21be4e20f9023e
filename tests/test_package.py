"""What ``import qiaso_jax`` gives."""

import importlib.metadata
import subprocess
import sys

import pytest

import qiaso_jax


def test_public_names_are_all_there_and_no_others():
    assert dir(qiaso_jax) == sorted(qiaso_jax.__all__)
    for name in qiaso_jax.__all__:
        assert getattr(qiaso_jax, name) is not None
    assert qiaso_jax.__version__ == importlib.metadata.version("qiaso-jax")
    with pytest.raises(AttributeError, match="has no attribute 'adam'"):
        _ = qiaso_jax.adam


def test_flax_and_theory_are_loaded_when_asked_for():
    program = (
        "import sys, qiaso_jax\n"
        "assert 'flax' not in sys.modules and 'qiaso_jax.theory' not in sys.modules\n"
        "qiaso_jax.theory, qiaso_jax.flax.TrainState\n"
        "assert 'flax' in sys.modules and 'qiaso_jax.theory' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

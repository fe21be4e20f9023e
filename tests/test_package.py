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


def test_an_import_brings_its_dependencies_alone_and_the_rest_when_asked_for():
    program = """
import sys, jax, jaxtyping, optax
before = set(sys.modules)
import qiaso_jax
brought = {name.partition(".")[0] for name in sys.modules.keys() - before}
brought -= sys.stdlib_module_names
assert brought <= {"qiaso_jax", "jax", "jaxlib", "numpy"}, brought
assert not {"flax", "matplotlib", "qiaso_jax.theory", "scipy"} & sys.modules.keys()
qiaso_jax.theory, qiaso_jax.flax.TrainState
assert {"flax", "qiaso_jax.theory"} <= sys.modules.keys()
sys.modules["matplotlib"] = None
try:
    qiaso_jax.plot
except ImportError as error:
    assert "qiaso-jax[examples]" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)

import gc
import os

import jax
import pytest
from jaxtyping import install_import_hook

# The shapes in the signatures of these are checked, in tests.
install_import_hook(
    [
        "qiaso_jax.amplitudes",
        "qiaso_jax.collapse",
        "qiaso_jax.evaluation",
        "qiaso_jax.factorised.blocks",
        "qiaso_jax.resampling",
        "qiaso_jax.superposition",
    ],
    "beartype.beartype",
)

# The tests compile hundreds of small programs and run each a few times: a quick
# compiler is worth more to them than quick code. JAX reads this when it first computes.
flags = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_force_host_platform_device_count=8",
]
# With this it is twice as quick again, but later versions end where they are given it.
if jax.__version_info__ < (0, 11):
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])

# A program of JAX is thousands of objects, which live on: to look for those that do
# not takes long.
gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True)
def no_silent_broadcasting():
    """Arrays of different rank do not add up by accident; users' code may do so."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True, scope="module")
def no_old_programs():
    """What earlier modules compiled is forgotten: a full heap slows what follows."""
    yield
    jax.clear_caches()

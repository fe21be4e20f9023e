import jax
import pytest


@pytest.fixture(autouse=True)
def no_silent_broadcasting():
    """Arrays of different rank do not add up by accident; users' code may do so."""
    with jax.numpy_rank_promotion("raise"):
        yield

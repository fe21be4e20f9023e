"""What all functions take and refuse: dtypes, transformations, bad arguments."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import theory

LOSSES, P, Q = jnp.array([1.0, 0.5]), jnp.array([0.25, 0.75]), jnp.array([0.5, 0.5])
CALLS = {
    theory.kl_divergence: (Q, P),
    theory.variational_objective: (Q, LOSSES, P, 2.0),
    theory.exponential_weights: (LOSSES, P, 2.0),
    theory.gibbs: (LOSSES, 2.0),
    theory.mirror_map: (P,),
    theory.inverse_mirror_map: (LOSSES,),
    theory.mirror_step: (LOSSES, P, 2.0),
    theory.amplification_bounds: (LOSSES, P, 2.0),
    theory.pinsker_slack: (Q, P),
    theory.monotone_decrease_slack: (LOSSES, P, Q, 2.0),
    theory.project_onto_minimisers: (LOSSES, P),
    theory.total_tunnelling_probability: (0.5, 0.1, 7),
    theory.robbins_siegmund_budget: (2.0, 1.0, LOSSES, Q),
    theory.escape_probability: (1.0, 0.5, 2.0),
    theory.norm_escape_probability: (1.0, 0.5, 2.0, 9),
    theory.escape_probability_bounds: (1.0, 0.5, 2.0),
    theory.chernoff_bound: (1.0, 0.5, 2.0),
    theory.escape_probability_as_printed: (1.0, 0.5, 2.0),
    theory.cumulative_escape_probability: (Q, 0.25),
}
every_function = pytest.mark.parametrize(
    ("function", "arguments"), CALLS.items(), ids=lambda x: getattr(x, "__name__", "")
)


def test_every_public_function_is_called():
    public = {getattr(theory, name) for name in theory.__all__}
    assert {function for function in public if inspect.isfunction(function)} == {*CALLS}


@every_function
@pytest.mark.slow
class TestTransformations:
    def test_jit_and_vmap(self, function, arguments):
        eager = jax.tree.leaves(function(*arguments))
        compiled = jax.tree.leaves(jax.jit(function)(*arguments))
        batch = [jnp.stack([jnp.asarray(argument)] * 3) for argument in arguments]
        mapped = jax.tree.leaves(jax.jit(jax.vmap(function))(*batch))
        for plain, one, three in zip(eager, compiled, mapped, strict=True):
            np.testing.assert_allclose(one, plain, rtol=1e-5)
            assert three.shape == (3, *plain.shape)
            np.testing.assert_allclose(three[2], plain, rtol=1e-5)

    @pytest.mark.parametrize(
        ("given_dtype", "expected"),
        [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
    )
    def test_dtype(self, function, arguments, given_dtype, expected):
        with jax.enable_x64(expected == "float64"):
            cast = [jnp.asarray(argument, given_dtype) for argument in arguments]
            result = jax.tree.leaves(function(*cast))
        assert {leaf.dtype.name for leaf in result} == {expected}

    def test_python_scalars_do_not_widen(self, function, arguments):
        with jax.enable_x64(True):
            cast = [jnp.asarray(x, "float32") if jnp.ndim(x) else x for x in arguments]
            cast[0] = jnp.asarray(cast[0], "float32")
            result = jax.tree.leaves(function(*cast))
        assert {leaf.dtype.name for leaf in result} == {"float32"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.mirror_map([0.5, 0.6]), r"p must be .* sum to 1, got \[0.5, 0"),
        (lambda: theory.mirror_map([1.5, -0.5]), r"p must be .* non-negative"),
        (lambda: theory.mirror_map([[1.0]]), r"p must be a vector .* shape \(1, 1\)"),
        (lambda: theory.mirror_map([np.nan]), "p must be a vector"),
        (lambda: theory.kl_divergence([1.0], P), "q and p .* same length, got 1 and 2"),
        (lambda: theory.gibbs([1.0, np.inf], 1.0), "losses must be .* finite"),
        (lambda: theory.gibbs([], 1.0), "losses must be a non-empty vector"),
        (lambda: theory.gibbs(LOSSES, 0.0), r"eta must be a positive.*, got 0\.0"),
        (lambda: theory.gibbs(LOSSES, -1), "eta must be a positive"),
        (lambda: theory.gibbs(LOSSES, LOSSES), r"eta .* scalar, got shape \(2,\)"),
        (lambda: theory.inverse_mirror_map([np.nan]), "dual must be"),
        (lambda: theory.escape_probability(-1, 1, 1), "barrier must be positive"),
        (lambda: theory.escape_probability(1, 0, 1), "epsilon must be positive"),
        (lambda: theory.chernoff_bound(1, 1, np.inf), "sigma must be positive"),
        (lambda: theory.norm_escape_probability(1, 1, 1, 0), "num_weights must be at"),
        (lambda: theory.total_tunnelling_probability(1.1, 1), "initial_probability"),
        (lambda: theory.total_tunnelling_probability(1, 0), "decay must be positive"),
        (lambda: theory.total_tunnelling_probability(1, 1, 0), "num_steps must be at"),
        (lambda: theory.robbins_siegmund_budget(LOSSES, 0, 0), "initial .* scalar"),
        (lambda: theory.robbins_siegmund_budget(0, 0, np.nan), "increases must be"),
        (lambda: theory.cumulative_escape_probability([2.0], 0.5), "tunnelling_prob"),
        (lambda: theory.cumulative_escape_probability([1.0], 1.5), "escape must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shapes_are_checked_and_values_are_not_under_jit():
    with pytest.raises(ValueError, match="losses and p must have the same length"):
        jax.jit(theory.mirror_step)(LOSSES, jnp.ones(3), 1.0)
    jax.jit(theory.mirror_step)(LOSSES, jnp.ones(2), 1.0)


def test_constants_under_an_outer_jit_are_still_checked():
    with pytest.raises(ValueError, match="eta must be a positive"):
        jax.jit(lambda losses: theory.gibbs(losses, -1.0))(LOSSES)

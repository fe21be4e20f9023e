"""The paper's lemmas and bounds as functions that can be run and tested.

One function for each statement of I. Sajjad and M. M. AL Sobhi, "The
quantum-inspired adaptive superposition optimization for neural network training",
AIMS Mathematics, 2026, with the number of its equation. Where the paper is mistaken,
the docstring says how. They lie in ``amplification``, ``convergence`` and
``tunnelling``, and are all exported here: ``qiaso_jax.theory.kl_divergence``.

Arguments mean the same everywhere:

- ``p``, ``q``, ``p_next``: probabilities of the K candidates, shape [K], sum 1;
- ``losses``: their finite losses, shape [K]; ``eta``: inverse temperature η > 0,
  shape [], in 1/units of the loss;
- ``barrier``: distance Δ > 0 that a jump has to cover; ``epsilon``: scale ε > 0 of
  the jump; ``sigma``: standard deviation σ > 0 of its noise; any shapes that broadcast.

All functions are pure and work under ``jax.jit`` and ``jax.vmap``, which is also the
way to treat a batch. They compute in the dtype of their arguments, in float32 at
least. A concrete argument outside its set raises a ``ValueError`` that names it, what
it was and what it may be; so do vectors of different lengths, traced or not.
"""

from qiaso_jax.theory.amplification import (
    AmplificationBounds,
    amplification_bounds,
    exponential_weights,
    gibbs,
    inverse_mirror_map,
    kl_divergence,
    mirror_map,
    mirror_step,
    pinsker_slack,
    variational_objective,
)
from qiaso_jax.theory.convergence import (
    monotone_decrease_slack,
    project_onto_minimisers,
    robbins_siegmund_budget,
)
from qiaso_jax.theory.tunnelling import (
    chernoff_bound,
    cumulative_escape_probability,
    escape_probability,
    escape_probability_as_printed,
    escape_probability_bounds,
    norm_escape_probability,
    total_tunnelling_probability,
)

__all__ = [
    "AmplificationBounds",
    "amplification_bounds",
    "chernoff_bound",
    "cumulative_escape_probability",
    "escape_probability",
    "escape_probability_as_printed",
    "escape_probability_bounds",
    "exponential_weights",
    "gibbs",
    "inverse_mirror_map",
    "kl_divergence",
    "mirror_map",
    "mirror_step",
    "monotone_decrease_slack",
    "norm_escape_probability",
    "pinsker_slack",
    "project_onto_minimisers",
    "robbins_siegmund_budget",
    "total_tunnelling_probability",
    "variational_objective",
]

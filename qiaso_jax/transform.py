"""``qiaso()``: one step, composed in the order of the algorithm.

Evaluate, amplify, collapse, tunnel. Each is a file of its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments, _trees, amplitudes
from qiaso_jax import collapse as readouts
from qiaso_jax._arguments import PyTree
from qiaso_jax.evaluation import (
    accepted_arguments,
    candidate_losses,
    checked_losses,
    weighted_offset,
)
from qiaso_jax.state import QIASOInfo, QIASOState, empty_info
from qiaso_jax.superposition import Superposition, displaced
from qiaso_jax.tunnelling import Tunnelling, gaussian_tunnelling


def qiaso(
    num_candidates: int = 30,
    sigma: _arguments.ScalarOrSchedule = 0.02,
    eta: _arguments.ScalarOrSchedule = 1.0,
    *,
    kl_strength: chex.Numeric | None = 1.0,
    loss_scaling: Literal["zscore", "rank"] | None = "zscore",
    antithetic: bool = True,
    collapse: Literal["expectation", "best", "sample"] = "expectation",
    collapse_every: int = 1,
    tunnelling: Tunnelling | None = None,
    optimizer: optax.GradientTransformation | None = None,
    candidate_batch_size: int | None = None,
    key: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Quantum-Inspired Adaptive Superposition Optimization, without gradients.

    The optimizer keeps K candidates :math:`θ_k = μ + δ_k` around a centre μ and their
    probabilities p, as log p. One update does, in this order:

    1. *Evaluate* (Eq 3): :math:`L_k = ℓ(μ + δ_k)`, on the same keyword arguments.
    2. *Amplify* (Eq 5, 16, 30):
       :math:`p_k ← p_k \exp(−(η/λ) s(L)_k) / Z`, the exact minimiser of
       :math:`⟨q, s(L)⟩ + (λ/η) \mathrm{KL}(q ‖ p)` over the simplex.
    3. *Collapse*, every ``collapse_every`` updates: μ moves by
       :math:`\sum_k w_k δ_k`, with w = p (``"expectation"``, Eq 2), or w all on the
       most probable one (``"best"``, Eq 39) or on one drawn from p (``"sample"``).
       Then p is uniform again and fresh offsets :math:`δ_k ∼ 𝒩(0, σ² I)` are drawn
       (Eq 1). With ``"best"`` and ``"sample"`` candidate 0 stays at the centre.
    4. *Tunnel* (Eq 40, 41, 57), if asked for: see ``gaussian_tunnelling``.

    Between two collapses the displacement is zero. The centre is ``params + updates``
    and the result is ``updates`` plus the displacement: with zero updates (or ``None``)
    this is gradient-free, and as the last member of
    ``optax.chain(optax.adam(1e-3), qiaso())`` the superposition is prepared around the
    gradient step.

    For small η, the expected displacement is about :math:`−(η/λ) σ² ∇s(ℓ)`: a step
    down a smoothed loss. A candidate whose loss is not finite gets probability 0; if
    none is finite, the update returns ``updates`` unchanged and counts the step in
    ``info.num_skipped``.

    Args:
      num_candidates: K ≥ 1.
      sigma: σ > 0, the standard deviation of an offset in units of a weight; a float
        or an optax schedule over updates.
      eta: inverse temperature η ≥ 0, in units of 1 / scaled loss; a float or a
        schedule. A temperature annealed exponentially is
        ``optax.exponential_decay(1 / T_0, steps, 1 / rate, end_value=...)``.
      kl_strength: λ > 0 (section 2.2.1); ``None`` removes the prior, and p is the Gibbs
        distribution of the last losses alone (Eq 19).
      loss_scaling: s. ``"zscore"``; ``"rank"``, centred ranks in [−1/2, 1/2], for
        rugged losses; ``None`` for the losses themselves, as in the paper.
      antithetic: draw the offsets in pairs ±δ; one of an odd number is alone.
      collapse: what is read out.
      collapse_every: number of updates from one collapse to the next.
      tunnelling: ``gaussian_tunnelling(...)``, or ``None``.
      optimizer: an optax optimizer that is fed with minus the displacement as a
        pseudo-gradient, on collapse; ``optax.sgd(1.0)`` is the same as ``None``.
      candidate_batch_size: how many candidates are evaluated at a time. ``None`` for
        all; otherwise, with neither tunnelling nor stored offsets
        (``collapse_every=1``), memory does not grow with K.
      key: seed or PRNG key.

    Returns:
      A ``GradientTransformationExtraArgs``. Its ``update(updates, state, params,
      value_fn=..., **kwargs)`` needs ``value_fn(params, **kwargs) -> scalar``; of the
      keyword arguments, those that the signature of ``value_fn`` names are forwarded
      and others are ignored. Instead, ``candidates_value_fn(candidates, **kwargs)`` may
      be given: it gets all candidates at once, with a leading axis K, and returns their
      losses, shape ``[K]``. Integer and boolean leaves pass through untouched; every
      other leaf keeps its dtype. ``update`` is pure, and can be jitted, scanned and
      vmapped.

    Raises:
      TypeError: if an argument has the wrong type; in ``update``, if the loss is not
        one real floating array.
      ValueError: if an argument is out of its range or unknown; in ``update``, if
        ``params`` or ``value_fn`` is missing, if trees differ in structure, or if the
        loss is not a scalar.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> def loss(params, target):
      ...     return jnp.sum((params - target) ** 2)
      >>> tx = qiaso_jax.qiaso(30, sigma=0.1, optimizer=optax.adam(0.1))
      >>> params = jnp.zeros(3)
      >>> state = tx.init(params)
      >>> @jax.jit
      ... def step(params, state, target):
      ...     updates, state = tx.update(
      ...         None, state, params, value_fn=loss, target=target)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(100):
      ...     params, state = step(params, state, jnp.array([1.0, 2.0, 3.0]))
      >>> print(params.round(1))
      [1. 2. 3.]

    References:
      Sajjad and AL Sobhi, The quantum-inspired adaptive superposition optimization for
      neural network training, AIMS Mathematics 2026.
    """
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    collapse_every = _arguments.positive_int("collapse_every", collapse_every)
    if candidate_batch_size is not None:
        candidate_batch_size = _arguments.positive_int(
            "candidate_batch_size", candidate_batch_size
        )
    _arguments.scalar_or_schedule("sigma", sigma, above=0)
    _arguments.scalar_or_schedule("eta", eta, at_least=0)
    if kl_strength is not None:
        _arguments.scalar("kl_strength", kl_strength, above=0)
    _arguments.one_of("loss_scaling", loss_scaling, amplitudes.LOSS_SCALINGS)
    _arguments.one_of("collapse", collapse, readouts.READOUTS)
    if tunnelling is not None and not isinstance(tunnelling, Tunnelling):
        raise TypeError(
            "tunnelling must be None or made by qiaso_jax.gaussian_tunnelling, "
            f"got {tunnelling!r}."
        )
    if optimizer is not None:
        _arguments.transformation("optimizer", optimizer)
    key_data, key_impl = _arguments.prng_key(key)
    scale = amplitudes.LOSS_SCALINGS[loss_scaling]
    readout = readouts.READOUTS[collapse]
    superposition = Superposition(
        num_candidates, antithetic, keeps_centre=collapse in readouts.KEEPS_CENTRE
    )
    stores_candidates = collapse_every > 1 or tunnelling is not None
    inner = _trees.on_inexact(optax.scale(-1.0) if optimizer is None else optimizer)

    def init(params: PyTree) -> QIASOState:
        params = _trees.arrays(params)
        dtype = _trees.amplitude_dtype(params)
        key, prepare_key = jax.random.split(
            jax.random.wrap_key_data(key_data, impl=key_impl)
        )
        step = jnp.zeros((), jnp.int32)
        candidates = ()
        if stores_candidates:
            candidates = superposition.offsets(
                prepare_key, params, _arguments.at_step(sigma, step)
            )
        return QIASOState(
            step=step,
            key=jax.random.key_data(key),
            candidates=candidates,
            log_amplitudes=amplitudes.uniform(num_candidates, dtype),
            opt_state=inner.init(params),
            info=empty_info(num_candidates, dtype),
        )

    def update(
        updates: PyTree | None,
        state: Any,
        params: PyTree | None = None,
        *,
        value_fn: Any = None,
        candidates_value_fn: Any = None,
        **kwargs: Any,
    ) -> tuple[PyTree, QIASOState]:
        updates, centre = _trees.updates_and_centre(updates, params)
        if (value_fn is None) == (candidates_value_fn is None):
            raise ValueError(
                "qiaso evaluates the loss itself: give update one of value_fn=, a "
                "function (params, **kwargs) -> scalar, and candidates_value_fn=; got "
                + ("neither." if value_fn is None else "both.")
            )
        next_key, prepare_key, collapse_key, tunnel_key = jax.random.split(
            jax.random.wrap_key_data(state.key, impl=key_impl), 4
        )
        step = state.step
        sigma_now = _arguments.at_step(sigma, step)
        if stores_candidates:
            _trees.check_same_structure("state.candidates", state.candidates, centre)
            offsets, offset_of = state.candidates, _as_stored
        elif candidate_batch_size is None or candidates_value_fn is not None:
            offsets = superposition.offsets(prepare_key, centre, sigma_now)
            offset_of = _as_stored
        else:
            offsets = None

            def offset_of(k, offset):
                del offset
                return superposition.offset(prepare_key, centre, sigma_now, k)

        candidates = (jnp.arange(num_candidates), offsets)

        # Evaluate.
        if candidates_value_fn is None:
            losses = candidate_losses(
                value_fn, centre, candidates, offset_of, candidate_batch_size, **kwargs
            )
        else:
            all_candidates = jax.vmap(
                displaced, in_axes=(None, 0), axis_size=num_candidates
            )(centre, offsets)
            losses = checked_losses(
                candidates_value_fn(
                    all_candidates, **accepted_arguments(candidates_value_fn, kwargs)
                ),
                (num_candidates,),
                "candidates_value_fn",
            )
        losses = losses.astype(state.log_amplitudes.dtype)

        # Amplify.
        uniform = amplitudes.uniform(num_candidates, losses.dtype)
        prior = uniform if kl_strength is None else state.log_amplitudes
        rate = _arguments.at_step(eta, step)
        if kl_strength is not None:
            rate = rate / kl_strength
        log_prior, any_finite = amplitudes.restrict(prior, losses)
        scaled_losses = scale(losses)
        log_amplitudes = jnp.where(
            any_finite,
            amplitudes.amplify(log_prior, scaled_losses, rate),
            state.log_amplitudes,
        )
        info = _measure(
            state, losses, scaled_losses, log_amplitudes, any_finite, num_candidates
        )

        # Collapse.
        def collapse_now():
            weights = readout(collapse_key, log_amplitudes)
            displacement = weighted_offset(
                weights, centre, candidates, offset_of, candidate_batch_size
            )
            gradient = optax.tree.scale(-1, displacement)
            moved, opt_state = _trees.update_if(
                any_finite, inner, gradient, state.opt_state, centre
            )
            prepared = ()
            if stores_candidates:
                prepared = superposition.offsets(
                    prepare_key, centre, _arguments.at_step(sigma, step + 1)
                )
            return moved, opt_state, prepared, uniform

        def keep():
            zeros = optax.tree.zeros_like(centre)
            return zeros, state.opt_state, offsets, log_amplitudes

        collapses, (moved, opt_state, prepared, log_p) = readouts.at_multiples(
            collapse_every, step, collapse_now, keep
        )
        info = info._replace(collapsed=collapses & any_finite)

        # Tunnel.
        if tunnelling is not None:
            seen = jnp.where(collapses, info.expected_loss, losses)
            prepared, num_tunnelled = tunnelling.jump(
                tunnel_key, step, prepared, log_p, seen
            )
            info = info._replace(num_tunnelled=num_tunnelled)

        return _trees.added(updates, moved), QIASOState(
            step=jnp.asarray(optax.safe_increment(step)),
            key=jax.random.key_data(next_key),
            candidates=prepared,
            log_amplitudes=log_p,
            opt_state=opt_state,
            info=info,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _as_stored(k: jax.Array, offset: PyTree) -> PyTree:
    del k
    return offset


def _measure(
    state: QIASOState,
    losses: jax.Array,
    scaled_losses: jax.Array,
    log_amplitudes: jax.Array,
    any_finite: jax.Array,
    num_candidates: int,
) -> QIASOInfo:
    """What evaluating and amplifying did; the rest as after no collapse."""
    log_prior, _ = amplitudes.restrict(state.log_amplitudes, losses)
    finite = jnp.isfinite(losses)
    expected = amplitudes.expected
    return empty_info(num_candidates, losses.dtype)._replace(
        expected_loss=jnp.where(any_finite, expected(log_amplitudes, losses), jnp.inf),
        best_loss=jnp.min(jnp.where(finite, losses, jnp.inf)),
        expected_decrease=jnp.where(
            any_finite,
            expected(log_prior, scaled_losses)
            - expected(log_amplitudes, scaled_losses),
            0,
        ),
        kl=amplitudes.kl_divergence(log_amplitudes, log_prior),
        entropy=amplitudes.entropy(log_amplitudes),
        effective_candidates=amplitudes.effective_candidates(log_amplitudes),
        num_nonfinite=jnp.sum(~finite, dtype=jnp.int32),
        num_skipped=state.info.num_skipped + jnp.where(any_finite, 0, 1),
    )


PAPER: Mapping[str, Any] = MappingProxyType(
    {
        "num_candidates": 30,
        "sigma": 0.02,
        "eta": optax.exponential_decay(1.0, 1, 1 / 0.995, end_value=1e3),
        "kl_strength": 1.0,
        "loss_scaling": None,
        "antithetic": False,
        "collapse": "best",
        "collapse_every": 10,
        "tunnelling": gaussian_tunnelling(0.02, 1.0, 0.995),
    }
)
"""The paper's settings: ``qiaso(**PAPER)``.

Section 4.1 gives K = 30, ε = 0.02, a decay of 0.995 and T_0 = 1 annealed exponentially.
It does not give σ = 0.02, p_0 = 1, a collapse every 10 steps or the annealing rate of
T: 0.995 per step with the floor T = 1e-3 here. These are our choice. Probability and
temperature are schedules over update steps; where the paper counts in epochs, replace
them by ones whose ``transition_steps`` are the steps of an epoch.
"""

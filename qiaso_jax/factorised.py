"""``factorised_qiaso()``: a superposition of every block of parameters for itself.

One step: the losses of every value of every block, by exact evaluation or by
measurement, then amplify and collapse, block by block. What a block is, and how
configurations of all blocks are drawn and credited, is in ``qiaso_jax.blocks``.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments, _trees, amplitudes
from qiaso_jax import collapse as readouts
from qiaso_jax._arguments import PyTree
from qiaso_jax.blocks import (
    GRANULARITIES,
    configured_offset,
    count_blocks,
    credited_losses,
    mean_offset,
    stratified_draws,
)
from qiaso_jax.evaluation import candidate_losses
from qiaso_jax.state import QIASOInfo, QIASOState, empty_info
from qiaso_jax.superposition import Superposition


def factorised_qiaso(
    num_candidates: int = 30,
    sigma: _arguments.ScalarOrSchedule = 0.02,
    eta: _arguments.ScalarOrSchedule = 1.0,
    *,
    granularity: Literal["element", "leaf"] = "element",
    num_measurements: int | None = None,
    loss_scaling: Literal["zscore", "rank"] | None = "zscore",
    collapse: Literal["expectation", "best", "sample"] = "expectation",
    collapse_every: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    candidate_batch_size: int | None = None,
    key: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""QIASO with a superposition of every weight, or every leaf, for itself.

    This is Eq 1–4 and 39 read literally. Each block i of the parameters has K values
    :math:`ϖ_i^{(k)} = μ_i + δ_i^{(k)}` of its own and a distribution :math:`p_i` over
    them; the parameters have the product of these. One update does:

    1. *Evaluate* (Eq 3). Exactly, with the other blocks at their expectation (Eq 2),

       .. math::
         L_i^{(k)} = ℓ(\bar ϖ_{-i}, ϖ_i^{(k)}), \qquad
         \bar ϖ_i = μ_i + \sum_k p_{ik} δ_i^{(k)},

       which takes K evaluations for each block. Or by measurement: S joint
       configurations :math:`c_1 … c_S` are drawn from the product distribution,
       value k of block i in :math:`S p_{ik}` of them, rounded up or down; each is
       evaluated once, and each value is credited with the mean of those it is in,

       .. math::
         L_i^{(k)} = \frac{1}{n_{ik}} \sum_{s:\, c_{si} = k} ℓ(c_s),

       without bias an estimate of :math:`E[ℓ \mid c_i = k]`, the derivative of the
       expected loss by :math:`p_{ik}`. A value that is not drawn is credited with the
       mean of all.
    2. *Amplify* (Eq 4, 16, 30), block by block:
       :math:`p_{ik} ← p_{ik} \exp(−η\, s(L)_{ik}) / Z_i`.
    3. *Collapse*, every ``collapse_every`` updates: each block moves by
       :math:`\sum_k p_{ik} δ_i^{(k)}` (``"expectation"``, Eq 2), or to its most
       probable value (``"best"``, Eq 39), or to one drawn from :math:`p_i`
       (``"sample"``). Then all :math:`p_i` are uniform again and fresh offsets are
       drawn (Eq 1), in pairs ±δ. With ``"best"`` and ``"sample"`` value 0 stays at the
       centre; an odd K keeps the pairs complete.

    All blocks move at once. Where the loss is a sum over blocks this is exact: K N
    evaluations search N one-dimensional problems, each with K values. Where blocks
    interact, exact losses do not see it, and the simultaneous moves may overshoot;
    measured ones do see it, on average. With S = K each value is in one
    configuration, all blocks have the amplitudes of these K configurations, and the
    step is that of ``qiaso`` with them as candidates.

    As in ``qiaso``, the centre is ``params + updates`` and the result is ``updates``
    plus the displacement, which is zero between two collapses. An evaluation that is
    not finite does not count, and a value that has no other gets probability 0; a block
    without a finite loss stays; without any at all the update returns ``updates``
    unchanged and counts the step in ``info.num_skipped``.

    Args:
      num_candidates: K ≥ 1, the number of values of a block.
      sigma: σ > 0, the standard deviation of an offset in units of a weight; a float
        or an optax schedule over updates.
      eta: inverse temperature η ≥ 0, in units of 1 / scaled loss; a float or a
        schedule.
      granularity: what a block is: ``"element"``, each weight, or ``"leaf"``, each
        array of the pytree.
      num_measurements: S, the evaluations of an update; ``None`` to evaluate exactly,
        with K · (number of blocks) of them.
      loss_scaling: s. ``"zscore"``; ``"rank"``, centred ranks in [−1/2, 1/2]; ``None``
        for the losses themselves. Exact losses are scaled block by block, so that each
        block has its own temperature. Measured ones are scaled all together, before
        they are credited, so that more of them leave less noise in the exponents.
      collapse: what is read out.
      collapse_every: number of updates from one collapse to the next.
      optimizer: an optax optimizer that is fed with minus the displacement as a
        pseudo-gradient, on collapse; ``optax.sgd(1.0)`` is the same as ``None``.
      candidate_batch_size: how many evaluations are made at a time. ``None`` for all,
        which takes K · N · N numbers where N weights are evaluated exactly.
      key: seed or PRNG key.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``QIASOState``, whose
      ``log_amplitudes`` have the shape ``[blocks, K]``. Its ``update(updates, state,
      params, value_fn=..., **kwargs)`` needs ``value_fn(params, **kwargs) -> scalar``,
      and forwards the keyword arguments that the signature of ``value_fn`` names.
      Integer and boolean leaves pass through untouched; every other leaf keeps its
      dtype. In ``state.info``, ``best_loss`` and ``num_nonfinite`` are about all
      evaluations of the step; ``expected_loss``, ``expected_decrease``, ``kl``,
      ``entropy`` and ``effective_candidates`` are means over the blocks.

    Raises:
      TypeError: if an argument has the wrong type; in ``update``, if the loss is not
        one real floating array.
      ValueError: if an argument is out of its range or unknown; in ``update``, if
        ``params`` or ``value_fn`` is missing, if trees differ in structure, or if the
        loss is not a scalar.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> def rastrigin(x):
      ...     return jnp.sum(x**2 + 20 * jnp.sin(jnp.pi * x) ** 2)
      >>> tx = qiaso_jax.factorised_qiaso(
      ...     20, sigma=optax.exponential_decay(2.5, 100, 1e-3), eta=3.0)
      >>> x = jnp.full(5, 3.3)
      >>> state = tx.init(x)
      >>> @jax.jit
      ... def step(x, state):
      ...     updates, state = tx.update(None, state, x, value_fn=rastrigin)
      ...     return optax.apply_updates(x, updates), state
      >>> for _ in range(100):
      ...     x, state = step(x, state)
      >>> bool(rastrigin(x) < 1e-3)
      True

    References:
      Sajjad and AL Sobhi, The quantum-inspired adaptive superposition optimization for
      neural network training, AIMS Mathematics 2026, sections 2.1 to 2.3. Kivinen and
      Warmuth, Exponentiated gradient versus gradient descent for linear predictors,
      Information and Computation 1997. McKay, Beckman and Conover, A comparison of
      three methods for selecting values of input variables in the analysis of output
      from a computer code, Technometrics 1979 (Latin hypercubes).
    """
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    collapse_every = _arguments.positive_int("collapse_every", collapse_every)
    if num_measurements is not None:
        num_measurements = _arguments.positive_int("num_measurements", num_measurements)
    if candidate_batch_size is not None:
        candidate_batch_size = _arguments.positive_int(
            "candidate_batch_size", candidate_batch_size
        )
    _arguments.scalar_or_schedule("sigma", sigma, above=0)
    _arguments.scalar_or_schedule("eta", eta, at_least=0)
    _arguments.one_of("granularity", granularity, GRANULARITIES)
    _arguments.one_of("loss_scaling", loss_scaling, amplitudes.LOSS_SCALINGS)
    _arguments.one_of("collapse", collapse, readouts.READOUTS)
    if optimizer is not None:
        _arguments.transformation("optimizer", optimizer)
    key_data, key_impl = _arguments.prng_key(key)
    scale = amplitudes.LOSS_SCALINGS[loss_scaling]
    readout = jax.vmap(readouts.READOUTS[collapse])
    superposition = Superposition(
        num_candidates, antithetic=True, keeps_centre=collapse in readouts.KEEPS_CENTRE
    )
    stores_candidates = collapse_every > 1
    inner = _trees.on_inexact(optax.scale(-1.0) if optimizer is None else optimizer)

    def uniform(params: PyTree) -> jax.Array:
        log_p = amplitudes.uniform(num_candidates, _trees.amplitude_dtype(params))
        return jnp.tile(log_p, (count_blocks(params, granularity), 1))

    def init(params: PyTree) -> QIASOState:
        params = _trees.arrays(params)
        key, prepare_key = jax.random.split(
            jax.random.wrap_key_data(key_data, impl=key_impl)
        )
        step = jnp.zeros((), jnp.int32)
        candidates = ()
        if stores_candidates:
            candidates = superposition.offsets(
                prepare_key, params, _arguments.at_step(sigma, step)
            )
        log_amplitudes = uniform(params)
        return QIASOState(
            step=step,
            key=jax.random.key_data(key),
            candidates=candidates,
            log_amplitudes=log_amplitudes,
            opt_state=inner.init(params),
            info=empty_info(num_candidates, log_amplitudes.dtype),
        )

    def update(
        updates: PyTree | None,
        state: Any,
        params: PyTree | None = None,
        *,
        value_fn: Any = None,
        **kwargs: Any,
    ) -> tuple[PyTree, QIASOState]:
        updates, centre = _trees.updates_and_centre(updates, params)
        if value_fn is None:
            raise ValueError(
                "factorised_qiaso evaluates the loss itself: give update value_fn=, a "
                "function (params, **kwargs) -> scalar; got none."
            )
        next_key, prepare_key, measure_key, collapse_key = jax.random.split(
            jax.random.wrap_key_data(state.key, impl=key_impl), 4
        )
        step = state.step
        if stores_candidates:
            _trees.check_same_structure("state.candidates", state.candidates, centre)
            offsets = state.candidates
        else:
            offsets = superposition.offsets(
                prepare_key, centre, _arguments.at_step(sigma, step)
            )
        prior = state.log_amplitudes
        num_blocks = prior.shape[0]

        # Evaluate.
        def losses_of(configurations, offset_of):
            return candidate_losses(
                value_fn,
                centre,
                (configurations, None),
                lambda c, _: offset_of(c),
                candidate_batch_size,
                **kwargs,
            ).astype(prior.dtype)

        if num_measurements is None:
            expected = mean_offset(jnp.exp(prior), offsets, centre, granularity)
            # The expectation is one value more, number K.
            values = jax.tree.map(_with_expectation, offsets, expected)

            def offset_of_one(index):
                block, value = jnp.divmod(index, num_candidates)
                others = jnp.arange(num_blocks) != block
                configuration = jnp.where(others, num_candidates, value)
                return configured_offset(configuration, values, centre, granularity)

            losses = losses_of(jnp.arange(num_blocks * num_candidates), offset_of_one)
            credited = losses.reshape(num_blocks, num_candidates)
            scaled_losses = jax.vmap(scale)(credited)
        else:
            draws = stratified_draws(measure_key, prior, num_measurements)
            losses = losses_of(
                draws, lambda c: configured_offset(c, offsets, centre, granularity)
            )
            scaled = jnp.where(jnp.isfinite(losses), scale(losses), jnp.inf)
            credited = credited_losses(losses, draws, num_candidates)
            scaled_losses = credited_losses(scaled, draws, num_candidates)

        # Amplify.
        rate = _arguments.at_step(eta, step)
        log_prior, informed = jax.vmap(amplitudes.restrict)(prior, credited)
        log_amplitudes = jnp.where(
            informed[:, None],
            jax.vmap(amplitudes.amplify, in_axes=(0, 0, None))(
                log_prior, scaled_losses, rate
            ),
            prior,
        )
        any_informed = jnp.any(informed)
        info = _measure(
            state, losses, credited, scaled_losses, log_prior, log_amplitudes, informed
        )

        # Collapse.
        def collapse_now():
            keys = jax.random.split(collapse_key, num_blocks)
            weights = readout(keys, log_amplitudes) * informed[:, None]
            displacement = mean_offset(weights, offsets, centre, granularity)
            gradient = optax.tree.scale(-1, displacement)
            moved, opt_state = _trees.update_if(
                any_informed, inner, gradient, state.opt_state, centre
            )
            prepared = ()
            if stores_candidates:
                prepared = superposition.offsets(
                    prepare_key, centre, _arguments.at_step(sigma, step + 1)
                )
            return moved, opt_state, prepared, uniform(centre)

        def keep():
            zeros = optax.tree.zeros_like(centre)
            return zeros, state.opt_state, offsets, log_amplitudes

        collapses, (moved, opt_state, prepared, log_p) = readouts.at_multiples(
            collapse_every, step, collapse_now, keep
        )

        return _trees.added(updates, moved), QIASOState(
            step=jnp.asarray(optax.safe_increment(step)),
            key=jax.random.key_data(next_key),
            candidates=prepared,
            log_amplitudes=log_p,
            opt_state=opt_state,
            info=info._replace(collapsed=collapses & any_informed),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _with_expectation(offsets: jax.Array, expected: jax.Array) -> jax.Array:
    if not _trees.is_inexact(expected):
        return offsets
    return jnp.concatenate([offsets, expected[None]])


def _measure(
    state: QIASOState,
    losses: jax.Array,
    credited: jax.Array,
    scaled_losses: jax.Array,
    log_prior: jax.Array,
    log_amplitudes: jax.Array,
    informed: jax.Array,
) -> QIASOInfo:
    """What evaluating and amplifying did; means over the blocks that had a loss."""
    count = jnp.maximum(jnp.sum(informed), 1)

    def mean(function, *arguments):
        of_blocks = jnp.where(informed, jax.vmap(function)(*arguments), 0)
        return jnp.sum(of_blocks) / count

    any_informed = jnp.any(informed)
    finite = jnp.isfinite(losses)
    num_candidates = credited.shape[1]
    expected = amplitudes.expected
    return empty_info(num_candidates, losses.dtype)._replace(
        expected_loss=jnp.where(
            any_informed, mean(expected, log_amplitudes, credited), jnp.inf
        ),
        best_loss=jnp.min(losses, where=finite, initial=jnp.inf),
        expected_decrease=mean(expected, log_prior, scaled_losses)
        - mean(expected, log_amplitudes, scaled_losses),
        kl=mean(amplitudes.kl_divergence, log_amplitudes, log_prior),
        entropy=mean(amplitudes.entropy, log_amplitudes),
        effective_candidates=mean(amplitudes.effective_candidates, log_amplitudes),
        num_nonfinite=jnp.sum(~finite, dtype=jnp.int32),
        num_skipped=state.info.num_skipped + jnp.where(any_informed, 0, 1),
    )

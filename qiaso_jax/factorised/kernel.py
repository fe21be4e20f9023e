"""The kernel of ``factorised_qiaso()``: a superposition of every block for itself.

One step: the losses of every value of every block, by exact evaluation or by
measurement, then amplify and collapse, block by block. What a block is, and how
configurations of all blocks are drawn and credited, is in ``blocks``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments, _trees, amplitudes
from qiaso_jax import collapse as readouts
from qiaso_jax._arguments import PyTree, ScalarOrSchedule
from qiaso_jax._transformation import Kernel, Told, algorithm, transformation
from qiaso_jax._trees import Mask
from qiaso_jax.amplitudes import Scaling
from qiaso_jax.collapse import Readout, at_multiples
from qiaso_jax.evaluation import asked_arrays, evaluated
from qiaso_jax.factorised.blocks import (
    GRANULARITIES,
    configured_offset,
    count_blocks,
    credited_losses,
    mean_offset,
    stratified_draws,
)
from qiaso_jax.losses import Losses, measured
from qiaso_jax.spread import check_sigma, spread, unresolved
from qiaso_jax.superposition import Candidates, Listed, Superposition


def factorised_qiaso(
    num_candidates: int = 30,
    sigma: ScalarOrSchedule | PyTree = 0.02,
    eta: ScalarOrSchedule = 1.0,
    *,
    granularity: Literal["element", "leaf"] = "element",
    num_measurements: int | None = None,
    loss_scaling: Literal["zscore", "rank"] | Scaling | None = "zscore",
    collapse: Literal["expectation", "best", "sample"] | Callable = "expectation",
    collapse_every: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    mask: Mask = None,
    has_aux: bool = False,
    candidate_batch_size: int | None = None,
    key: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""QIASO with a superposition of every weight, or every leaf, for itself.

    This is Eq 1–4 and 39 read literally. Each block i of the parameters has K values
    :math:`ϖ_i^{(k)} = μ_i + δ_i^{(k)}` of its own and a distribution :math:`p_i` over
    them; the parameters have the product of these. One update does:

    1.  *Evaluate* (Eq 3). Exactly, with the other blocks at their expectation (Eq 2),

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

    2.  *Amplify* (Eq 4, 16, 30), block by block:
        :math:`p_{ik} ← p_{ik} \exp(−η\, s(L)_{ik}) / Z_i`.

    3.  *Collapse*, every ``collapse_every`` updates: each block moves by
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
        or an optax schedule over updates, ``relative(...)`` for one in units of a
        leaf's own size, or a pytree (prefix) of these and of arrays with one number per
        weight. In half precision σ must be above the resolution of the weights:
        ``info.unresolved`` says of how many it is not.
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
      mask: which leaves move: a pytree (prefix) of booleans, or a function of the
        parameters that returns one. ``value_fn`` sees the others as they are; they are
        not perturbed, stored or moved.
      has_aux: whether ``value_fn`` returns ``(loss, aux)``; what it returns at the
        centre comes back as ``state.aux``, for one more evaluation. As only the first
        step finds out what ``aux`` is, the second compiles anew, and the first must be
        outside of a ``lax.scan``.
      candidate_batch_size: how many evaluations are made at a time. ``None`` for all,
        which takes K · N · N numbers where N weights are evaluated exactly.
      key: seed or PRNG key.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``FactorisedState``. Its
      ``update(updates, state, params, value_fn=..., **kwargs)`` needs
      ``value_fn(params, **kwargs) -> scalar``, and forwards the keyword arguments that
      the signature of ``value_fn`` names; or ``candidates_value_fn``, which gets all
      configurations of the step at once, as in ``qiaso``. Integer and boolean leaves
      pass through untouched; every other leaf keeps its dtype.

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
    _arguments.static(
        num_candidates=num_candidates,
        num_measurements=num_measurements,
        collapse_every=collapse_every,
        candidate_batch_size=candidate_batch_size,
    )
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    collapse_every = _arguments.positive_int("collapse_every", collapse_every)
    if num_measurements is not None:
        num_measurements = _arguments.positive_int("num_measurements", num_measurements)
    if candidate_batch_size is not None:
        candidate_batch_size = _arguments.positive_int(
            "candidate_batch_size", candidate_batch_size
        )
    check_sigma(sigma)
    _arguments.scalar_or_schedule("eta", eta, at_least=0)
    _arguments.one_of("granularity", granularity, GRANULARITIES)
    readout = readouts.readout(collapse)
    settings = Settings(
        Superposition(num_candidates, True, readout.keeps_centre),
        sigma,
        eta,
        granularity,
        num_measurements,
        amplitudes.scaling(loss_scaling),
        readout,
        collapse_every,
        candidate_batch_size,
    )
    return transformation(algorithm(KERNEL, settings, optimizer, key, mask, has_aux))


class FactorisedInfo(NamedTuple):
    """What happened in the last step of ``factorised_qiaso``; every field is a scalar.

    ``optax.tree.get(state, "expected_loss")`` finds a field in any wrapped state.
    Means are over the blocks of which any value had a finite loss.

    Attributes:
      expected_loss: mean of ⟨p_i, L_i⟩ after the step (Eq 43), in units of the loss;
        ``inf`` where no loss was finite, where no parameter has an entry, and before
        the first step.
      best_loss: the least of all evaluations of the step, likewise.
      expected_decrease: mean of the fall of ⟨p_i, s(L)_i⟩, of the *scaled* loss. By
        Lemma 3.1 (Eq 45), of each block and so of the mean, at least ``kl / eta``.
      kl: mean of KL(p_i after ‖ p_i before), in nats.
      entropy: mean of −Σ p_i log p_i, in nats.
      effective_candidates: mean of 1 / Σ p_i², between 1 and K.
      num_nonfinite: evaluations of this step that were NaN or infinite.
      num_skipped: steps so far that did nothing, as no evaluation was finite.
      num_flat: collapses so far that moved nothing, as no loss had told any two values
        of a block apart: losses that differ by less than 4 eps max |L| count as equal.
      unresolved: the share of weights that an offset of σ leaves as they are, since it
        is below the resolution of their dtype.
      collapsed: whether the centre moved.
    """

    expected_loss: jax.Array
    best_loss: jax.Array
    expected_decrease: jax.Array
    kl: jax.Array
    entropy: jax.Array
    effective_candidates: jax.Array
    num_nonfinite: jax.Array
    num_skipped: jax.Array
    num_flat: jax.Array
    unresolved: jax.Array
    collapsed: jax.Array


class FactorisedState(NamedTuple):
    """The state of ``factorised_qiaso``; all leaves are arrays. Version 1.

    Attributes:
      step: number of updates so far, int32.
      key: raw uint32 data of the PRNG key of the next step.
      candidates: offsets δ_i^(k) of all values from the centre, a pytree like the
        parameters with a leading axis K; empty where they are drawn within a step.
      log_amplitudes: log p_ik, shape ``[blocks, K]``, each row normalised.
      opt_state: state of the ``optimizer`` that is fed with the displacement.
      info: the report on the last step.
      aux: what ``value_fn`` returned beside the loss, with ``has_aux=True``.
    """

    step: jax.Array
    key: jax.Array
    candidates: PyTree
    log_amplitudes: jax.Array
    opt_state: PyTree
    info: FactorisedInfo
    aux: PyTree = ()


class Settings(NamedTuple):
    """The arguments of ``factorised_qiaso``, checked."""

    superposition: Superposition
    sigma: ScalarOrSchedule | PyTree
    eta: ScalarOrSchedule
    granularity: str
    num_measurements: int | None
    scale: Scaling
    readout: Readout
    collapse_every: int
    batch_size: int | None


class Asked(NamedTuple):
    """The configurations to evaluate, and what they are made of.

    Attributes:
      candidates: all of them.
      offsets: of the values of all blocks, leading axis K.
      draws: the number of the value of each block in each measured configuration,
        shape ``[S, blocks]``; ``None`` for exact evaluation.
      prepare_key: of the offsets, where they are not stored.
      collapse_key: for the readouts.
    """

    candidates: Candidates
    offsets: PyTree
    draws: jax.Array | None
    prepare_key: jax.Array
    collapse_key: jax.Array


def init(settings: Settings, key: jax.Array, params: PyTree) -> FactorisedState:
    """Prepares uniform superpositions; their offsets only where they are stored."""
    num_candidates = settings.superposition.num_candidates
    key, prepare_key = jax.random.split(key)
    step = jnp.zeros((), jnp.int32)
    log_amplitudes = _uniform(settings, params)
    dtype = log_amplitudes.dtype
    return FactorisedState(
        step=step,
        key=jax.random.key_data(key),
        candidates=_stored(settings, prepare_key, params, step),
        log_amplitudes=log_amplitudes,
        opt_state=(),
        info=FactorisedInfo(
            **amplitudes.before_losses(num_candidates, dtype),
            unresolved=jnp.zeros((), jnp.float32),
            collapsed=jnp.zeros((), bool),
        ),
    )


def ask(
    settings: Settings, state: FactorisedState, keys: jax.Array, centre: PyTree
) -> Asked:
    """The configurations: of each value for itself, or drawn from the product."""
    prepare_key, measure_key, collapse_key = keys
    offsets = state.candidates
    if settings.collapse_every == 1:
        sigma = spread(settings.sigma, state.step, centre)
        offsets = settings.superposition.offsets(prepare_key, centre, sigma)
    if settings.num_measurements is None:
        draws = None
        candidates = _each_value(settings, state.log_amplitudes, offsets, centre)
    else:
        draws = stratified_draws(
            measure_key, state.log_amplitudes, settings.num_measurements
        )
        candidates = Listed(
            draws,
            lambda c: configured_offset(c, offsets, centre, settings.granularity),
            settings.batch_size,
        )
    return Asked(candidates, offsets, draws, prepare_key, collapse_key)


def _each_value(
    settings: Settings, log_amplitudes: jax.Array, offsets: PyTree, centre: PyTree
) -> Candidates:
    """Value k of block i with the other blocks at their expectation (Eq 2)."""
    num_blocks, num_candidates = log_amplitudes.shape
    granularity = settings.granularity
    expected = mean_offset(jnp.exp(log_amplitudes), offsets, centre, granularity)
    # The expectation is one value more, number K.
    values = jax.tree.map(_with_expectation, offsets, expected)

    def offset_of(index):
        block, value = jnp.divmod(index, num_candidates)
        others = jnp.arange(num_blocks) != block
        configuration = jnp.where(others, num_candidates, value)
        return configured_offset(configuration, values, centre, granularity)

    indices = jnp.arange(num_blocks * num_candidates)
    return Listed(indices, offset_of, settings.batch_size)


def _with_expectation(offsets: jax.Array, expected: jax.Array) -> jax.Array:
    return jnp.concatenate([offsets, expected[None]])


def tell(
    settings: Settings,
    state: FactorisedState,
    centre: PyTree,
    asked: Asked,
    losses: jax.Array | Losses,
) -> Told:
    """Credits the values with their losses; amplifies and collapses every block."""
    prior = state.log_amplitudes
    losses = measured(losses, prior.dtype)
    credited, scaled_losses = _credited(settings, asked, losses, prior)
    rate = _arguments.at_step(settings.eta, state.step)
    reweighted = jax.vmap(amplitudes.reweighted, in_axes=(0, 0, 0, None))
    log_prior, log_amplitudes, informed = reweighted(
        prior, credited, scaled_losses, rate
    )
    # The first value stands for all: they are as prepared where they are equal.
    flat = jnp.all(log_amplitudes == log_amplitudes[:, :1], axis=1)

    moving = informed & ~flat

    def collapse_now():
        keys = jax.random.split(asked.collapse_key, prior.shape[0])
        weights = jax.vmap(settings.readout)(keys, log_amplitudes)
        displacement = mean_offset(
            weights * moving[:, None],
            asked.offsets,
            centre,
            settings.granularity,
        )
        displacement = _trees.sharded_like(displacement, centre)
        prepared = _stored(settings, asked.prepare_key, centre, state.step + 1)
        return displacement, prepared, _uniform(settings, centre)

    def keep():
        return optax.tree.zeros_like(centre), asked.offsets, log_amplitudes

    collapses, (displacement, offsets, log_p) = at_multiples(
        settings.collapse_every, state.step, collapse_now, keep
    )
    report = jax.vmap(amplitudes.measure)(
        log_prior, log_amplitudes, credited, scaled_losses, informed
    )
    # Of no block there is no mean, and the report stays as it was before any loss.
    means = amplitudes.mean_over(report, informed)._asdict() if informed.size else {}
    any_informed = jnp.any(informed)
    all_flat = jnp.all(flat)
    finite = jnp.isfinite(losses.value)
    sigma = spread(settings.sigma, state.step, centre)
    info = state.info._replace(
        **means,
        best_loss=jnp.min(losses.value, where=finite, initial=jnp.inf),
        num_nonfinite=jnp.sum(~finite, dtype=jnp.int32),
        unresolved=unresolved(centre, sigma),
    )
    told = Told(
        gradient=optax.tree.scale(-1, displacement),
        collapses=collapses,
        informed=any_informed,
        finite=_trees.all_finite(displacement),
        flat=all_flat,
        state=state._replace(candidates=offsets, log_amplitudes=log_p),
    )
    info = info._replace(collapsed=told.moves)
    return told._replace(state=told.state._replace(info=info))


def _credited(
    settings: Settings, asked: Asked, losses: Losses, prior: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The losses of all values of all blocks and these scaled, ``[blocks, K]`` each."""
    scaled = partial(amplitudes.scaled, settings.scale)
    if asked.draws is None:
        of_blocks = jax.tree.map(lambda x: x.reshape(prior.shape), losses)
        return of_blocks.value, jax.vmap(scaled)(of_blocks)
    num_candidates = prior.shape[1]
    known = jnp.where(jnp.isfinite(losses.value), scaled(losses), jnp.inf)
    credited = credited_losses(losses.value, asked.draws, num_candidates)
    return credited, credited_losses(known, asked.draws, num_candidates)


def _uniform(settings: Settings, params: PyTree) -> jax.Array:
    log_p = amplitudes.uniform(
        settings.superposition.num_candidates, _trees.amplitude_dtype(params)
    )
    return jnp.tile(log_p, (count_blocks(params, settings.granularity), 1))


def _stored(
    settings: Settings, key: jax.Array, like: PyTree, step: jax.Array
) -> PyTree:
    if settings.collapse_every == 1:
        return ()
    return settings.superposition.offsets(key, like, spread(settings.sigma, step, like))


KERNEL = Kernel(
    name="factorised_qiaso",
    losses="scalar",
    num_keys=3,
    init=init,
    ask=ask,
    evaluate=evaluated,
    tell=tell,
    candidates=asked_arrays,
)

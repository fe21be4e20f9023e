"""Weight space: ``qiaso()``, one step in the order of the algorithm.

Evaluate, amplify, collapse, tunnel. Each is a file of its own.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh
from jax.typing import ArrayLike

from qiaso_jax import _arguments, _trees, _varying, amplitudes, devices
from qiaso_jax import collapse as readouts
from qiaso_jax._arguments import BatchArgnames, PyTree, ScalarOrSchedule
from qiaso_jax._transformation import Kernel, Told, algorithm, transformation
from qiaso_jax._trees import Mask
from qiaso_jax.amplitudes import Scaling
from qiaso_jax.collapse import Readout, at_multiples
from qiaso_jax.directions import LowRank, checked_kind
from qiaso_jax.evaluation import Objective, asked_arrays, candidate_losses
from qiaso_jax.losses import Losses, measured
from qiaso_jax.spread import check_sigma, spread, unresolved
from qiaso_jax.superposition import Candidates, Superposition, stored
from qiaso_jax.tunnelling import Tunnelling, gaussian_tunnelling


def qiaso(
    num_candidates: int = 30,
    sigma: ScalarOrSchedule | PyTree = 0.02,
    eta: ScalarOrSchedule = 1.0,
    *,
    kl_strength: ArrayLike | None = 1.0,
    loss_scaling: Literal["zscore", "rank"] | Scaling | None = "zscore",
    directions: Literal["gaussian", "rademacher", "low_rank"] | LowRank | None = None,
    antithetic: bool = True,
    collapse: Literal["expectation", "best", "sample"] | Callable = "expectation",
    collapse_every: int = 1,
    tunnelling: Tunnelling | None = None,
    optimizer: optax.GradientTransformation | None = None,
    mask: Mask = None,
    groups: int | None = None,
    batch_argnames: BatchArgnames = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis_name: str | None = None,
    has_aux: bool = False,
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
      num_candidates: K ≥ 1; a single one never moves, as nothing tells it apart.
      sigma: σ > 0, the standard deviation of an offset in units of a weight; a float
        or an optax schedule over updates, ``relative(...)`` for one in units of a
        leaf's own size, or a pytree (prefix) of these and of arrays with one number per
        weight. In half precision σ must be above the resolution of the weights:
        ``info.unresolved`` says of how many it is not.
      eta: inverse temperature η ≥ 0, in units of 1 / scaled loss; a float or a
        schedule. A temperature annealed exponentially is
        ``optax.exponential_decay(1 / T_0, steps, 1 / rate, end_value=...)``.
      kl_strength: λ > 0 (section 2.2.1); ``None`` removes the prior, and p is the Gibbs
        distribution of the last losses alone (Eq 19).
      loss_scaling: s. ``"zscore"``; ``"rank"``, centred ranks in [−1/2, 1/2], for
        rugged losses; ``None`` for the losses themselves, as in the paper; or a
        function ``losses -> scaled losses``, both of shape ``[K]``. Losses that are not
        finite come to it as they are, and what it makes of them is not used.
      directions: how offsets are drawn. ``"gaussian"``, independent normal numbers, as
        in the paper; ``"rademacher"``, independent signs, which cost less and are as
        good where there are many weights; ``"low_rank"``, or ``low_rank(rank)``,
        products of thin matrices, whose candidates are evaluated without being made.
        ``None`` for signs, or normal numbers where fewer than 100 weights move.
      antithetic: draw the offsets in pairs ±δ; one of an odd number is alone.
      collapse: what is read out; or a function ``(key, log_amplitudes) -> w``, both of
        shape ``[K]``; or a ``Readout`` of one, which says whether candidate 0 keeps the
        centre.
      collapse_every: number of updates from one collapse to the next.
      tunnelling: ``gaussian_tunnelling(...)``, or ``None``.
      optimizer: an optax optimizer that is fed with minus the displacement as a
        pseudo-gradient, on collapse; ``optax.sgd(1.0)`` is the same as ``None``.
      mask: which leaves move: a pytree (prefix) of booleans, or a function of the
        parameters that returns one. ``value_fn`` sees the others as they are; they are
        not perturbed, stored or moved.
      groups: G ≥ 1, ``None`` for one. Each group of K candidates has directions and
        probabilities of its own and sees 1/G of the minibatch, so that G·K candidates
        cost as many evaluations of examples as K do; the centre moves by the mean
        displacement of the groups that had a finite loss. ``candidates_value_fn`` and
        ``qiaso_jax.ask`` get all G·K, those of a group together, and cut for
        themselves.
      batch_argnames: with groups, the arguments of ``value_fn`` that carry the
        examples, along the first axes of their arrays or, in a mapping, the axes
        given; ``None`` for all that have arrays.
      mesh: a mesh over one axis of which the candidates, or the groups, are divided:
        each device draws and evaluates its own, and what crosses are the losses and
        the displacement. They are the same numbers as on one device. The parameters
        and the arguments of ``value_fn`` are to be the same on all devices along that
        axis; along others of the mesh they may be divided. ``candidates_value_fn`` gets
        the candidates of a device. Neither tunnelling nor stored candidates
        (``collapse_every > 1``) are divided, and ``collapse="best"`` is not.
      axis_name: which axis; ``None`` for the only one of ``mesh``. Without ``mesh`` it
        is an axis of the ``jax.shard_map`` that ``update`` is called within, or of the
        mesh of ``jax.set_mesh``.
      has_aux: whether ``value_fn`` returns ``(loss, aux)``; what it returns at the
        centre comes back as ``state.aux``, for one more evaluation. As only the first
        step finds out what ``aux`` is, the second compiles anew, and the first must be
        outside of a ``lax.scan``.
      candidate_batch_size: how many candidates are evaluated at a time, on each device.
        ``None`` for all; otherwise, with neither tunnelling nor stored offsets
        (``collapse_every=1``), memory does not grow with K.
      key: seed or PRNG key.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``QIASOState``. Its
      ``update(updates, state, params, value_fn=..., **kwargs)`` needs
      ``value_fn(params, **kwargs) -> scalar``; of the keyword arguments, those that the
      signature of ``value_fn`` names are forwarded and others are ignored. Instead,
      ``candidates_value_fn(candidates, **kwargs)`` may be given: it gets all candidates
      at once, with a leading axis K, and returns their losses, shape ``[K]``. Integer
      and boolean leaves pass through untouched; every other leaf keeps its dtype.
      ``update`` is pure, and can be jitted, scanned and vmapped.

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
    _arguments.static(
        num_candidates=num_candidates,
        collapse_every=collapse_every,
        antithetic=antithetic,
        candidate_batch_size=candidate_batch_size,
        groups=groups,
    )
    groups = 1 if groups is None else _arguments.positive_int("groups", groups)
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    collapse_every = _arguments.positive_int("collapse_every", collapse_every)
    if candidate_batch_size is not None:
        candidate_batch_size = _arguments.positive_int(
            "candidate_batch_size", candidate_batch_size
        )
    check_sigma(sigma)
    _arguments.scalar_or_schedule("eta", eta, at_least=0)
    if kl_strength is not None:
        _arguments.scalar("kl_strength", kl_strength, above=0)
    if tunnelling is not None and not isinstance(tunnelling, Tunnelling):
        raise TypeError(
            "tunnelling must be None or made by qiaso_jax.gaussian_tunnelling, "
            f"got {tunnelling!r}."
        )
    kind = checked_kind(directions)
    if tunnelling is not None and isinstance(kind, LowRank):
        raise ValueError(
            "tunnelling moves every weight of a candidate for itself, which "
            "directions='low_rank' cannot hold: take directions='gaussian' or "
            f"'rademacher', or tunnelling=None; got {tunnelling!r}."
        )
    readout = readouts.readout(collapse)
    axis = devices.axis(mesh, axis_name)
    if axis is not None and (
        collapse_every > 1 or tunnelling is not None or readout.keeps_centre
    ):
        raise ValueError(
            "candidates over devices are drawn anew in every step, in pairs: mesh and "
            "axis_name go with collapse_every=1, tunnelling=None and a collapse for "
            "which no candidate is the centre; got "
            f"collapse_every={collapse_every}, tunnelling={tunnelling!r}, "
            f"collapse={collapse!r}."
        )
    settings = Settings(
        Superposition(num_candidates, antithetic, readout.keeps_centre, kind, groups),
        sigma,
        eta,
        kl_strength,
        amplitudes.scaling(loss_scaling),
        readout,
        collapse_every,
        tunnelling,
        candidate_batch_size,
        _arguments.checked_argnames(batch_argnames),
        None if axis is None else axis.name,
    )
    return transformation(
        algorithm(KERNEL, settings, optimizer, key, mask, has_aux, axis)
    )


class QIASOInfo(NamedTuple):
    """What happened in the last step of ``qiaso``; every field is a scalar array.

    ``optax.tree.get(state, "expected_loss")`` finds a field in any wrapped state.

    Attributes:
      expected_loss: ⟨p_{t+1}, L_t⟩ (Eq 43), in the units of the loss; ``inf`` where no
        candidate had a finite loss, and before the first step.
      best_loss: min_k L_k, likewise.
      expected_decrease: ⟨p_t − p_{t+1}, s(L_t)⟩, the fall of the expected *scaled*
        loss on the same minibatch. Lemma 3.1 (Eq 45) says that it is at least
        ``kl · kl_strength / eta``.
      kl: KL(p_{t+1} ‖ p_t), in nats.
      entropy: −Σ p log p of p_{t+1}, in nats.
      effective_candidates: 1 / Σ p², between 1 and K.
      num_nonfinite: candidates of this step whose loss was NaN or infinite.
      num_skipped: steps so far that did nothing, as no candidate had a finite loss.
      num_flat: collapses so far that moved nothing, as no loss had told the candidates
        apart: losses that differ by less than 4 eps max |L| count as equal.
      unresolved: the share of weights that an offset of σ leaves as they are, since it
        is below the resolution of their dtype.
      collapsed: whether the centre moved.
      num_tunnelled: candidates that tunnelled at the end of this step.
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
    num_tunnelled: jax.Array


class QIASOState(NamedTuple):
    """The state of ``qiaso``; all leaves are arrays. Version 1.

    Attributes:
      step: number of updates so far, int32.
      key: raw uint32 data of the PRNG key of the next step.
      candidates: offsets δ_k from the centre, a pytree like the parameters with a
        leading axis, those of the groups one after the other, or factors of them;
        empty where they are drawn from the key within a step.
      log_amplitudes: log p, shape ``[K]``, normalised: logsumexp(log p) = 0; with
        several groups ``[G, K]``, each row so.
      opt_state: state of the ``optimizer`` that is fed with the displacement.
      info: the report on the last step.
      aux: what ``value_fn`` returned beside the loss, with ``has_aux=True``.
    """

    step: jax.Array
    key: jax.Array
    candidates: PyTree
    log_amplitudes: jax.Array
    opt_state: PyTree
    info: QIASOInfo
    aux: PyTree = ()


class Settings(NamedTuple):
    """The arguments of ``qiaso``, checked."""

    superposition: Superposition
    sigma: ScalarOrSchedule | PyTree
    eta: ScalarOrSchedule
    kl_strength: ArrayLike | None
    scale: Scaling
    readout: Readout
    collapse_every: int
    tunnelling: Tunnelling | None
    batch_size: int | None
    batch_argnames: BatchArgnames = None
    axis_name: str | None = None

    @property
    def stores_candidates(self) -> bool:
        """Whether offsets outlive a step, as they do unless all steps collapse."""
        return self.collapse_every > 1 or self.tunnelling is not None


class Asked(NamedTuple):
    """The candidates of a step, and the keys of what follows."""

    candidates: Candidates
    prepare_key: jax.Array
    collapse_key: jax.Array
    tunnel_key: jax.Array


def init(settings: Settings, key: jax.Array, params: PyTree) -> QIASOState:
    """Prepares a uniform superposition; its offsets only where they are stored."""
    dtype = _trees.amplitude_dtype(params)
    key, prepare_key = jax.random.split(key)
    step = jnp.zeros((), jnp.int32)
    return QIASOState(
        step=step,
        key=jax.random.key_data(key),
        candidates=_stored(settings, prepare_key, params, step),
        log_amplitudes=_uniform(settings, dtype),
        opt_state=(),
        info=QIASOInfo(
            **amplitudes.before_losses(settings.superposition.num_candidates, dtype),
            unresolved=jnp.zeros((), jnp.float32),
            collapsed=jnp.zeros((), bool),
            num_tunnelled=jnp.zeros((), jnp.int32),
        ),
    )


def ask(
    settings: Settings, state: QIASOState, keys: jax.Array, centre: PyTree
) -> Asked:
    """The stored candidates, or those of a key."""
    superposition = settings.superposition
    prepare_key, collapse_key, tunnel_key = keys
    if settings.stores_candidates:
        number = superposition.groups * superposition.num_candidates
        candidates = stored(state.candidates, number, settings.batch_size)
    else:
        drawn_from = (
            prepare_key,
            centre,
            spread(settings.sigma, state.step, centre),
            settings.batch_size,
        )
        if settings.axis_name is None:
            candidates = superposition.candidates(*drawn_from)
        else:
            candidates = devices.divided(superposition, settings.axis_name, *drawn_from)
    return Asked(candidates, prepare_key, collapse_key, tunnel_key)


def evaluate(
    settings: Settings, asked: Asked, centre: PyTree, objective: Objective
) -> jax.Array | Losses:
    """The losses of all candidates, those of a group on its slice of the minibatch."""
    if settings.axis_name in _varying.axes_of(objective.kwargs):
        raise ValueError(
            "the arguments of value_fn vary over the mesh axis "
            f"{settings.axis_name!r}, along which the candidates are divided: each "
            "would be evaluated on other examples. Hand the same to all devices, or "
            "divide the examples along another axis."
        )
    return candidate_losses(
        asked.candidates,
        centre,
        objective,
        settings.superposition.groups,
        settings.batch_argnames,
    )


def tell(
    settings: Settings,
    state: QIASOState,
    centre: PyTree,
    asked: Asked,
    losses: jax.Array | Losses,
) -> Told:
    """Amplifies, collapses and tunnels."""
    prior = state.log_amplitudes
    shape = (settings.superposition.groups, settings.superposition.num_candidates)
    seen = Losses(*(x.reshape(shape) for x in measured(losses, prior.dtype)))
    log_amplitudes, informed, report = jax.vmap(
        lambda prior, seen: _amplify(settings, state.step, prior, seen)
    )(prior.reshape(shape), seen)
    # The first one stands for all: they are as prepared where they are equal.
    flat = jnp.all(log_amplitudes == log_amplitudes[:, :1], axis=1)
    report = amplitudes.mean_over(report, informed)
    collapses, (displacement, finite, offsets, log_p) = _collapse(
        settings, state, centre, asked, log_amplitudes, informed & ~flat
    )
    num_tunnelled = jnp.zeros((), jnp.int32)
    if settings.tunnelling is not None:
        known = jnp.where(collapses, report.expected_loss, seen.value)
        offsets, num_tunnelled = settings.tunnelling.jump(
            asked.tunnel_key, state.step, offsets, log_p, known
        )
    sigma = spread(settings.sigma, state.step, centre)
    lost = _varying.mean_of_all(unresolved(centre, sigma))
    told = Told(
        gradient=optax.tree.scale(-1, displacement),
        collapses=collapses,
        informed=jnp.any(informed),
        # Updates come after all that reads μ, or XLA copies a μ whose memory they get.
        finite=finite & (lost <= 1),
        flat=jnp.all(flat),
        state=state._replace(
            candidates=offsets, log_amplitudes=log_p.reshape(prior.shape)
        ),
    )
    is_finite = jnp.isfinite(seen.value)
    info = state.info._replace(
        **report._asdict(),
        best_loss=jnp.min(seen.value, where=is_finite, initial=jnp.inf),
        num_nonfinite=jnp.sum(~is_finite, dtype=jnp.int32),
        collapsed=told.moves,
        num_tunnelled=num_tunnelled,
        unresolved=lost,
    )
    return told._replace(state=told.state._replace(info=info))


def _amplify(
    settings: Settings, step: jax.Array, before: jax.Array, losses: Losses
) -> tuple[jax.Array, jax.Array, amplitudes.Measured]:
    """Eq 5, 16 and 30, or Eq 19 without a prior; log p, whether it moved, a report."""
    prior = before
    rate = _arguments.at_step(settings.eta, step)
    if settings.kl_strength is None:
        prior = amplitudes.uniform(prior.shape[0], prior.dtype)
    else:
        rate = rate / settings.kl_strength
    values = losses.value
    scaled_losses = amplitudes.scaled(settings.scale, losses)
    _, log_amplitudes, informed = amplitudes.reweighted(
        prior, values, scaled_losses, rate
    )
    log_amplitudes = jnp.where(informed, log_amplitudes, before)
    known = jnp.where(jnp.isfinite(scaled_losses), values, jnp.inf)
    before, _ = amplitudes.restrict(before, known)
    report = amplitudes.measure(before, log_amplitudes, values, scaled_losses, informed)
    return log_amplitudes, informed, report


def _collapse(
    settings: Settings,
    state: QIASOState,
    centre: PyTree,
    asked: Asked,
    log_amplitudes: jax.Array,
    moving: jax.Array,
) -> tuple[jax.Array, tuple[PyTree, jax.Array, PyTree, jax.Array]]:
    """Whether it is time; displacement, whether finite, offsets and log p afterwards.

    The displacement is the mean over groups; one that does not move has 0, and one
    without a finite loss does not count.
    """
    groups = settings.superposition.groups

    def collapse_now():
        if groups == 1:
            weights = settings.readout(asked.collapse_key, log_amplitudes[0])
        else:
            keys = jax.random.split(asked.collapse_key, groups)
            weights = jax.vmap(settings.readout)(keys, log_amplitudes)
            weights = jnp.where(moving[:, None], weights, 0)
            weights = weights.reshape(-1) / jnp.maximum(jnp.sum(moving), 1)
        displacement = asked.candidates.weighted_offset(weights, centre)
        finite = asked.candidates.is_finite(weights, displacement)
        prepared = _stored(settings, asked.prepare_key, centre, state.step + 1)
        uniform = _uniform(settings, log_amplitudes.dtype).reshape(log_amplitudes.shape)
        displacement = _trees.sharded_like(displacement, centre)
        return displacement, finite, prepared, uniform

    def keep():
        zeros = optax.tree.zeros_like(centre)
        return zeros, jnp.asarray(True), state.candidates, log_amplitudes

    return at_multiples(settings.collapse_every, state.step, collapse_now, keep)


def _uniform(settings: Settings, dtype: Any) -> jax.Array:
    groups = settings.superposition.groups
    uniform = amplitudes.uniform(settings.superposition.num_candidates, dtype)
    return uniform if groups == 1 else jnp.tile(uniform, (groups, 1))


def _stored(
    settings: Settings, key: jax.Array, like: PyTree, step: jax.Array
) -> PyTree:
    if not settings.stores_candidates:
        return ()
    return settings.superposition.offsets(key, like, spread(settings.sigma, step, like))


KERNEL = Kernel(
    name="qiaso",
    losses="scalar",
    num_keys=3,
    init=init,
    ask=ask,
    evaluate=evaluate,
    tell=tell,
    candidates=asked_arrays,
)


PAPER: Mapping[str, Any] = MappingProxyType(
    {
        "num_candidates": 30,
        "sigma": 0.02,
        "eta": optax.exponential_decay(1.0, 1, 1 / 0.995, end_value=1e3),
        "kl_strength": 1.0,
        "loss_scaling": None,
        "directions": "gaussian",
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

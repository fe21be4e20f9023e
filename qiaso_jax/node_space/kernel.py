"""node_qiaso: a superposition of every example for itself, in node space.

One step: the clean pass, the choice of examples, the noise at the sites, the losses of
all candidates, their amplitudes, and the expected displacement, brought back to the
parameters.
"""

import warnings
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from qiaso_jax import _arguments, _trees, _varying, amplitudes, devices
from qiaso_jax._arguments import BatchArgnames, PyTree, ScalarOrSchedule
from qiaso_jax._transformation import Kernel, Told, algorithm, transformation
from qiaso_jax._trees import Mask
from qiaso_jax.evaluation import Objective
from qiaso_jax.losses import Losses, measured
from qiaso_jax.node_space.directions import REACH
from qiaso_jax.node_space.examples import Model, bind_model
from qiaso_jax.node_space.pairs import Pairs
from qiaso_jax.node_space.spaces import Space, analyse, checked_space
from qiaso_jax.node_space.superposed import Superposed, number_drawn, superpose
from qiaso_jax.spread import check_sigma

_MINIBATCHES_AT_A_TIME = 4
"""Pairs are evaluated together for this many times the minibatch's examples at most."""


def node_qiaso(
    num_candidates: int = 30,
    sigma: ScalarOrSchedule = 0.02,
    eta: ScalarOrSchedule = 0.0,
    *,
    optimizer: optax.GradientTransformation,
    examples: float | None = None,
    directions: Literal["rademacher", "gaussian"] = "rademacher",
    reactive_only: bool = True,
    candidate_batch_size: int | None = None,
    batch_argnames: BatchArgnames = None,
    space: Space = "auto",
    mask: Mask = None,
    axis_name: str | None = None,
    has_aux: bool = False,
    key: Any = 0,
    noise: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""QIASO with a superposition per example, evaluated in node space.

    Changing the weights of a layer by σ z x_nᵀ/‖x_n‖² changes its output on example n
    by σ z. So K weight candidates *of every example* are evaluated by adding noise to
    the outputs of all layers at once, and the exponential weights (Eq 16, from a
    uniform prior) and the expectation (Eq 2) are those of each example:

    .. math::
      L_{nk} = \ell_n(y + \sigma z_{nk}), \qquad
      p_{nk} \propto e^{-\eta (L_{nk} - \bar L_n)/s}, \qquad
      d_n = \frac{s}{\eta\sigma} \sum_k p_{nk} z_{nk}, \qquad
      \hat g = -\frac1B \sum_n T_n^\top d_n,

    where T_n is the linear map from a parameter to the layer's output and s the root
    mean square over the examples of the standard deviation over the candidates. The
    factor before the sum gives ĝ the scale of a gradient at any η; its limit η → 0
    has the linear weights −(L_nk − L̄_n)/(Kσ) for p_nk, and for small σ its expectation
    is the gradient of the mean loss. No derivative of the loss or of an activation is
    taken: step functions, quantisers and 0–1 losses train too.

    Two selections keep the expectation and lower the variance. Nodes whose output
    cannot change anything (their activation is flat from y − σ to y + σ, or another
    position wins their max-pooling) get no noise. And candidates are evaluated for a
    fraction of the minibatch only, drawn in proportion to the excess of the clean
    loss over the lowest, with 10 % of uniform draws, and weighted by the inverse
    probability.

    **What it estimates.** Where ``jax.grad`` of the mean loss is defined, ĝ is that
    in expectation, for small σ; elsewhere it is the gradient of the loss smoothed by
    the noise. ``stop_gradient`` ends noise: what follows sees the clean value, so the
    straight-through spelling of a quantiser, ``w + stop_gradient(q(w) - w)``, works by
    itself. Rules of ``custom_jvp`` and ``custom_vjp`` are not read: what counts is what
    the function computes.

    **Where the noise is.** The sites are found in the jaxpr of ``value_fn``, by what
    is known of JAX's primitives, so any model will do; ``node_sites`` lists them.
    A parameter is in node space where it enters linearly, in loops too, and where
    nothing brings the noise of one example to the losses of others. All others get
    noise themselves, which all examples share, from the same forward passes: those
    that enter a rounding, a linear solver, a ``while`` loop or a data-dependent
    ``cond``, and those whose nodes meet other examples in a reversed batch, a
    contrastive loss, or batch statistics. Noise at weights is such that the nodes
    behind them move by σ, or by (weights per node)^¼ σ where there are more weights,
    in whatever unit a parameter is written, and at most by its own size.

    With ``space="node"`` a parameter that cannot be in node space is refused. Batch
    statistics are then held at their clean values: ĝ is the gradient with the
    statistics held. Call ``update`` within ``jax.jit``.

    Args:
      num_candidates: K, even: candidates come in antithetic pairs.
      sigma: σ > 0, the spread of the superposition; a number or an optax schedule.
        Step activations want more of it, a fifth of their inputs' spread or so.
      eta: η ≥ 0, the inverse temperature; a number or an optax schedule. 0 stands for
        the limit, the most accurate for small σ; exponential weights stay bounded
        under outliers and large σ.
      optimizer: what the pseudo-gradient ĝ is handed to, for instance
        ``optax.adam(1e-3)``.
      examples: f in (0, 1], the fraction of the minibatch candidates are evaluated for.
        1 for losses that do not tell how far an example is from being right, such as
        the 0–1 loss. ``None`` for a quarter, or all where the loss of an example
        depends on others, as with batch statistics.
      directions: of the noise, "rademacher" (the cheapest, and the lowest variance) or
        "gaussian".
      reactive_only: whether only nodes that can react get noise.
      candidate_batch_size: how many candidates are evaluated at a time, which bounds
        the memory; the largest even divisor of K up to it is used. ``None`` for
        8 / ``examples``, so 6 of 30 for all examples and all 30 for a quarter.
      batch_argnames: the arguments of ``value_fn`` that carry the batch along the
        first axes of their arrays, or a mapping of those to the axis that does, such as
        ``{"x": 1, "y": 0}``; ``None`` for all whose first axes have that length.
        What may be a part of the batch or not is taken for one, with a warning.
      space: where the noise goes. "node": added to the outputs; "example": to the
        weights, of every example for itself; "weights": to the weights, of all
        examples alike; "auto": of those that are right, the one of less variance for
        each site; or a mapping of the paths that ``node_sites`` lists to these.
      mask: which leaves move: a pytree (prefix) of booleans, or a function of the
        parameters that returns one. ``value_fn`` sees the others as they are.
      axis_name: an axis of a mesh along which the examples are divided: that of a
        ``jax.shard_map`` that ``update`` is called within, whose devices have a part of
        the minibatch each, or of the mesh of ``jax.set_mesh``. Each device draws and
        evaluates what is of its examples; with ``examples=1.0`` they are the numbers
        that one device has, otherwise each chooses from its own. Losses and gradients
        are of the whole minibatch, but for what ``value_fn`` makes of several examples,
        such as batch statistics. On a mesh with explicit axes it is found from how the
        minibatch lies there.
      has_aux: whether ``value_fn`` returns ``(losses, aux)``; what it returns at the
        centre comes back as ``state.aux``, for one more evaluation. As only the first
        step finds out what ``aux`` is, the second compiles anew, and the first must be
        outside of a ``lax.scan``.
      key: an int or a PRNG key.
      noise: the former name of ``directions``.

    Returns:
      An ``optax.GradientTransformationExtraArgs`` with a ``NodeState``. Its
      ``update(updates, state, params, *, value_fn, **kwargs)`` takes
      ``value_fn(params, **kwargs) -> [B]``, a loss per example, and forwards the
      keyword arguments that its signature names. The centre is ``params + updates``
      and the result ``updates + displacement``; ``updates=None`` stands for zeros.

    Raises:
      TypeError, ValueError: if an argument is of the wrong type or out of range; in
        ``update`` if ``params`` or ``value_fn`` is missing, if the losses are not one
        array of shape ``[B]``, if the batch cannot be told from the other arguments,
        if ``space`` asks for what is not right, if a parameter is complex, or if there
        is nothing to move.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> def zero_one_loss(params, x, y):
      ...     hidden = jnp.sign(x @ params["in"] + params["bias"])
      ...     return (hidden @ params["out"] * y < 0).astype(jnp.float32)
      >>> x = jax.random.normal(jax.random.key(0), (256, 2))
      >>> y = jnp.sign(x[:, 0] * x[:, 1])
      >>> keys = jax.random.split(jax.random.key(1))
      >>> params = {"in": jax.random.normal(keys[0], (2, 32)),
      ...     "bias": jnp.zeros(32), "out": jax.random.normal(keys[1], (32,))}
      >>> tx = qiaso_jax.node_qiaso(
      ...     sigma=0.3, optimizer=optax.adam(0.1), examples=1.0)
      >>> state = tx.init(params)
      >>> @jax.jit
      ... def step(params, state):
      ...     updates, state = tx.update(
      ...         None, state, params, value_fn=zero_one_loss, x=x, y=y)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(200):
      ...     params, state = step(params, state)
      >>> print(bool(zero_one_loss(params, x, y).mean() < 0.05))
      True

    References:
      Sajjad and AL Sobhi, The quantum-inspired adaptive superposition optimization for
      neural network training, AIMS Mathematics 2026. Perturbing nodes: Widrow and
      Lehr, 30 years of adaptive neural networks, Proceedings of the IEEE 1990.
    """
    _arguments.static(
        num_candidates=num_candidates,
        examples=examples,
        candidate_batch_size=candidate_batch_size,
        reactive_only=reactive_only,
    )
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    if num_candidates % 2:
        raise ValueError(
            "num_candidates must be even, as candidates come in antithetic pairs; "
            f"got {num_candidates}."
        )
    _arguments.scalar_or_schedule("sigma", sigma, above=0)
    if callable(sigma):
        check_sigma(sigma)
    _arguments.scalar_or_schedule("eta", eta, at_least=0)
    _arguments.transformation("optimizer", optimizer)
    if examples is not None:
        _arguments.scalar("examples", examples, above=0, at_most=1)
    if noise is not None:
        warnings.warn(
            f"noise={noise!r} of node_qiaso is called directions={noise!r} now, and "
            "will not be taken under the old name by the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        directions = noise  # type: ignore[assignment]
    _arguments.one_of("directions", directions, REACH)
    if candidate_batch_size is not None:
        candidate_batch_size = _arguments.positive_int(
            "candidate_batch_size", candidate_batch_size
        )
    settings = Settings(
        num_candidates // 2,
        sigma,
        eta,
        examples,
        directions,
        reactive_only,
        candidate_batch_size,
        _arguments.checked_argnames(batch_argnames),
        checked_space(space),
        axis_name,
    )
    axis = devices.axis(None, axis_name)
    return transformation(
        algorithm(KERNEL, settings, optimizer, key, mask, has_aux, axis)
    )


class NodeInfo(NamedTuple):
    """What happened in the last step of ``node_qiaso``; every field is a scalar array.

    ``optax.tree.get(state, "expected_loss")`` finds a field in any wrapped state. Means
    are over the examples for which candidates were evaluated, unless otherwise said.

    Attributes:
      expected_loss: the mean over the minibatch of the clean loss, plus what the
        candidates' expectation (Eq 43) differs from it by in the examples drawn;
        ``inf`` before the first step.
      best_loss: the same of the candidate with the least loss.
      expected_decrease: mean of ⟨p_0 − p_n, s(L_n)⟩, the fall of the expected *scaled*
        loss from the uniform prior p_0. By Lemma 3.1 (Eq 45) at least ``kl / eta``.
      kl: mean of KL(p_n ‖ p_0), in nats.
      entropy: mean of −Σ p_n log p_n, in nats.
      effective_candidates: mean of 1 / Σ p_n², between 1 and K.
      num_nonfinite: losses that were NaN or infinite, of K per example.
      num_skipped: steps so far that did nothing, as no loss was finite.
      num_flat: steps so far that moved nothing, as the candidates of every example had
        equal losses.
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


class NodeState(NamedTuple):
    """The state of ``node_qiaso``; all leaves are arrays. Version 1.

    Every step prepares superpositions of its own: none is kept.

    Attributes:
      step: number of updates so far, int32.
      key: raw uint32 data of the PRNG key of the next step.
      opt_state: state of the ``optimizer`` that the pseudo-gradient is handed to.
      info: the report on the last step.
      aux: what ``value_fn`` returned beside the losses, with ``has_aux=True``.
    """

    step: jax.Array
    key: jax.Array
    opt_state: PyTree
    info: NodeInfo
    aux: PyTree = ()


class Settings(NamedTuple):
    """The arguments of ``node_qiaso``, checked."""

    num_pairs: int
    sigma: ScalarOrSchedule
    eta: ScalarOrSchedule
    examples: float | None
    directions: str
    reactive_only: bool
    batch_size: int | None
    batch_argnames: BatchArgnames
    space: Space
    axis_name: str | None = None


class Asked(NamedTuple):
    """What noise is made of; where there is any, and of what shape, is the model's."""

    select_key: jax.Array
    noise_key: jax.Array
    sigma: jax.Array
    eta: jax.Array


class Evaluated(NamedTuple):
    """The superposition of every example; the losses of its pairs, ``[P, 2, b]``."""

    superposed: Superposed
    pairs: Pairs
    losses: jax.Array


def init(settings: Settings, key: jax.Array, params: PyTree) -> NodeState:
    """The state before the first step."""
    dtype = _trees.amplitude_dtype(params)
    return NodeState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        opt_state=(),
        info=NodeInfo(
            **amplitudes.before_losses(2 * settings.num_pairs, dtype),
        ),
    )


def ask(settings: Settings, state: NodeState, keys: jax.Array, centre: PyTree) -> Asked:
    """The keys and the size of the noise."""
    del centre
    select_key, noise_key = keys
    dtype = state.info.expected_loss.dtype
    return Asked(
        select_key,
        noise_key,
        jnp.asarray(_arguments.at_step(settings.sigma, state.step), dtype),
        jnp.asarray(_arguments.at_step(settings.eta, state.step), dtype),
    )


def evaluate(
    settings: Settings, asked: Asked, centre: PyTree, objective: Objective
) -> Evaluated:
    """Chooses examples, finds their noise, and evaluates all pairs."""
    assert objective.value_fn is not None
    model = bind_model(
        objective.value_fn, centre, objective.kwargs, settings.batch_argnames
    )
    _check_varying(model, settings.axis_name)
    if settings.axis_name is not None:
        # What the parts of a minibatch say is added up below, and not by JAX.
        axes = frozenset([settings.axis_name]) & _varying.axes_there()
        model = model._replace(leaves=_varying.along(model.leaves, axes))
    analysis = analyse(model, settings.space)
    size = number_drawn(model, analysis, settings.examples)
    superposed = superpose(
        model,
        analysis,
        size,
        asked.select_key,
        asked.sigma,
        settings.directions,
        settings.reactive_only,
        settings.axis_name,
    )
    if settings.batch_size is None:
        at_a_time = _MINIBATCHES_AT_A_TIME * model.size // size
    else:
        at_a_time = max(1, settings.batch_size // 2)
    noises = superposed.noises
    pairs = Pairs(
        asked.noise_key, superposed.rows, noises, settings.num_pairs, at_a_time
    )

    def losses_of_pair(sources, pair):
        feeds = [n.feed(s, pair) for n, s in zip(noises, sources, strict=True)]
        signed = jax.vmap(lambda sign: superposed.losses(feeds, pair, sign))
        return signed(jnp.array([1, -1], jnp.int8))

    return Evaluated(superposed, pairs, pairs.map(losses_of_pair))


def places(
    settings: Settings, centre: PyTree, objective: Objective
) -> list[int | None]:
    """The axis of each leaf of the arguments that counts the examples."""
    assert objective.value_fn is not None
    names = settings.batch_argnames
    return bind_model(objective.value_fn, centre, objective.kwargs, names).places


def _check_varying(model: Model, axis_name: str | None) -> None:
    of_leaves = sorted(_varying.axes_of(model.leaves))
    if of_leaves:
        raise ValueError(
            "node_qiaso takes parameters that are the same on all devices of a "
            f"jax.shard_map; got some that vary over the mesh axis {of_leaves[0]!r}. "
            "Leave that axis to jax.jit, where parameters may be divided."
        )
    axes = sorted(_varying.axes_of(model.batch) - {axis_name})
    if axes:
        raise ValueError(
            f"the minibatch varies over the mesh axis {axes[0]!r}, which the "
            "parameters do not vary over: every device would move them elsewhere. "
            f"Give node_qiaso(axis_name={axes[0]!r}), which sums over it."
        )


def tell(
    settings: Settings,
    state: NodeState,
    centre: PyTree,
    asked: Asked,
    evaluated: Evaluated,
) -> Told:
    """Amplifies for every example, and sums what the pairs say about the parameters."""
    axis_name = settings.axis_name
    superposed, pairs, losses = evaluated
    share = superposed.share
    amplified = amplify(losses, asked.eta, share, axis_name)
    weights = pair_weights(amplified, asked.eta, asked.sigma, share)

    def add_pair(totals, sources, pair, weight):
        return [
            n.add(total, source, pair, weight)
            for n, total, source in zip(pairs.noises, totals, sources, strict=True)
        ]

    zeros = [n.zero(weights.dtype) for n in pairs.noises]
    gradients = superposed.gradients(pairs.sum(add_pair, zeros, weights))
    return Told(
        gradient=jax.tree.unflatten(jax.tree.structure(centre), gradients),
        collapses=jnp.asarray(True),
        informed=_any(amplified.informed, axis_name),
        finite=_trees.all_finite(gradients),
        flat=~_any(~amplified.losses.equal, axis_name),
        state=state._replace(info=_info(state, superposed, amplified, axis_name)),
    )


class Amplified(NamedTuple):
    """The amplitudes of every example.

    Attributes:
      losses: of the candidates of every example, shape ``[K, b]``.
      log_prior: uniform over the candidates with a loss, shape ``[K, b]``.
      log_p: log p_n after the step, shape ``[K, b]``.
      scaled_losses: (L − L̄)/s, shape ``[K, b]``.
      unit: s, a scalar.
      informed: whether an example has any candidate with a loss, shape ``[b]``.
    """

    losses: Losses
    log_prior: Float[Array, "K b"]
    log_p: Float[Array, "K b"]
    scaled_losses: Float[Array, "K b"]
    unit: Float[Array, ""]
    informed: Bool[Array, " b"]


def amplify(
    losses: Float[Array, "P 2 b"],
    eta: Float[Array, ""],
    share: Float[Array, " b"],
    axis_name: str | None = None,
) -> Amplified:
    """Exponential weights of every example, from a uniform prior (Eq 16).

    Args:
      losses: L, shape ``[P, 2, b]``: of both candidates of every pair.
      eta: η ≥ 0.
      share: of the examples in a mean over the minibatch, shape ``[b]``.
      axis_name: of the devices that have other examples.

    Returns:
      The amplitudes; K = 2 P. An example that lost all candidates keeps the prior.
    """
    each = measured(losses.reshape(-1, losses.shape[-1]), eta.dtype)
    known = jnp.isfinite(each.excess)
    apart = jnp.where(each.equal[None] & known, 0, each.excess)
    scaled_losses, unit = amplitudes.shared_zscore(apart, share, axis_name)
    log_prior, informed = amplitudes.uniform_over_known(each.value)
    log_p = amplitudes.amplify(log_prior, scaled_losses, eta)
    return Amplified(each, log_prior, log_p, scaled_losses, unit, informed)


def pair_weights(
    amplified: Amplified,
    eta: Float[Array, ""],
    sigma: Float[Array, ""],
    share: Float[Array, " b"],
) -> Float[Array, "P b"]:
    """Weights of the pairs' directions, whose weighted sum is minus the gradient.

    They have the scale of a gradient at any η; where it is 0, they are the limit.

    Args:
      amplified: by ``amplify``.
      eta: η ≥ 0.
      sigma: σ.
      share: of the examples in a mean over the minibatch, shape ``[b]``.

    Returns:
      Shape ``[P, b]``: the weight in the expected displacement, times the share.
    """
    num_candidates, size = amplified.log_p.shape
    p = jnp.exp(amplified.log_p).reshape(-1, 2, size)
    losses = amplified.losses.value.reshape(-1, 2, size)
    positive = eta > 0
    per_unit = amplified.unit / (jnp.where(positive, eta, 1) * sigma)
    exponential = (p[:, 0] - p[:, 1]) * per_unit
    both = jnp.all(jnp.isfinite(losses), axis=1) & ~amplified.losses.equal[None]
    known = jnp.where(both[:, None], losses, 0)
    linear = -(known[:, 0] - known[:, 1]) / (num_candidates * sigma)
    return jnp.where(positive, exponential, linear) * share[None]


def _any(where: jax.Array, axis_name: str | None) -> jax.Array:
    """Whether it holds of any example, on any device."""
    # A float, as what is reduced is one collective where it is of one dtype.
    return _varying.summed(jnp.any(where).astype(jnp.float32), axis_name) > 0


def _info(
    state: NodeState,
    superposed: Superposed,
    amplified: Amplified,
    axis_name: str | None,
) -> NodeInfo:
    """The report; what losses have in common would take the digits of what differs."""
    share, clean = superposed.share, superposed.clean_drawn
    losses = amplified.losses.value
    known = jnp.isfinite(losses) & jnp.isfinite(clean)[None]
    excess = jnp.where(known, losses, 0) - jnp.where(known, clean[None], 0)
    measured = amplitudes.measure(
        amplified.log_prior,
        amplified.log_p,
        excess,
        amplified.scaled_losses,
        amplified.informed,
    )
    expected = jnp.where(amplified.informed, measured.expected_loss, 0)
    of_candidates = jnp.matmul(excess, share, precision="highest")
    means = {
        name: jnp.mean(getattr(measured, name))
        for name in ("expected_decrease", "kl", "entropy", "effective_candidates")
    }
    means = _varying.averaged(means, axis_name)
    lost = jnp.sum(~jnp.isfinite(losses), dtype=jnp.int32)
    # A float too, and exact up to 2²⁴ of a device.
    expected, of_candidates, num_nonfinite = _varying.summed(
        (jnp.sum(share * expected), of_candidates, lost.astype(jnp.float32)), axis_name
    )
    return state.info._replace(
        expected_loss=superposed.clean_loss + expected,
        best_loss=superposed.clean_loss + jnp.min(of_candidates),
        num_nonfinite=num_nonfinite.astype(jnp.int32),
        **means,
    )


KERNEL = Kernel(
    name="node_qiaso",
    losses="[B]",
    num_keys=2,
    init=init,
    ask=ask,
    evaluate=evaluate,
    tell=tell,
    candidates=None,
    places=places,
)

"""node_qiaso: a superposition of every example for itself, in node space.

One step: the clean pass, the choice of examples, the noise at the sites, the losses of
all candidates, their amplitudes, and the expected displacement, brought back to the
parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments, _trees
from qiaso_jax._arguments import PyTree, ScalarOrSchedule
from qiaso_jax.amplitudes import uniform
from qiaso_jax.node_space.examples import BatchArgnames, bind_model, checked_argnames
from qiaso_jax.node_space.noise import REACH
from qiaso_jax.node_space.pairs import Pairs
from qiaso_jax.node_space.spaces import Space, analyse, checked_space
from qiaso_jax.node_space.superposed import number_drawn, superpose
from qiaso_jax.state import QIASOInfo, QIASOState, empty_info

_MINIBATCHES_AT_A_TIME = 4
"""Pairs are evaluated together for this many times the minibatch's examples at most."""


def node_qiaso(
    num_candidates: int = 30,
    sigma: ScalarOrSchedule = 0.02,
    eta: ScalarOrSchedule = 0.0,
    *,
    optimizer: optax.GradientTransformation,
    examples: float | None = None,
    noise: str = "rademacher",
    reactive_only: bool = True,
    candidate_batch_size: int | None = None,
    batch_argnames: BatchArgnames = None,
    space: Space = "auto",
    key: Any = 0,
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
      noise: "rademacher" (the cheapest, and the lowest variance) or "gaussian".
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
      key: an int or a PRNG key.

    Returns:
      An ``optax.GradientTransformationExtraArgs`` with a ``QIASOState``. Its
      ``update(updates, state, params, *, value_fn, **kwargs)`` takes
      ``value_fn(params, **kwargs) -> [B]``, a loss per example, and forwards the
      keyword arguments that its signature names. The centre is ``params + updates``
      and the result ``updates + displacement``; ``updates=None`` stands for zeros.

      In ``state.info``, ``expected_loss`` is the mean over the minibatch of the clean
      loss, plus what the candidates' expectation differs from it by in the examples
      drawn; ``kl``, ``entropy`` and ``effective_candidates`` are means over those;
      ``num_nonfinite`` counts evaluations, of K per example.

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
    num_candidates = _arguments.positive_int("num_candidates", num_candidates)
    if num_candidates % 2:
        raise ValueError(
            "num_candidates must be even, as candidates come in antithetic pairs; "
            f"got {num_candidates}."
        )
    _arguments.scalar_or_schedule("sigma", sigma, above=0)
    _arguments.scalar_or_schedule("eta", eta, at_least=0)
    _arguments.transformation("optimizer", optimizer)
    if examples is not None:
        _arguments.scalar("examples", examples, above=0, at_most=1)
    _arguments.one_of("noise", noise, REACH)
    if candidate_batch_size is not None:
        candidate_batch_size = _arguments.positive_int(
            "candidate_batch_size", candidate_batch_size
        )
    batch_argnames = checked_argnames(batch_argnames)
    space = checked_space(space)
    key_data, key_impl = _arguments.prng_key(key)
    inner = _trees.on_inexact(optimizer)
    num_pairs = num_candidates // 2

    def init(params: PyTree) -> QIASOState:
        params = _trees.arrays(params)
        dtype = _trees.amplitude_dtype(params)
        return QIASOState(
            step=jnp.zeros((), jnp.int32),
            key=key_data,
            candidates=(),
            log_amplitudes=uniform(num_candidates, dtype),
            opt_state=inner.init(params),
            info=empty_info(num_candidates, dtype),
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
                "node_qiaso evaluates the loss itself: give update value_fn=, a "
                "function (params, **kwargs) -> [B]; got none."
            )
        next_key, select_key, noise_key = jax.random.split(
            jax.random.wrap_key_data(state.key, impl=key_impl), 3
        )
        dtype = state.log_amplitudes.dtype
        sigma_now = jnp.asarray(_arguments.at_step(sigma, state.step), dtype)
        eta_now = jnp.asarray(_arguments.at_step(eta, state.step), dtype)
        model = bind_model(value_fn, centre, kwargs, batch_argnames)
        analysis = analyse(model, space)
        size = number_drawn(model, analysis, examples)

        # Choose the examples, evaluate them as they are, and find their noise.
        superposed = superpose(
            model, analysis, size, select_key, sigma_now, noise, reactive_only
        )

        # Evaluate the candidates.
        if candidate_batch_size is None:
            at_a_time = _MINIBATCHES_AT_A_TIME * model.size // size
        else:
            at_a_time = max(1, candidate_batch_size // 2)
        noises = superposed.noises
        pairs = Pairs(noise_key, noises, num_pairs, at_a_time)

        def losses_of_pair(sources, pair):
            feeds = [n.feed(s, pair) for n, s in zip(noises, sources, strict=True)]
            signed = jax.vmap(lambda sign: superposed.losses(feeds, pair, sign))
            return signed(jnp.array([1, -1], jnp.int8)).astype(dtype)

        losses = pairs.map(losses_of_pair)

        # Amplify.
        weights, log_p = pair_weights(losses, eta_now, sigma_now, superposed.share)
        info = _measure(
            losses,
            log_p,
            superposed.clean_loss,
            superposed.clean_drawn,
            superposed.share,
        )
        any_finite = jnp.any(jnp.isfinite(losses))
        info = info._replace(
            num_skipped=state.info.num_skipped + jnp.where(any_finite, 0, 1),
            collapsed=any_finite,
        )

        # Collapse.
        def add_pair(totals, sources, pair, weight):
            return [
                n.add(total, source, pair, weight)
                for n, total, source in zip(noises, totals, sources, strict=True)
            ]

        totals = pairs.sum(add_pair, [n.zero(dtype) for n in noises], weights)
        gradient = jax.tree.unflatten(
            jax.tree.structure(centre), superposed.gradients(totals)
        )
        moved, opt_state = _trees.update_if(
            any_finite, inner, gradient, state.opt_state, centre
        )
        return _trees.added(updates, moved), QIASOState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            key=jax.random.key_data(next_key),
            candidates=(),
            log_amplitudes=state.log_amplitudes,
            opt_state=opt_state,
            info=info,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def pair_weights(
    losses: jax.Array, eta: jax.Array, sigma: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Weights of the pairs' directions, and log-amplitudes of the candidates (Eq 16).

    Args:
      losses: L, shape ``[P, 2, b]``: of both candidates of every pair.
      eta: η ≥ 0.
      sigma: σ.
      share: of the examples in a mean over the minibatch, shape ``[b]``.

    Returns:
      The weight of each direction in the expected displacement of its example, times
      the share, shape ``[P, b]``; and log p, of the shape of the losses.
    """
    num_candidates = losses.shape[0] * losses.shape[1]
    finite = jnp.isfinite(losses)
    both = jnp.all(finite, axis=1)
    count = jnp.sum(finite, axis=(0, 1))
    safe_count = jnp.maximum(count, 1).astype(losses.dtype)
    values = jnp.where(finite, losses, 0)
    mean = jnp.sum(values, axis=(0, 1)) / safe_count
    centred = jnp.where(finite, losses - mean[None, None], 0)
    # Squares of losses near the largest float would overflow.
    peak = jnp.max(jnp.abs(centred))
    peak = jnp.where(peak > 0, peak, 1)
    variance = jnp.sum((centred / peak) ** 2, axis=(0, 1)) / safe_count
    scale = peak * jnp.sqrt(jnp.sum(share * variance) / jnp.sum(share))
    scale = jnp.where(scale > 0, scale, 1)
    # An example that lost all candidates keeps the prior, and teaches nothing.
    excluded = ~finite & (count > 0)[None, None]
    exponents = jnp.where(excluded, -jnp.inf, -eta * centred / scale)
    log_p = jax.nn.log_softmax(exponents, axis=(0, 1))
    p = jnp.exp(log_p)
    positive = eta > 0
    exponential = (p[:, 0] - p[:, 1]) * scale / (jnp.where(positive, eta, 1) * sigma)
    linear = -(values[:, 0] - values[:, 1]) / (num_candidates * sigma)
    linear = jnp.where(both, linear, 0)
    return jnp.where(positive, exponential, linear) * share[None], log_p


def _measure(
    losses: jax.Array,
    log_p: jax.Array,
    clean_loss: jax.Array,
    clean_drawn: jax.Array,
    share: jax.Array,
) -> QIASOInfo:
    """The report, as means over the examples drawn."""
    num_candidates = losses.shape[0] * losses.shape[1]
    finite = jnp.isfinite(losses) & jnp.isfinite(clean_drawn)[None, None]
    p = jnp.exp(log_p)
    excess = jnp.where(finite, losses - clean_drawn[None, None], 0)
    expected = jnp.sum(p * excess, axis=(0, 1))
    entropy = -jnp.sum(jnp.where(p > 0, p * log_p, 0), axis=(0, 1))
    log_k = jnp.log(jnp.asarray(num_candidates, losses.dtype))
    mean_excess = jnp.matmul(excess, share, precision="highest")
    uniform_excess = jnp.mean(excess, axis=(0, 1))
    return empty_info(num_candidates, losses.dtype)._replace(
        expected_loss=clean_loss + jnp.sum(share * expected),
        best_loss=clean_loss + jnp.min(mean_excess),
        expected_decrease=jnp.sum(share * (uniform_excess - expected)),
        kl=log_k - jnp.mean(entropy),
        entropy=jnp.mean(entropy),
        effective_candidates=jnp.mean(1 / jnp.sum(p**2, axis=(0, 1))),
        num_nonfinite=jnp.sum(~jnp.isfinite(losses), dtype=jnp.int32),
    )

"""The optax shell that every algorithm shares: ``update = tell(evaluate(ask))``.

An algorithm is a ``Kernel``: pure functions of its settings, its state and the centre.
The shell owns what all of them do alike: the centre, the key and the count of steps,
the inner optimizer, and steps in which no loss is finite, which change nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments, _trees
from qiaso_jax._arguments import PyTree
from qiaso_jax.evaluation import Objective


class Told(NamedTuple):
    """What an algorithm makes of the losses.

    Attributes:
      gradient: the pseudo-gradient, minus the displacement of the centre.
      moves: whether the centre moves, and with it the inner optimizer.
      informed: whether any loss was finite.
      state: the next state; what the shell fills is as it was.
    """

    gradient: PyTree
    moves: jax.Array
    informed: jax.Array
    state: Any


class Kernel(NamedTuple):
    """An algorithm, as the shell sees it. The first argument is always its settings.

    A state is a NamedTuple with the fields ``step``, ``key``, ``opt_state`` and
    ``info``, and ``info`` has ``num_skipped``: the shell fills these, but for the first
    key.

    Attributes:
      name: of the function that users call.
      losses: what ``value_fn`` returns, in words.
      num_keys: how many keys a step takes.
      init: ``(settings, key, params) -> state``.
      ask: ``(settings, state, keys, centre) -> asked``, directions that are known by
        key and index.
      evaluate: ``(settings, asked, centre, objective) -> evaluated``.
      tell: ``(settings, state, centre, asked, evaluated) -> Told``.
      candidates: ``(asked, centre) -> parameters`` with a leading axis of the
        candidates; ``None`` if candidates are not parameters of the whole model.
    """

    name: str
    losses: str
    num_keys: int
    init: Callable[[Any, jax.Array, PyTree], Any]
    ask: Callable[[Any, Any, jax.Array, PyTree], Any]
    evaluate: Callable[[Any, Any, PyTree, Objective], Any]
    tell: Callable[[Any, Any, PyTree, Any, Any], Told]
    candidates: Callable[[Any, PyTree], PyTree] | None


class Algorithm(NamedTuple):
    """A kernel with its settings, its inner optimizer and its first key."""

    kernel: Kernel
    settings: Any
    inner: optax.GradientTransformationExtraArgs
    key_data: jax.Array
    key_impl: Any

    def init(self, params: PyTree) -> Any:
        """The state before the first step."""
        params = _trees.arrays(params)
        key = jax.random.wrap_key_data(self.key_data, impl=self.key_impl)
        state = self.kernel.init(self.settings, key, params)
        return state._replace(opt_state=self.inner.init(params))

    def ask(self, state: Any, centre: PyTree) -> Any:
        """The directions of a step."""
        return self.kernel.ask(self.settings, state, self._keys(state)[1:], centre)

    def evaluate(self, asked: Any, centre: PyTree, objective: Objective) -> Any:
        """The losses of all candidates."""
        return self.kernel.evaluate(self.settings, asked, centre, objective)

    def tell(self, state: Any, centre: PyTree, asked: Any, evaluated: Any) -> Told:
        """What they teach; of the next state only ``opt_state`` is still as it was."""
        told = self.kernel.tell(self.settings, state, centre, asked, evaluated)
        num_skipped = state.info.num_skipped + jnp.where(told.informed, 0, 1)
        next_state = told.state._replace(
            step=jnp.asarray(optax.safe_increment(state.step)),
            key=jax.random.key_data(self._keys(state)[0]),
            info=told.state.info._replace(num_skipped=num_skipped),
        )
        return told._replace(state=next_state)

    def move(self, told: Told, centre: PyTree) -> tuple[PyTree, Any]:
        """The displacement by the inner optimizer, and the next state."""
        displacement, opt_state = _trees.update_if(
            told.moves, self.inner, told.gradient, told.state.opt_state, centre
        )
        return displacement, told.state._replace(opt_state=opt_state)

    def _keys(self, state: Any) -> jax.Array:
        key = jax.random.wrap_key_data(state.key, impl=self.key_impl)
        return jax.random.split(key, 1 + self.kernel.num_keys)


class NoCandidates(ValueError):
    """An algorithm was asked for candidates that has none."""


class Asked(NamedTuple):
    """In the place of ``info``: the candidates of a step that ended with asking."""

    asked_candidates: PyTree


class Estimated(NamedTuple):
    """In the place of ``info``: what a step came to that ended with an estimate."""

    pseudo_gradient: PyTree
    info: Any


def check_one_algorithm(caller: str, state: Any) -> None:
    """Raises ``ValueError`` unless ``state`` is of exactly one algorithm of ours."""
    found = len(optax.tree.get_all_with_path(state, "num_skipped"))
    if found != 1:
        raise ValueError(
            f"{caller} needs a tx with exactly one of qiaso, factorised_qiaso and "
            f"node_qiaso in it, and its state; this state is of {found} of them."
        )


def algorithm(
    kernel: Kernel,
    settings: Any,
    optimizer: optax.GradientTransformation | None,
    key: Any,
) -> Algorithm:
    """Checks what all algorithms take.

    Args:
      kernel: the algorithm.
      settings: its own, checked.
      optimizer: what the pseudo-gradient is handed to; ``None`` to move by minus it.
      key: seed or PRNG key.
    """
    if optimizer is None:
        optimizer = optax.scale(-1.0)
    _arguments.transformation("optimizer", optimizer)
    return Algorithm(
        kernel, settings, _trees.on_inexact(optimizer), *_arguments.prng_key(key)
    )


def transformation(bound: Algorithm) -> optax.GradientTransformationExtraArgs:
    """``bound`` as optax has it."""
    return optax.GradientTransformationExtraArgs(bound.init, partial(_update, bound))


def _update(
    bound: Algorithm,
    updates: PyTree | None,
    state: Any,
    params: PyTree | None = None,
    *,
    value_fn: Any = None,
    candidates_value_fn: Any = None,
    end_at: Literal["ask", "gradient"] | None = None,
    **kwargs: Any,
) -> tuple[PyTree, Any]:
    """One step.

    ``end_at`` is for ``qiaso_jax.ask`` and ``qiaso_jax.pseudo_gradient``: a step that
    ends with the candidates or with the pseudo-gradient. These leave it in the state,
    which wrappers pass on as it is.
    """
    kernel = bound.kernel
    updates, centre = _trees.updates_and_centre(updates, params)
    if end_at == "ask":
        if kernel.candidates is None:
            raise NoCandidates(
                f"{kernel.name} evaluates noise within the model, and has no "
                "candidates that could be asked for; call update with value_fn=."
            )
        candidates = kernel.candidates(bound.ask(state, centre), centre)
        return updates, state._replace(info=Asked(candidates))
    objective = _objective(kernel, value_fn, candidates_value_fn, kwargs)
    asked = bound.ask(state, centre)
    told = bound.tell(state, centre, asked, bound.evaluate(asked, centre, objective))
    if end_at == "gradient":
        zeros = optax.tree.zeros_like(told.gradient)
        gradient = optax.tree.where(told.moves, told.gradient, zeros)
        info = Estimated(gradient, told.state.info)
        return updates, told.state._replace(info=info)
    displacement, next_state = bound.move(told, centre)
    return _trees.added(updates, displacement), next_state


def pseudo_gradient(
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    params: PyTree,
    *,
    updates: PyTree | None = None,
    **kwargs: Any,
) -> tuple[PyTree, Any]:
    r"""What ``tx`` would hand to its ``optimizer``, for use elsewhere.

    Minus the displacement of the centre, :math:`ĝ = -\sum_k w_k δ_k` (Eq 2); of
    ``node_qiaso`` the estimate of the gradient. To be clipped, accumulated over
    minibatches, averaged over machines, or compared with a gradient.

    Args:
      tx: ``qiaso``, ``factorised_qiaso`` or ``node_qiaso``, bare or as a member of
        ``optax.chain``, ``optax.inject_hyperparams`` and the like. Its ``optimizer``
        takes no step.
      state: its state.
      params: the parameters.
      updates: what ``tx.update`` would get, added to the centre; ``None`` for zeros.
      **kwargs: as for ``tx.update``: ``value_fn`` and its arguments.

    Returns:
      The pseudo-gradient, a pytree like ``params``: zeros where no loss is finite, or
      between two collapses. And the next state, with the state of the ``optimizer`` as
      it was.

    Raises:
      ValueError: if ``tx`` has none of these in it, or several, or within a wrapper
        that branches, as ``optax.apply_if_finite`` and ``optax.MultiSteps`` do.
      TypeError, ValueError: as ``tx.update``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> def loss(params, target):
      ...     return jnp.sum((params - target) ** 2)
      >>> tx = qiaso_jax.qiaso(30, sigma=0.1)
      >>> optimizer = optax.chain(optax.clip_by_global_norm(0.05), optax.adam(0.1))
      >>> params = jnp.zeros(3)
      >>> state, opt_state = tx.init(params), optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state, opt_state):
      ...     gradient, state = qiaso_jax.pseudo_gradient(
      ...         tx, state, params, value_fn=loss, target=jnp.array([1.0, 2.0, 3.0]))
      ...     updates, opt_state = optimizer.update(gradient, opt_state)
      ...     return optax.apply_updates(params, updates), state, opt_state
      >>> for _ in range(100):
      ...     params, state, opt_state = step(params, state, opt_state)
      >>> print(params.round(1))
      [1. 2. 3.]
    """
    check_one_algorithm("pseudo_gradient", state)
    branching = (optax.ApplyIfFiniteState, optax.MultiStepsState)
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, branching)):
        if isinstance(node, branching):
            raise ValueError(
                "pseudo_gradient cannot pass through optax.apply_if_finite or "
                "optax.MultiSteps, which branch; give it what they wrap, or wrap the "
                f"optimizer that gets the estimate. Got a {type(node).__name__}."
            )
    update: Any = tx.update  # which takes None for updates
    _, state = update(updates, state, params, end_at="gradient", **kwargs)

    def is_estimate(node):
        return isinstance(node, Estimated)

    gradient = optax.tree.get(state, "pseudo_gradient")
    state = jax.tree.map(
        lambda node: node.info if is_estimate(node) else node,
        state,
        is_leaf=is_estimate,
    )
    return gradient, state


def _objective(
    kernel: Kernel, value_fn: Any, candidates_value_fn: Any, kwargs: dict[str, Any]
) -> Objective:
    wants = f"value_fn=, a function (params, **kwargs) -> {kernel.losses}"
    if kernel.candidates is None:
        if value_fn is None or candidates_value_fn is not None:
            got = "none" if value_fn is None else "candidates_value_fn= as well"
            raise ValueError(
                f"{kernel.name} evaluates the loss itself: give update {wants}; "
                f"got {got}."
            )
    elif (value_fn is None) == (candidates_value_fn is None):
        raise ValueError(
            f"{kernel.name} evaluates the loss itself: give update one of {wants}, and "
            "candidates_value_fn=; got " + ("neither." if value_fn is None else "both.")
        )
    return Objective(value_fn, candidates_value_fn, kwargs)

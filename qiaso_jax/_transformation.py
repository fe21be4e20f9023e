"""The optax shell that every algorithm shares: ``update = tell(evaluate(ask))``.

An algorithm is a ``Kernel``: pure functions of its settings, its state and the centre.
The shell owns what all of them do alike: the centre, the key and the count of steps,
the inner optimizer, and steps in which no loss is finite, which change nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qiaso_jax import _arguments, _trees
from qiaso_jax._arguments import PyTree
from qiaso_jax.devices import Axis, are_divided, axis_along
from qiaso_jax.evaluation import Objective, objective_of_all, objective_of_one


class Told(NamedTuple):
    """What an algorithm makes of the losses.

    Attributes:
      gradient: the pseudo-gradient, minus the displacement of the centre.
      collapses: whether it is time for the centre to move.
      informed: whether any loss was finite.
      finite: whether the gradient is.
      flat: whether no loss has told any candidate from another since they were
        prepared, so that the displacement is noise.
      state: the next state; what the shell fills is as it was.
    """

    gradient: PyTree
    collapses: jax.Array
    informed: jax.Array
    finite: jax.Array
    flat: jax.Array
    state: Any

    @property
    def usable(self) -> jax.Array:
        """Whether any loss was finite, and so is what has been made of them."""
        return self.informed & self.finite

    @property
    def moves(self) -> jax.Array:
        """Whether the centre moves, and with it the inner optimizer."""
        return self.collapses & self.usable & ~self.flat


class Kernel(NamedTuple):
    """An algorithm, as the shell sees it. The first argument is always its settings.

    A kernel sees the leaves that move, and ``None`` in the place of all others. A state
    is a NamedTuple with the fields ``step``, ``key``, ``opt_state``, ``aux`` and
    ``info``, and ``info`` has ``num_skipped`` and ``num_flat``: the shell fills these,
    but for the first key.

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
      places: ``(settings, centre, objective) -> axes``: which axis of each leaf of the
        arguments of ``value_fn`` counts the examples, for an algorithm that divides
        these over devices; ``None`` for one that divides its candidates.
    """

    name: str
    losses: str
    num_keys: int
    init: Callable[[Any, jax.Array, PyTree], Any]
    ask: Callable[[Any, Any, jax.Array, PyTree], Any]
    evaluate: Callable[[Any, Any, PyTree, Objective], Any]
    tell: Callable[[Any, Any, PyTree, Any, Any], Told]
    candidates: Callable[[Any, PyTree], PyTree] | None
    places: Callable[[Any, PyTree, Objective], list[int | None]] | None = None


class Algorithm(NamedTuple):
    """A kernel with its settings, and what all algorithms take."""

    kernel: Kernel
    settings: Any
    inner: optax.GradientTransformationExtraArgs
    key_data: jax.Array
    key_impl: Any
    mask: _trees.Mask = None
    has_aux: bool = False
    axis: Axis | None = None

    def init(self, params: PyTree) -> Any:
        """The state before the first step."""
        params = _trees.arrays(params)
        moves = _trees.moves(params, self.mask)
        if jax.tree.leaves(params):  # optax asks with placeholders that have none
            _trees.check_any(params, moves)
        centre = _trees.moving(params, moves)
        key = jax.random.wrap_key_data(self.key_data, impl=self.key_impl)
        state = self.kernel.init(self.settings, key, centre)
        state = state._replace(opt_state=self.inner.init(_trees.widened(centre)))
        return _trees.copied(state)

    def ask(self, state: Any, centre: PyTree) -> Any:
        """The directions of a step."""
        return self.kernel.ask(self.settings, state, self._keys(state)[1:], centre)

    def evaluate(self, asked: Any, centre: PyTree, objective: Objective) -> Any:
        """The losses of all candidates."""
        return self.kernel.evaluate(self.settings, asked, centre, objective)

    def tell(self, state: Any, centre: PyTree, asked: Any, evaluated: Any) -> Told:
        """What they teach; of the next state only ``opt_state`` is still as it was."""
        told = self.kernel.tell(self.settings, state, centre, asked, evaluated)
        flat = told.collapses & told.usable & told.flat
        info = told.state.info._replace(
            num_skipped=_counted(state.info.num_skipped, ~told.usable),
            num_flat=_counted(state.info.num_flat, flat),
        )
        next_state = told.state._replace(
            step=jnp.asarray(optax.safe_increment(state.step)),
            key=jax.random.key_data(self._keys(state)[0]),
            info=info,
        )
        return told._replace(state=next_state)

    def move(self, told: Told, centre: PyTree, extra: Any = None) -> tuple[PyTree, Any]:
        """The displacement by the inner optimizer, and the next state.

        Args:
          told: by ``tell``.
          centre: the leaves that move.
          extra: arguments of ``update``, for the optimizer; the expected loss is its
            ``value`` if there is none among them.
        """
        state = told.state
        extra = {"value": state.info.expected_loss, **(extra or {})}

        def moved():
            return self.inner.update(
                _trees.widened(told.gradient),
                state.opt_state,
                _trees.widened(centre),
                **extra,
            )

        updates, opt_state = _with_what_it_needs(self.kernel.name, moved)
        updates = jax.tree.map(lambda u, p: u.astype(p.dtype), updates, centre)
        displacement, opt_state = optax.tree.where(
            told.moves,
            (updates, opt_state),
            (optax.tree.zeros_like(updates), state.opt_state),
        )
        return displacement, state._replace(opt_state=opt_state)

    def over_examples(self, kwargs: PyTree, places: list[int | None]) -> "Algorithm":
        """This, over the explicit axis of a mesh that the examples lie along."""
        if self.axis is not None:
            return self
        found = axis_along(jax.tree.leaves(kwargs), places)
        if found is None:
            return self
        settings = self.settings._replace(axis_name=found.name)
        return self._replace(axis=found, settings=settings)

    def _keys(self, state: Any) -> jax.Array:
        key = jax.random.wrap_key_data(state.key, impl=self.key_impl)
        return jax.random.split(key, 1 + self.kernel.num_keys)


def _counted(count: jax.Array, happened: jax.Array) -> jax.Array:
    return jnp.where(happened, jnp.asarray(optax.safe_increment(count)), count)


def _with_what_it_needs(name: str, update: Callable[[], Any]) -> Any:
    try:
        return update()
    except TypeError as error:
        if "required keyword-only argument" not in str(error):
            raise
        raise TypeError(
            f"optimizer needs arguments that update was not given; {name} hands it the "
            "pseudo-gradient, value= and the other keyword arguments of update, but "
            "not value_fn, so that no line search can be one. The error was: "
            f"{error}"
        ) from error


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
    mask: _trees.Mask = None,
    has_aux: bool = False,
    axis: Axis | None = None,
) -> Algorithm:
    """Checks what all algorithms take.

    Args:
      kernel: the algorithm.
      settings: its own, checked.
      optimizer: what the pseudo-gradient is handed to; ``None`` to move by minus it.
      key: seed or PRNG key.
      mask: which leaves move.
      has_aux: whether ``value_fn`` returns ``(loss, aux)``.
      axis: of a mesh along which the work is divided, or ``None``.
    """
    if optimizer is None:
        optimizer = optax.scale(-1.0)
    _arguments.transformation("optimizer", optimizer)
    _arguments.one_of("has_aux", has_aux, (False, True))
    inner = optax.with_extra_args_support(optimizer)
    key_data, key_impl = _arguments.prng_key(key)
    return Algorithm(kernel, settings, inner, key_data, key_impl, mask, has_aux, axis)


def transformation(bound: Algorithm) -> optax.GradientTransformationExtraArgs:
    """``bound`` as optax has it."""

    def update(*args: Any, **kwargs: Any) -> tuple[PyTree, Any]:
        return _update(bound, **_by_name(args, kwargs))

    return optax.GradientTransformationExtraArgs(bound.init, update)


def _by_name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """``updates``, ``state`` and ``params`` by name, as ``value_fn`` may have them."""
    clash = [name for name in _arguments.RESERVED[: len(args)] if name in kwargs]
    if clash:
        raise TypeError(
            f"update has an argument {clash[0]!r} of its own, and got two of that "
            "name; to hand one to value_fn, give it in "
            f"value_kwargs={{{clash[0]!r}: ...}}, or bind it to value_fn."
        )
    named = dict(zip(_arguments.RESERVED, args, strict=False))
    if len(args) > len(named) or not {"updates", "state"} <= {*named, *kwargs}:
        raise TypeError(
            "call update(updates, state, params, value_fn=...), all others by keyword; "
            f"got {len(args)} positional arguments and {', '.join(kwargs) or 'no'} "
            "keywords."
        )
    return {**named, **kwargs}


def _update(
    bound: Algorithm,
    /,
    *,
    updates: PyTree | None,
    state: Any,
    params: PyTree | None = None,
    value_fn: Any = None,
    candidates_value_fn: Any = None,
    value_kwargs: Any = None,
    end_at: Literal["ask", "tell", "gradient"] | None = None,
    **kwargs: Any,
) -> tuple[PyTree, Any]:
    """One step.

    ``end_at`` is for ``qiaso_jax.ask`` and ``qiaso_jax.pseudo_gradient``: a step that
    ends with the candidates or with the pseudo-gradient. These leave it in the state,
    which wrappers pass on as it is. With ``"tell"`` it is a whole one, whose losses are
    known.
    """
    kernel = bound.kernel
    if params is None:
        raise ValueError(
            "the optimizer needs the parameters: call update(updates, state, params, "
            "value_fn=...); got params=None."
        )
    params = _trees.arrays(params)
    moves = _trees.moves(params, bound.mask)
    _trees.check_any(params, moves)
    _check_state(bound, state, params)
    updates, at = _trees.updates_and_centre(updates, params)
    centre = _trees.moving(at, moves)
    if end_at in ("ask", "tell") and bound.axis is not None:
        raise NoCandidates(
            "ask and tell are of all candidates, which this tx divides over the "
            f"devices along {bound.axis.name!r}; make one without mesh= and axis_name=."
        )
    if end_at == "ask":
        if kernel.candidates is None:
            raise NoCandidates(
                f"{kernel.name} evaluates noise within the model, and has no "
                "candidates that could be asked for; call update with value_fn=."
            )
        candidates = kernel.candidates(bound.ask(state, centre), centre)
        candidates = _trees.whole_candidates(at, candidates)
        return updates, state._replace(info=Asked(candidates))
    accepted = _accepted(bound, value_fn, candidates_value_fn, kwargs, value_kwargs)

    def objective_at(params, kwargs):
        if value_fn is None:
            return objective_of_all(candidates_value_fn, kwargs, params)
        return objective_of_one(value_fn, kwargs, params, bound.has_aux)

    def step(state, params, kwargs):
        centre = _trees.moving(params, moves)
        asked = bound.ask(state, centre)
        evaluated = bound.evaluate(asked, centre, objective_at(params, kwargs))
        return bound.tell(state, centre, asked, evaluated)

    objective = objective_at(at, accepted)
    places = None
    if kernel.places is not None and are_divided(bound.axis, accepted):
        places = kernel.places(bound.settings, centre, objective)
        bound = bound.over_examples(accepted, places)
    if bound.axis is None:
        told = step(state, at, accepted)
    else:
        told = bound.axis.run(step, state, at, accepted, places)
    if objective.aux_fn is not None:
        aux = objective.aux_fn(centre, **objective.kwargs)
        told = told._replace(state=told.state._replace(aux=aux))
    if end_at == "gradient":
        zeros = optax.tree.zeros_like(told.gradient)
        gradient = optax.tree.where(told.moves, told.gradient, zeros)
        gradient = _trees.whole(_trees.updates_and_centre(None, params)[0], gradient)
        info = Estimated(gradient, told.state.info)
        return updates, told.state._replace(info=info)
    displacement, next_state = bound.move(told, centre, kwargs)
    return _trees.added(updates, displacement), next_state


def _check_state(bound: Algorithm, state: Any, params: PyTree) -> None:
    """Raises ``ValueError`` unless ``state`` is one of ``bound`` for ``params``."""
    expected = jax.eval_shape(lambda: bound.init(params))
    origin = (
        "state must come from init of the same optimizer, with the same arguments, for "
        "the same params, and of this version of qiaso_jax;"
    )
    if type(state) is not type(expected) or type(state.info) is not type(expected.info):
        kind = type(state).__name__
        if type(state) is type(expected):
            kind = f"{kind} with the info of a {type(state.info).__name__}"
        raise ValueError(
            f"{origin} {bound.kernel.name} takes a {type(expected).__name__}, got a "
            f"{kind}."
        )
    found, wanted = _kinds(state), _kinds(expected)
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{origin} {name} must be {wanted.get(name, 'no array')}, got "
                f"{found.get(name, 'no array')}."
            )


def _kinds(state: Any) -> dict[str, str]:
    """Dtype and shape of all leaves by name; of the inner optimizer, the shape."""
    compared = state._replace(info=(), aux=())
    kinds = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(compared)[0]:
        name = _trees.name_of(path, "state")
        is_inner = name.startswith("state.opt_state")
        dtype = "array" if is_inner else getattr(leaf, "dtype", type(leaf).__name__)
        kinds[name] = f"{dtype}{list(np.shape(leaf))}"
    return kinds


def _accepted(
    bound: Algorithm,
    value_fn: Any,
    candidates_value_fn: Any,
    kwargs: dict[str, Any],
    value_kwargs: Any,
) -> dict[str, Any]:
    """The arguments of what is evaluated, or our error if there is nothing."""
    kernel = bound.kernel
    returned = f"({kernel.losses}, aux)" if bound.has_aux else kernel.losses
    wants = f"value_fn=, a function (params, **kwargs) -> {returned}"
    both = value_fn is not None and candidates_value_fn is not None
    if kernel.candidates is None or bound.has_aux:
        got = "none" if value_fn is None else "candidates_value_fn= as well"
        wrong = value_fn is None or both
    else:
        got = "both" if both else "neither"
        wants = f"one of {wants}, and candidates_value_fn="
        wrong = (value_fn is None) == (candidates_value_fn is None)
    if wrong:
        raise ValueError(
            f"{kernel.name} evaluates the loss itself: give update {wants}; got {got}. "
            "If it was given, what calls update did not hand it on, as flax's own "
            "TrainState does not; qiaso_jax.flax.TrainState does."
        )
    name = "value_fn" if value_fn is not None else "candidates_value_fn"
    fun: Any = value_fn if value_fn is not None else candidates_value_fn
    _arguments.function(name, fun, f"(params, **kwargs) -> {returned}")
    if value_kwargs is not None and not isinstance(value_kwargs, Mapping):
        raise TypeError(
            f"value_kwargs must be a dict of arguments of {name}, got {value_kwargs!r}."
        )
    own = dict(value_kwargs or {})
    accepted = _arguments.accepted_arguments(name, fun, {**kwargs, **own})
    if own.keys() - accepted.keys():
        raise TypeError(
            f"value_kwargs names {sorted(own.keys() - accepted.keys())}, which {name} "
            "does not take."
        )
    return accepted

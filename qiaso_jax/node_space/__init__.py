"""Node space: a superposition of every example for itself, in any JAX function.

What ``node_qiaso`` estimates. Let ℓ_n(θ) be the loss of example n as ``value_fn``
computes it. Where the gradient of their mean is defined, the expectation of the
pseudo-gradient is ``jax.grad`` of it, for small σ; elsewhere it is the gradient of the
mean loss smoothed by the noise. So:

- ``stop_gradient`` ends noise. What follows sees the clean value, and a use that ends
  only there is no use. The factors of a matrix that linear solvers keep are those of
  the noisy matrix.
- A node site is valid only if every path from it to the losses keeps example n in
  example n, by the rules of the primitives (``qiaso_jax.program.axes``). Else its
  parameters are in weight space, or are refused if node space is asked for.
- Where examples meet in batch statistics only, node space may be asked for and means
  the gradient with the statistics held at their clean values.
- Noise at weights moves the nodes behind them as noise at nodes does, so that no site
  drowns another and no unit matters (``scaling``).

The step is ``kernel``; what carries the batch, ``examples``; which noise goes where,
``spaces``, listed by ``listing``; one step's clean values and noise, ``superposed``.
"""

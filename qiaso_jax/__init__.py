"""QIASO, a gradient-free optimizer for JAX in the style of optax."""

"""How near the estimate of node space is to the gradient."""

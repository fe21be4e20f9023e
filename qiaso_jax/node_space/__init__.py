"""Node space: a superposition of every example for itself."""

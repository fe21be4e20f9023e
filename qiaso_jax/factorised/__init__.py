"""A superposition of every weight, or of every leaf, for itself."""

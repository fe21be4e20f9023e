"""A superposition of every block for itself, beside one of whole vectors."""

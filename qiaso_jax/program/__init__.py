"""A JAX function as a program: which of its variables noise can be added to, and how."""

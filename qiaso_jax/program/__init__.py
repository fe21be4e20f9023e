"""A JAX function as a program, and what can be known of it before it runs.

``flatten`` makes it of ``equations``, ``compat`` has all that depends on the version
of JAX, ``primitives`` what is known of each. ``axes`` follows the examples, ``sites``
finds where parameters enter linearly, ``chains`` how they get there. ``passes``
evaluates it with and without noise, ``rows`` for a part of a batch, and ``reactive``
sees which nodes can change anything.
"""

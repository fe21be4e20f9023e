"""Search methods on the 30-D Rastrigin function."""

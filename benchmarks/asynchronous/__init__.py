"""Searches whose workers are many processes, some slow, and some that die."""

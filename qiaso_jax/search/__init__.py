"""Black-box search: all in one call, or a step in two halves."""

"""The paper's tables, and two of our own."""

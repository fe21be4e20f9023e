"""The paper's tables, figures and theorems, measured again: one module each."""

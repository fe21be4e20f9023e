import sys
from pathlib import Path

# The registry of functions is shared with the tests of node space.
sys.path.insert(0, str(Path(__file__).parents[1] / "node_space"))

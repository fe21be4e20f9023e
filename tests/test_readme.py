import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_learns_and_is_short():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    exec(code.replace("print(", "report = ("), names)
    expected_loss, effective_candidates = names["report"]
    assert expected_loss < 0.1
    assert 1 < effective_candidates < 100

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.search.result import MinimizeResult, MinimizeStatus

BLANK = MinimizeResult(*[None] * len(MinimizeResult._fields))


@pytest.mark.parametrize("status", MinimizeStatus)
def test_status_says_success_and_message(status):
    result = BLANK._replace(status=jnp.asarray(int(status), jnp.int32))
    assert result.success == (status.name in {"CONVERGED", "TARGET_REACHED"})
    assert result.message == status.message
    assert result.message.endswith(".")


def test_of_many_searches_each_has_its_own():
    result = BLANK._replace(status=jnp.array([[1, 0], [-1, 2]]))
    np.testing.assert_array_equal(result.success, [[True, False], [False, True]])
    assert result.message.shape == (2, 2)
    assert result.message[1, 0] == MinimizeStatus.FLAT.message
    np.testing.assert_array_equal(jax.jit(lambda r: r.success)(result), result.success)

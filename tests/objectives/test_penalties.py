import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib import errors
from lib.objectives import penalties

PARAMS = {
    "conv1": {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([10.0])},
    "norm": {"scale": np.array([100.0])},
    "ip2": {"kernel": np.array([[3.0], [0.0]]), "bias": np.array([-20.0])},
    "kernels": {"embedding": np.array([1000.0])},
}


def _value(term, params=PARAMS):
    return term(None, None, jax.tree.map(jnp.asarray, params), None)


@pytest.mark.parametrize(
    ("pattern", "l1", "l2"),
    [
        (penalties.KERNELS, 1 + 2 + 3, (1 + 4 + 9) / 2),
        ("conv1/kernel", 3, 2.5),
        ("bias$", 30, 250),
        ("^conv1/", 13, 52.5),
        (("^conv1/kernel", "ip2/bias"), 23, 202.5),
        (["^conv1/kernel", "kernel$"], 6, 7),
    ],
)
def test_sums_over_the_leaves_that_rules_pick(pattern, l1, l2):
    np.testing.assert_allclose(_value(penalties.l1(pattern=pattern)), l1)
    np.testing.assert_allclose(_value(penalties.l2(pattern=pattern)), l2)
    mixed = penalties.elastic_net(l1_ratio=0.25, pattern=pattern)
    np.testing.assert_allclose(_value(mixed), 0.25 * l1 + 0.75 * l2)


def test_kernels_are_the_default():
    assert _value(penalties.l1()) == 6
    assert _value(penalties.l2()) == 7
    assert _value(penalties.elastic_net(l1_ratio=1.0)) == 6


@hypothesis.given(
    kernel=hnp.arrays(
        np.float32,
        (3, 2),
        # XLA flushes subnormal numbers to 0.
        elements=st.floats(-10, 10, width=32, allow_subnormal=False),
    ),
    ratio=st.floats(0, 1),
)
def test_elastic_net_and_its_gradient(kernel, ratio):
    term = penalties.elastic_net(l1_ratio=ratio)
    params = {"a": {"kernel": jnp.asarray(kernel), "bias": jnp.ones(2)}}
    value, grads = jax.value_and_grad(lambda p: term(None, None, p, None))(params)
    w = kernel.astype(np.float64)
    want = ratio * np.abs(w).sum() + (1 - ratio) * (w**2).sum() / 2
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
    # At 0 the slope of |w| is taken as 0: a weight that got there stays.
    slope = ratio * np.sign(w) + (1 - ratio) * w
    np.testing.assert_allclose(grads["a"]["kernel"], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(grads["a"]["bias"], 0)


def test_ratio_may_be_traced():
    got = jax.vmap(lambda r: _value(penalties.elastic_net(l1_ratio=r)))(
        jnp.array([0.0, 0.5, 1.0])
    )
    np.testing.assert_allclose(got, [7, 6.5, 6])


@pytest.mark.parametrize(
    "make",
    [
        penalties.l1,
        penalties.l2,
        lambda pattern: penalties.elastic_net(l1_ratio=0.5, pattern=pattern),
    ],
)
def test_a_rule_that_picks_nothing_is_an_error(make):
    with pytest.raises(errors.UserError, match="'convl/kernel' matches nothing"):
        _value(make(pattern="convl/kernel"))
    with pytest.raises(errors.UserError, match="only matches what earlier rules took"):
        _value(make(pattern=("kernel$", "conv1/kernel")))
    with pytest.raises(errors.UserError, match="is no regular expression"):
        make(pattern="(")
    for wrong in (3, (), (1,), None):
        with pytest.raises(errors.UserError, match="penalty pattern: expected"):
            make(pattern=wrong)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, "1"])
def test_ratio_out_of_range_is_named(ratio):
    with pytest.raises(errors.UserError, match="elastic_net.l1_ratio: expected"):
        penalties.elastic_net(l1_ratio=ratio)

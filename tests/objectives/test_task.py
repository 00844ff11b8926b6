import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib import errors
from lib.objectives import task


def _value(smoothing, logits, labels, weight):
    term = task.cross_entropy(label_smoothing=smoothing)
    batch = {"label": jnp.asarray(labels), "weight": jnp.asarray(weight)}
    return term((jnp.asarray(logits), {}), batch, {}, None)


def _oracle(smoothing, logits, labels, weight):
    """Sums over examples and classes in float64, straight from the paper."""
    total = 0.0
    for row, label, w in zip(logits.astype(np.float64), labels, weight, strict=True):
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        for k, value in enumerate(log_p):
            q = (1 - smoothing) * (k == label) + smoothing / len(row)
            total -= w * q * value
    return total / weight.sum()


def test_equals_scikit_learns_log_loss():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 5)).astype(np.float32)
    labels = rng.integers(5, size=20)
    weight = rng.uniform(size=20).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    want = metrics.log_loss(labels, p, sample_weight=weight, labels=range(5))
    np.testing.assert_allclose(_value(0.0, logits, labels, weight), want, rtol=1e-5)


@hypothesis.given(
    logits=hnp.arrays(np.float32, (4, 3), elements=st.floats(-30, 30, width=32)),
    labels=hnp.arrays(np.int32, 4, elements=st.integers(0, 2)),
    weight=hnp.arrays(np.float32, 4, elements=st.sampled_from([0.0, 0.5, 1.0])),
    smoothing=st.floats(0, 0.99),
)
def test_equals_the_formula(logits, labels, weight, smoothing):
    hypothesis.assume(weight.sum() > 0)
    want = _oracle(smoothing, logits, labels, weight)
    got = _value(smoothing, logits, labels, weight)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("smoothing", "want"),
    [
        # Logits log(1/2), log(1/4), log(1/4) and label 0: in bits, 1, 2 and 2.
        (0.0, 1.0),
        (0.3, 0.8 * 1 + 0.1 * 2 + 0.1 * 2),
        (0.6, 0.6 * 1 + 0.2 * 2 + 0.2 * 2),
        (0.9, 0.4 * 1 + 0.3 * 2 + 0.3 * 2),
    ],
)
def test_label_smoothing_table(smoothing, want):
    logits = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    got = _value(smoothing, logits, [0], np.ones(1, np.float32))
    np.testing.assert_allclose(got / np.log(2), want, rtol=1e-6)


def test_gradient_is_softmax_minus_smoothed_labels():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1])
    weight = np.array([1, 1, 1, 0], np.float32)
    got = jax.grad(lambda x: _value(0.1, x, labels, weight))(jnp.asarray(logits))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = 0.9 * np.eye(3)[labels] + 0.1 / 3
    np.testing.assert_allclose(got, (p - q) * weight[:, None] / 3, atol=1e-6)


def test_masked_examples_do_not_count():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 4)).astype(np.float32)
    padding = np.full((2, 4), np.nan, np.float32)
    want = _value(0.1, logits, [0, 1, 2], np.ones(3, np.float32))
    got = _value(
        0.1,
        np.concatenate([logits, padding]),
        [0, 1, 2, 3, 3],
        np.array([1, 1, 1, 0, 0], np.float32),
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_batch_of_padding_is_zero():
    assert _value(0.1, np.ones((2, 3)), [0, 0], np.zeros(2)) == 0


def test_a_label_without_a_class_is_not_silent():
    assert np.isnan(_value(0.0, np.ones((1, 3)), [3], np.ones(1)))


def test_smoothing_may_be_traced():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 4)).astype(np.float32)
    labels, weight = np.array([0, 1, 2]), np.ones(3, np.float32)
    sweep = jnp.array([0.0, 0.1, 0.5])
    got = jax.vmap(lambda e: _value(e, logits, labels, weight))(sweep)
    want = [_oracle(e, logits, labels, weight) for e in (0.0, 0.1, 0.5)]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), "0.1", True, None])
def test_smoothing_out_of_range_is_named(value):
    message = r"cross_entropy.label_smoothing: expected a number in \[0, 1\), got"
    with pytest.raises(errors.UserError, match=message):
        task.cross_entropy(label_smoothing=value)


def test_squared_hinge_is_the_sum_of_each_class_against_the_rest():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20, 5)).astype(np.float32)
    labels = rng.integers(5, size=20)
    weight = rng.uniform(size=20).astype(np.float32)
    batch = {"label": jnp.asarray(labels), "weight": jnp.asarray(weight)}
    got = task.squared_hinge()((jnp.asarray(logits), {}), batch, {}, None)
    total = 0.0
    for row, label, w in zip(logits, labels, weight, strict=True):
        for k, value in enumerate(row):
            short = 1 - value if k == label else 1 + value
            total += w * max(0.0, short) ** 2
    np.testing.assert_allclose(got, total / weight.sum(), rtol=1e-5)


def test_squared_hinge_literal():
    # Beyond the margin on the right side: nothing. 0 for the label: 1; 0.5 for
    # another class: 1.5 squared.
    logits = jnp.float32([[1.0, -1.0, -7.0], [0.5, 0.0, -1.0]])
    batch = {"label": jnp.int32([0, 1]), "weight": jnp.ones(2)}
    got = task.squared_hinge()((logits, {}), batch, {}, None)
    assert float(got) == (0 + 1 + 2.25) / 2


TERMS = [
    lambda: task.cross_entropy(label_smoothing=0.0),
    lambda: task.cross_entropy(label_smoothing=0.3),
    task.squared_hinge,
]


@pytest.mark.parametrize("make", TERMS, ids=["plain", "smoothed", "hinge"])
def test_a_mixed_label_is_as_much_of_each(make):
    """`loss(target) == sum_k target_k loss(label k)`; and without one, the label."""
    rng = np.random.default_rng(4)
    logits = jnp.asarray(rng.normal(size=(6, 4)).astype(np.float32))
    weight = jnp.asarray(rng.uniform(size=6).astype(np.float32))
    target = rng.dirichlet(np.ones(4), 6).astype(np.float32)
    term = make()

    def loss(**given):
        return float(term((logits, {}), {**given, "weight": weight}, {}, None))

    def of_one(i, k):
        alone = {"label": jnp.int32([k]), "weight": jnp.ones(1)}
        return term((logits[i : i + 1], {}), alone, {}, None)

    total = sum(
        weight[i] * target[i, k] * of_one(i, k) for i in range(6) for k in range(4)
    )
    got = loss(label=jnp.zeros(6, int), target=jnp.asarray(target))
    np.testing.assert_allclose(got, total / weight.sum(), rtol=1e-5)
    label = rng.integers(0, 4, 6)
    hard = loss(label=jnp.asarray(label), target=jnp.eye(4)[label])
    np.testing.assert_allclose(hard, loss(label=jnp.asarray(label)), rtol=1e-6)

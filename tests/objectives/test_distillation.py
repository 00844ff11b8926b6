import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib import errors
from lib.objectives import distillation

LOGITS = hnp.arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32))
TEMPERATURES = st.floats(0.5, 20)
ONES = np.ones(4, np.float32)


def _value(temperature, student, teacher, weight=ONES):
    term = distillation.distill(temperature=temperature)
    outputs = (jnp.asarray(student), {})
    batch = {"weight": jnp.asarray(weight)}
    return term(outputs, batch, {}, (jnp.asarray(teacher), {}))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@hypothesis.given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_equals_the_formula(student, teacher, temperature):
    weight = np.array([1, 0.5, 0, 1], np.float32)
    p = _softmax(teacher.astype(np.float64) / temperature)
    q = _softmax(student.astype(np.float64) / temperature)
    kl = (p * np.log(p / q)).sum(-1)
    want = temperature**2 * (kl * weight).sum() / weight.sum()
    got = _value(temperature, student, teacher, weight)
    # Float32 rounds each log-probability by about 1e-6, and T**2 multiplies it.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6 * temperature**2)


@hypothesis.given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_gradient_is_the_difference_of_softmaxes(student, teacher, temperature):
    got = jax.grad(lambda s: _value(temperature, s, teacher))(jnp.asarray(student))
    p = _softmax(teacher.astype(np.float64) / temperature)
    q = _softmax(student.astype(np.float64) / temperature)
    want = temperature * (q - p) / 4
    np.testing.assert_allclose(got, want, atol=1e-6 * temperature)


@hypothesis.given(student=LOGITS, teacher=LOGITS)
def test_a_high_temperature_matches_logits(student, teacher):
    """Hinton et al., section 2.1: half the mean squared difference, centred."""
    student = student - student.mean(-1, keepdims=True)
    teacher = teacher - teacher.mean(-1, keepdims=True)
    got = jax.grad(lambda s: _value(1e4, s, teacher))(jnp.asarray(student))
    # The paper's 1 / (N T**2) has lost its T**2 to ours; 4 is the batch.
    np.testing.assert_allclose(got, (student - teacher) / 3 / 4, atol=5e-3)


def test_no_gradient_reaches_the_teacher():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 4, 3)).astype(np.float32)
    got = jax.grad(lambda t: _value(2.0, student, t))(jnp.asarray(teacher))
    np.testing.assert_array_equal(got, 0)


def test_equal_logits_up_to_a_shift_cost_nothing():
    logits = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(_value(4.0, logits + 5, logits), 0, atol=1e-5)


def test_masked_examples_do_not_count():
    student, teacher = np.random.default_rng(2).normal(size=(2, 4, 3))
    want = _value(2.0, student[:2], teacher[:2], ONES[:2])
    student[2:] = np.nan
    got = _value(2.0, student, teacher, np.array([1, 1, 0, 0], np.float32))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_temperature_may_be_traced():
    student, teacher = np.random.default_rng(3).normal(size=(2, 4, 3))
    sweep = jnp.array([1.0, 2.0, 8.0])
    got = jax.vmap(lambda t: _value(t, student, teacher))(sweep)
    want = [_value(t, student, teacher) for t in (1.0, 2.0, 8.0)]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "4"])
def test_temperature_out_of_range_is_named(value):
    message = r"distill.temperature: expected a number in \(0, inf\), got"
    with pytest.raises(errors.UserError, match=message):
        distillation.distill(temperature=value)


def test_a_missing_or_unlike_teacher_is_named_when_traced():
    term = distillation.distill(temperature=2.0)
    outputs, batch = (jnp.ones((4, 3)), {}), {"weight": jnp.ones(4)}
    with pytest.raises(errors.UserError, match="term 'distill' needs a teacher"):
        jax.eval_shape(lambda: term(outputs, batch, {}, None))
    with pytest.raises(errors.UserError, match=r"\(4, 2\).*\(4, 3\) differ in shape"):
        jax.eval_shape(lambda: term(outputs, batch, {}, (jnp.ones((4, 2)), {})))

"""Decompositions against a closed form, loops that spell them out, and identities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lib.diagnosis import bias_variance

NOISE = 0.3
X = np.linspace(-1, 1, 20)
TRUTH = np.sin(3 * X)


def fitted(degree, samples, seed):
    """Least squares polynomials on fresh noise, one a sample: `[samples, 20]`."""
    rng = np.random.default_rng(seed)
    design = np.vander(X, degree + 1)
    observed = TRUTH + NOISE * rng.standard_normal((samples, 20))
    weights, *_ = np.linalg.lstsq(design, observed.T, rcond=None)
    return (design @ weights).T


@pytest.mark.parametrize("degree", [0, 1, 3, 8])
def test_polynomials_with_known_noise_have_their_closed_form(degree):
    """A linear fit is `H y`: bias `H f - f`, variance `noise^2 trace(H) / n`."""
    predictions = fitted(degree, 8000, seed=degree)
    found = bias_variance.squared(predictions, TRUTH)
    design = np.vander(X, degree + 1)
    hat = design @ np.linalg.pinv(design)
    bias = np.mean((hat @ TRUTH - TRUTH) ** 2)
    variance = NOISE**2 * (degree + 1) / 20
    assert found.bias == pytest.approx(bias, abs=3e-4)
    assert found.variance == pytest.approx(variance, rel=0.03)
    # Judged by labels with noise of their own, the error has the noise beside them.
    rng = np.random.default_rng(99)
    observed = TRUTH + NOISE * rng.standard_normal(predictions.shape)
    error = np.mean((predictions - observed) ** 2)
    assert error == pytest.approx(NOISE**2 + bias + variance, rel=0.02)


def test_the_picture_is_a_u():
    ladder = [
        bias_variance.squared(fitted(d, 2000, seed=d), TRUTH) for d in range(0, 16, 3)
    ]
    errors = [one.error for one in ladder]
    best = int(np.argmin(errors))
    assert 0 < best < len(errors) - 1
    assert all(a > b for a, b in zip(errors[:best], errors[1 : best + 1], strict=True))
    assert all(a < b for a, b in zip(errors[best:-1], errors[best + 1 :], strict=True))
    variances = [one.variance for one in ladder]
    assert variances == sorted(variances)


def test_squared_is_what_a_loop_says():
    rng = np.random.default_rng(0)
    predictions, target = rng.random((5, 7, 3)), rng.random((7, 3))
    error = bias = variance = 0.0
    for i in range(7):
        for c in range(3):
            mean = sum(predictions[m, i, c] for m in range(5)) / 5
            bias += (mean - target[i, c]) ** 2 / 7
            for m in range(5):
                error += (predictions[m, i, c] - target[i, c]) ** 2 / 35
                variance += (predictions[m, i, c] - mean) ** 2 / 35
    found = bias_variance.squared(predictions, target)
    np.testing.assert_allclose(found, (error, bias, variance), rtol=1e-12)


def test_zero_one_is_what_a_loop_says():
    rng = np.random.default_rng(1)
    guesses, labels = rng.integers(0, 4, (9, 30)), rng.integers(0, 4, 30)
    guesses[:5, :12] = labels[:12]  # the main prediction of some is right
    error = bias = variance = unbiased = biased = 0.0
    for i in range(30):
        said = guesses[:, i].tolist()
        main = min(set(said), key=lambda c: (-said.count(c), c))
        astray = sum(g != main for g in said) / 9
        right = sum(g == labels[i] for g in said) / 9
        error += (1 - right) / 30
        variance += astray / 30
        if main == labels[i]:
            unbiased += astray / 30
        else:
            bias += 1 / 30
            # Of the answers that go astray, the share that is right (Domingos, c2).
            other = [g for g in said if g != main]
            share = sum(g == labels[i] for g in other) / len(other) if other else 0
            biased += share * astray / 30
    found = bias_variance.zero_one(guesses, labels)
    expected = (error, bias, variance, unbiased, biased)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(
    arrays.arrays(np.int64, (6, 8), elements=st.integers(0, 3)),
    arrays.arrays(np.int64, (8,), elements=st.integers(0, 3)),
)
def test_the_parts_of_both_losses_add_up(guesses, labels):
    found = bias_variance.zero_one(guesses, labels)
    parts = found.bias + found.unbiased - found.biased
    assert found.error == pytest.approx(parts, abs=1e-12)
    squared = bias_variance.squared(guesses, labels)
    assert squared.error == pytest.approx(squared.bias + squared.variance, abs=1e-12)


def test_one_model_has_no_variance():
    guesses, labels = np.array([[0, 1, 2]]), np.array([0, 2, 2])
    found = bias_variance.zero_one(guesses, labels)
    assert found == (pytest.approx(1 / 3), pytest.approx(1 / 3), 0, 0, 0)
    assert bias_variance.squared(guesses, labels).variance == 0

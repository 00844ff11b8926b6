"""Terms of a teacher's logits against the formulas of their papers, in NumPy."""

import jax
import numpy as np
import pytest

from lib import errors
from lib.objectives import base
from tests.objectives import samples
from tests.objectives.samples import LABELS, STUDENT, TEACHER, WEIGHT, softmax

torch = pytest.importorskip("torch", reason="torch is not installed")
functional = torch.nn.functional

CLASSES = np.arange(samples.CLASSES)


def test_dkd():
    each = []
    for s, t, y in zip(STUDENT[0], TEACHER[0], LABELS, strict=True):
        p, q = softmax(t / 2), softmax(s / 2)
        others = CLASSES != y
        a, b = np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]])
        c, d = p[others] / (1 - p[y]), q[others] / (1 - q[y])
        each.append(0.5 * (a * np.log(a / b)).sum() + 3 * (c * np.log(c / d)).sum())
    got = samples.value(samples.term("dkd"))
    np.testing.assert_allclose(got, 4 * samples.mean(each), rtol=1e-5)


def test_dkd_with_the_teachers_own_weight_is_plain_distillation():
    """Eq. 5 of the paper, for one example."""
    one = (TEACHER[0][:1], {})
    rest = 1 - softmax(one[0] / 2)[0, LABELS[0]]
    batch = {"label": LABELS[:1], "weight": np.ones(1, np.float32)}
    student = (STUDENT[0][:1], {})
    made = samples.term("dkd", target=1.0, others=float(rest))
    want = samples.value(samples.term("distill"), student, one, batch)
    got = samples.value(made, student, one, batch)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_dist():
    kept, w = samples.KEPT, WEIGHT[samples.KEPT]
    p, q = softmax(TEACHER[0] / 2), softmax(STUDENT[0] / 2)
    inter = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    intra = []
    for a, b in zip(p[kept].T, q[kept].T, strict=True):
        c = np.cov(a, b, aweights=w)
        intra.append(1 - c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]))
    want = 4 * (0.5 * samples.mean(inter) + 2 * np.mean(intra))
    np.testing.assert_allclose(samples.value(samples.term("dist")), want, rtol=1e-4)


def test_born_again_by_confidence():
    largest = softmax(TEACHER[0]).max(-1)
    theirs = functional.cross_entropy(
        torch.tensor(STUDENT[0]), torch.tensor(LABELS).long(), reduction="none"
    ).numpy()
    share = largest * WEIGHT
    got = samples.value(samples.term("born_again"))
    np.testing.assert_allclose(got, (theirs * share).sum() / share.sum(), rtol=1e-5)


@pytest.mark.slow
def test_born_again_by_permuted_predictions():
    made = samples.term("born_again", kind="dkpp")
    # Of one-hot students, the cross-entropy reads the permuted probabilities out.
    ones = np.ones(6, np.float32)
    p = softmax(TEACHER[0])
    log_q = np.log(softmax(STUDENT[0]))
    slope = jax.grad(
        lambda s: made(
            (s, {}), {**samples.BATCH, "weight": ones}, {}, samples.floats(TEACHER)
        )
    )(samples.floats(STUDENT)[0])
    permuted = np.exp(log_q) - 6 * np.asarray(slope)
    np.testing.assert_allclose(np.sort(permuted), np.sort(p), atol=1e-5)
    np.testing.assert_array_equal(permuted.argmax(-1), p.argmax(-1))
    top = p.argmax(-1)[:, None]
    np.testing.assert_allclose(
        np.take_along_axis(permuted, top, -1), p.max(-1, keepdims=True), atol=1e-5
    )
    assert np.abs(permuted - p).max() > 0.01
    want = (p * np.log(p)).sum(-1) - (permuted * log_q).sum(-1)
    batch = {**samples.BATCH, "weight": ones}
    got = samples.value(made, batch=batch)
    np.testing.assert_allclose(got, want.mean(), rtol=1e-4)
    again = samples.value(made, batch={**batch, "key": jax.random.key(4)})
    assert again != got


def test_permuting_needs_a_key():
    batch = {k: v for k, v in samples.BATCH.items() if k != "key"}
    with pytest.raises(errors.UserError, match="kind 'dkpp' draws"):
        samples.value(samples.term("born_again", kind="dkpp"), batch=batch)


def test_self_distillation():
    made = samples.term("self_distill")
    (heads,) = samples.heads_of(made)
    exit_ = samples.affine(heads["exit_0"], STUDENT[1]["stage_0"].mean((1, 2)))
    p, q = softmax(STUDENT[0] / 2), softmax(exit_ / 2)
    hard = -np.log(softmax(exit_)[np.arange(6), LABELS])
    each = 0.7 * hard + 0.3 * 4 * (p * np.log(p / q)).sum(-1)
    got = samples.value(made, teacher=TEACHER)
    np.testing.assert_allclose(got, samples.mean(each), rtol=1e-5)


def test_a_map_of_heads_begins_small_and_without_a_bias():
    head = base.dense(jax.random.key(0), 400, 30)
    np.testing.assert_allclose(head["kernel"].std(), 0.05, rtol=0.05)
    np.testing.assert_array_equal(head["bias"], 0)

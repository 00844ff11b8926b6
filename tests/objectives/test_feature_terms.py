"""Terms of features and of relations between examples, against loops in NumPy."""

import itertools
import math

import jax
import numpy as np
import pytest

from lib import errors
from tests.objectives import samples
from tests.objectives.samples import LABELS, STUDENT, TEACHER, WEIGHT

torch = pytest.importorskip("torch", reason="torch is not installed")
functional = torch.nn.functional

W = WEIGHT[samples.KEPT].astype(np.float64)
S, T = (x[1]["pooled"][samples.KEPT] for x in (STUDENT, TEACHER))


def pooled(x):
    """Means of 2x2 windows, by PyTorch."""
    moved = functional.avg_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), 2)
    return moved.numpy().transpose(0, 2, 3, 1)


def test_hint():
    made = samples.term("hint")
    (heads,) = samples.heads_of(made)
    flat = samples.affine(heads["pair_0"], STUDENT[1]["pooled"])
    grid = samples.affine(heads["pair_1"], STUDENT[1]["stage_0"])
    want = samples.mean(((flat - TEACHER[1]["pooled"]) ** 2).mean(-1))
    square = (grid - pooled(TEACHER[1]["stage_0"])) ** 2
    want += samples.mean(square.mean((1, 2, 3)))
    np.testing.assert_allclose(samples.value(made), want, rtol=1e-5)


def test_maps_of_which_none_divides_the_other_are_named():
    teacher = (TEACHER[0], {**TEACHER[1], "stage_0": np.zeros((6, 3, 3, 6))})
    with pytest.raises(errors.UserError, match=r"\(6, 3, 3, 6\).*no multiples"):
        samples.value(samples.term("hint"), teacher=teacher)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_attention_transfer(power):
    def look(x):
        rows = (np.abs(x) ** power).sum(-1).reshape(6, -1)
        return functional.normalize(torch.tensor(rows)).numpy()

    off = look(STUDENT[1]["stage_0"]) - look(pooled(TEACHER[1]["stage_0"]))
    got = samples.value(samples.term("attention_transfer", power=power))
    np.testing.assert_allclose(got, samples.mean((off**2).sum(-1)), rtol=1e-5)


def test_similarity():
    def alike(x):
        return functional.normalize(torch.tensor(x @ x.T)).numpy()

    square = (alike(S) - alike(T)) ** 2 * np.outer(W, W)
    got = samples.value(samples.term("similarity"))
    np.testing.assert_allclose(got, square.sum() / W.sum() ** 2, rtol=1e-5)


def huber(x):
    zeros = torch.zeros(())
    return float(functional.smooth_l1_loss(torch.tensor(float(x)), zeros.double()))


def test_rkd_distance():
    pairs = list(itertools.permutations(range(4), 2))
    shares = np.array([W[i] * W[j] for i, j in pairs])

    def lengths(x):
        d = np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs])
        return d / ((d * shares).sum() / shares.sum())

    each = [huber(a - b) for a, b in zip(lengths(S), lengths(T), strict=True)]
    got = samples.value(samples.term("rkd_distance"))
    np.testing.assert_allclose(got, (each * shares).sum() / shares.sum(), rtol=1e-5)


def test_rkd_angle():
    triples = list(itertools.permutations(range(4), 3))
    # The weight at the vertex j counts with i and with k.
    shares = np.array([W[i] * W[j] ** 2 * W[k] for i, j, k in triples])

    def cosines(x):
        for i, j, k in triples:
            a, b = x[i] - x[j], x[k] - x[j]
            yield a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    each = [huber(a - b) for a, b in zip(cosines(S), cosines(T), strict=True)]
    got = samples.value(samples.term("rkd_angle"))
    np.testing.assert_allclose(got, (each * shares).sum() / shares.sum(), rtol=1e-4)


def test_examples_at_one_place_have_a_slope():
    same = samples.floats(STUDENT)[1]["pooled"].at[1].set(1.0).at[0].set(1.0)
    for name in ("rkd_distance", "rkd_angle"):
        made = samples.term(name)

        def loss(x, made=made):
            outputs = (x, {"pooled": x})
            return made(outputs, samples.BATCH, {}, samples.floats(TEACHER))

        assert np.isfinite(jax.jit(jax.grad(loss))(same)).all()


def test_correlation():
    def kernel(x):
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        total = 0
        for p in range(3):
            total = total + 0.8**p / math.factorial(p) * (x @ x.T) ** p
        return math.exp(-0.8) * total

    square = (kernel(S) - kernel(T)) ** 2 * np.outer(W, W)
    got = samples.value(samples.term("correlation"))
    np.testing.assert_allclose(got, square.sum() / W.sum() ** 2, rtol=1e-5)


def test_correlation_becomes_the_gaussian_kernel():
    def kernel(x):
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        return np.exp(-0.4 * ((x[:, None] - x[None]) ** 2).sum(-1))

    square = (kernel(S) - kernel(T)) ** 2 * np.outer(W, W)
    got = samples.value(samples.term("correlation", order=12))
    np.testing.assert_allclose(got, square.sum() / W.sum() ** 2, rtol=1e-4)


@pytest.mark.parametrize("negatives", ["classes", "all"])
def test_crd(negatives):
    made = samples.term("crd", negatives=negatives)
    (heads,) = samples.heads_of(made)
    s, t = (
        functional.normalize(
            torch.tensor(samples.affine(heads["pair_0"][whose], x))
        ).numpy()
        for whose, x in (("student", S), ("teacher", T))
    )
    each = np.zeros(4)
    for a, b in ((s, t), (t, s)):
        for i in range(4):
            differ = LABELS[samples.KEPT] != LABELS[i]
            others = differ if negatives == "classes" else np.arange(4) != i
            many = max(W[others].sum(), 1)

            def chance(j, a=a, b=b, i=i, many=many):
                alike = np.exp(a[i] @ b[j] / 0.5)
                return alike / (alike + many / 50)

            each[i] -= np.log(chance(i))
            each[i] -= sum(W[j] * np.log(1 - chance(j)) for j in range(4) if others[j])
    got = samples.value(made)
    np.testing.assert_allclose(got, (each * W).sum() / W.sum(), rtol=1e-5)

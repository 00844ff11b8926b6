"""Scores that need data, against closed forms, finite differences and the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, tree
from lib import transforms as T
from lib.transforms import saliency, selection

RNG = np.random.default_rng(0)
A = np.float32(RNG.normal(size=(2, 6, 6)))
A = A @ A.transpose(0, 2, 1)  # two batches: curvatures, and
B = np.float32(RNG.normal(size=(2, 6)))  # slopes
PARAMS = {
    "layer": {"kernel": jnp.float32(RNG.normal(size=(2, 3))), "bias": jnp.ones(2)}
}
BATCHES = [{"a": a, "b": b} for a, b in zip(A, B, strict=True)]


def quadratic(params, batch):
    """0.5 w A w - b w, scaled by what no score may move: the bias."""
    w = params["layer"]["kernel"].reshape(-1)
    return (0.5 * w @ batch["a"] @ w - batch["b"] @ w) * params["layer"]["bias"].mean()


def theta():
    return np.float64(PARAMS["layer"]["kernel"]).reshape(-1)


def gradients():
    return np.stack([a @ theta() - b for a, b in zip(A, B, strict=True)])


def one(scores):
    assert list(scores) == ["layer/kernel"]
    assert scores["layer/kernel"].shape == (2, 3)
    assert scores["layer/kernel"].dtype == jnp.float32
    return np.asarray(scores["layer/kernel"]).reshape(-1)


def test_snip_in_closed_form():
    found = one(saliency.snip(quadratic, PARAMS, BATCHES))
    np.testing.assert_allclose(found, abs(gradients().mean(0) * theta()), rtol=1e-4)


def test_fisher_in_closed_form():
    found = one(saliency.fisher(quadratic, PARAMS, iter(BATCHES)))
    expected = theta() ** 2 / 2 * (gradients() ** 2).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_grasp_in_closed_form():
    found = one(saliency.grasp(quadratic, PARAMS, iter(BATCHES)))
    hessian = np.float64(A).mean(0)
    expected = theta() * (hessian @ gradients().mean(0))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_grasp_keeps_what_carries_the_gradient():
    """Shrinking a weight moves the gradient's norm by -2 * score: higher = keep."""

    def loss(params, batch):
        hidden = jnp.tanh(batch @ params["kernel"])
        return jnp.mean((hidden.sum(1) - 1) ** 2)

    params = {"kernel": jnp.asarray(RNG.normal(size=(3, 2)))}
    x = jnp.asarray(RNG.normal(size=(8, 3)))
    score = np.asarray(saliency.grasp(loss, params, [x])["kernel"])

    @jax.jit
    def norm(w):
        return jnp.sum(jax.grad(loss)({"kernel": w}, x)["kernel"] ** 2)

    w, step = params["kernel"], 1e-2
    for i, j in np.ndindex(3, 2):
        up, down = (w.at[i, j].multiply(1 + s) for s in (step, -step))
        slope = (norm(down) - norm(up)) / (2 * step)  # by how much is removed
        np.testing.assert_allclose(slope, -2 * score[i, j], rtol=0.02, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("score", [saliency.snip, saliency.grasp])
def test_batches_count_as_one_large_batch(score):
    def loss(params, batch):
        return jnp.mean(jnp.tanh(batch @ params["kernel"]) ** 2)

    params = {"kernel": jnp.asarray(RNG.normal(size=(3, 2)))}
    x = jnp.asarray(RNG.normal(size=(8, 3)))
    whole, halves = score(loss, params, [x]), score(loss, params, [x[:4], x[4:]])
    np.testing.assert_allclose(whole["kernel"], halves["kernel"], rtol=1e-4, atol=1e-6)


# A bottleneck behind wide layers: small weights in large layers.
WIDTHS = (16, 120, 120, 8, 4)
LAYERS = [f"layer_{i}" for i in range(len(WIDTHS) - 1)]


def mlp(params, x):
    for name in LAYERS:
        x = x @ params[name]["kernel"]
        x = x if name == LAYERS[-1] else jax.nn.relu(x)
    return x


def fresh(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.float32(rng.normal(size=(n, m)) * np.sqrt(2 / n))}
        for name, n, m in zip(LAYERS, WIDTHS, WIDTHS[1:], strict=False)
    }


def kept(scores, sparsity):
    """How many weights of each layer a global ranking keeps."""
    t = T.prune(sparsity=sparsity, distribution="global", score="given", scores=scores)
    params = fresh()
    decoded = t.decode(*t.encode(params))
    return [int((decoded[name]["kernel"] != 0).sum()) for name in LAYERS]


@pytest.mark.slow
def test_synflow_is_conserved():
    """Its scores add up to the same in every layer, and at every hidden unit."""
    params = fresh()
    scores = saliency.synflow(mlp, params, (1, 16), sparsity=0.5, rounds=1)
    scores = [np.float64(scores[f"{name}/kernel"]) for name in LAYERS]
    positive = [np.abs(np.float64(params[name]["kernel"])) for name in LAYERS]
    flow = np.linalg.multi_dot([np.ones((1, 16)), *positive, np.ones((4, 1))])
    for score in scores:
        np.testing.assert_allclose(score.sum(), flow.item(), rtol=1e-5)
    for into, out in zip(scores, scores[1:], strict=False):
        np.testing.assert_allclose(into.sum(0), out.sum(1), rtol=1e-4)


@pytest.mark.slow
def test_synflow_is_the_loop_of_the_paper():
    """Algorithm 1 in NumPy: mask, score, keep the highest; ours ends with its mask."""
    params, sparsity, rounds = fresh(), 0.9, 5
    weights = [np.abs(np.float64(params[name]["kernel"])) for name in LAYERS]
    total = sum(w.size for w in weights)
    masks = [np.ones_like(w) for w in weights]
    for k in range(1, rounds + 1):
        now = [w * m for w, m in zip(weights, masks, strict=True)]
        scores = []
        for i, w in enumerate(now):
            before = np.linalg.multi_dot([np.ones((1, 16)), *now[:i], np.eye(len(w))])
            after = np.linalg.multi_dot(
                [np.eye(w.shape[1]), *now[i + 1 :], np.ones((4, 1))]
            )
            scores.append(before.T * after.T * w)
        count = round((1 - (1 - sparsity) ** (k / rounds)) * total)
        cut = np.sort(np.concatenate([s.ravel() for s in scores]))[count]
        masks = [s >= cut for s in scores]

    found = saliency.synflow(mlp, params, (1, 16), sparsity=sparsity, rounds=rounds)
    ordered = [found[f"{name}/kernel"] for name in LAYERS]
    ours = selection.keep_all_but(ordered, jnp.int32(round(sparsity * total)))
    wrong = sum(int((a != m).sum()) for a, m in zip(ours, masks, strict=True))
    assert wrong <= 2  # float32 may turn neighbours around
    gone = [np.asarray(s) == -1 for s in ordered]
    assert 0.8 * total < sum(g.sum() for g in gone) < 0.9 * total
    assert not any((g & m).any() for g, m in zip(gone, masks, strict=True))


@pytest.mark.slow
def test_no_layer_collapses_under_synflow():
    """At a thousandth of the weights (Tanaka et al. 2020, figure 1)."""
    params, sparsity = fresh(), 1 - 1e-3
    x = jnp.asarray(RNG.normal(size=(32, 16)), jnp.float32)
    label = jnp.asarray(RNG.integers(4, size=32))

    def loss(params, batch):
        log_p = jax.nn.log_softmax(mlp(params, batch))
        return -jnp.take_along_axis(log_p, label[:, None], 1).mean()

    magnitude = {p: jnp.abs(w) for p, w in tree.flatten(params).items()}
    assert min(kept(magnitude, sparsity)) == 0
    assert min(kept(saliency.snip(loss, params, [x]), sparsity)) == 0
    scores = saliency.synflow(mlp, params, (1, 16), sparsity=sparsity)
    left = kept(scores, sparsity)
    assert min(left) >= 1 and sum(left) == round(
        1e-3 * sum(map(np.size, magnitude.values()))
    )


@pytest.mark.slow
def test_synflow_at_no_sparsity_removes_nothing():
    scores = saliency.synflow(mlp, fresh(), (1, 16), sparsity=0.0, rounds=3)
    assert all((s >= 0).all() for s in scores.values())


def test_wanda_literal():
    params = {"a": {"kernel": jnp.float32([[1, -2], [3, 4]])}, "b": jnp.ones(2)}
    scores = saliency.wanda(params, {"a/kernel": jnp.float32([4, 0.25])})
    assert list(scores) == ["a/kernel"]
    np.testing.assert_allclose(scores["a/kernel"], [[2, 4], [1.5, 2]])


def test_wanda_of_convolutions_projections_and_slices():
    shapes = {"conv": (2, 1, 3, 4), "query": (3, 2, 2), "scanned": (2, 3, 5)}
    rows = {"conv": (6,), "query": (3,), "scanned": (2, 3)}
    params = {n: jnp.asarray(RNG.normal(size=s)) for n, s in shapes.items()}
    norms = {n: jnp.asarray(RNG.uniform(1, 2, s)) for n, s in rows.items()}
    scores = saliency.wanda(params, norms)
    for name, spec in {"conv": "rc,r->rc", "query": "rc,r->rc"}.items():
        seen = np.abs(params[name]).reshape(*rows[name], -1)
        expected = np.einsum(spec, seen, np.sqrt(norms[name]))
        np.testing.assert_allclose(
            scores[name], expected.reshape(shapes[name]), rtol=1e-6
        )
    for i in range(2):
        expected = np.abs(params["scanned"][i]) * np.sqrt(norms["scanned"][i])[:, None]
        np.testing.assert_allclose(scores["scanned"][i], expected, rtol=1e-6)


def test_mistakes():
    def bad(params, batch):
        return jnp.sum(jnp.sqrt(params["layer"]["kernel"] * batch))

    for score in (saliency.snip, saliency.fisher, saliency.grasp):
        with pytest.raises(errors.UserError, match="got no batches"):
            score(quadratic, PARAMS, [])
        with pytest.raises(errors.UserError, match="rule 'kernal' matches nothing"):
            score(quadratic, PARAMS, BATCHES, pattern="kernal")
    with pytest.raises(errors.UserError, match="layer/kernel are not finite"):
        saliency.snip(bad, PARAMS, [-1.0])
    options = dict(sparsity=0.5, rounds=1)
    for name, value in (("sparsity", 1.0), ("sparsity", -0.5), ("rounds", 0)):
        with pytest.raises(errors.UserError, match=f"synflow: {name} is at least"):
            saliency.synflow(mlp, fresh(), (1, 16), **{**options, name: value})
    with pytest.raises(errors.UserError, match="did you mean 'layer/kernel'"):
        saliency.wanda(PARAMS, {"layer/kernl": jnp.ones(2)})
    with pytest.raises(errors.UserError, match=r"shape \(4,\) do not fit layer/kernel"):
        saliency.wanda(PARAMS, {"layer/kernel": jnp.ones(4)})

"""Weights of an objective's own: trained, saved, and left behind."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import models, objectives
from lib import transforms as T
from lib.train import step, teachers
from tests.train import jobs

SETTINGS = {
    **jobs.SETTINGS,
    "hint": dict(weight=1.0, pairs=(("dense_0", "dense_0"),)),
}


def hinted(*, ema=0.0, transform=None, terms=("cross_entropy", "hint"), **options):
    """Returns a job with a teacher of another width, and a regressor to it."""
    job = jobs.make(ema=ema, transform=transform, **options)
    wide = jobs.mlp(widths=(5,))
    params, variables = models.init(wide, jax.random.key(5), jobs.SHAPE)
    taught = (params, variables, {})
    recipe = job.recipe._replace(
        objective=objectives.build(terms, SETTINGS),
        teacher=teachers.one(step.Network(models.make_apply(wide))),
    )
    dense = recipe.transform.decode(job.state.code, job.state.codec)
    weights = (dense, job.state.variables, job.state.ranges)
    batch = {"input": jnp.zeros((1, *jobs.SHAPE))}
    heads = step.fresh_heads(recipe, jax.random.key(1), weights, taught, batch)
    state = step.init(recipe, *weights, heads)
    return job._replace(
        recipe=recipe, state=state, fixed=job.fixed._replace(teacher=taught)
    )


@pytest.mark.slow
def test_a_regressor_learns_beside_the_code_by_the_gradient_of_the_objective():
    """One step of plain gradient descent, against `jax.grad` by hand."""
    job = hinted(optimize=optax.sgd(0.1))
    heads = job.state.heads
    assert jax.tree.map(jnp.shape, heads) == {
        "hint": {"pair_0": {"kernel": (8, 5), "bias": (5,)}}
    }
    raw = job.feed.take(
        job.feed.resident, jax.tree.map(lambda r: r[0], job.feed.next(1))
    )
    batch = job.recipe.prepare(None, raw, 0)
    job.feed.restore({**job.feed.state(), "step": 0})

    def loss(code, heads):
        outputs, _ = job.recipe.network(code, {}, {}, batch["input"])
        told = job.recipe.teacher(job.fixed.teacher, batch)
        return job.recipe.objective(outputs, batch, code, told, heads)[0]

    grads = jax.jit(jax.grad(loss, (0, 1)))(job.state.code, heads)
    ((state, metrics),) = job.steps(1)
    wanted = jax.tree.map(lambda x, g: x - 0.1 * g, (job.state.code, heads), grads)
    jobs.close((state.code, state.heads), wanted, 1e-5)
    assert set(metrics) == {"loss", "cross_entropy", "hint", "accuracy"}


@pytest.mark.slow
def test_a_hint_with_a_regressor_trains_and_resumes_exactly(tmp_path):
    """Masks that move, an average beside, and heads that neither touches."""
    job = hinted(ema=0.9, transform=T.prune(sparsity=0.5))
    log = jobs.Log()
    whole = jobs.fit(job, tmp_path / "whole", log=log)
    hints = [v for _, v in sorted(log.of("hint").items())]
    assert hints[-1] < 0.7 * hints[0]
    assert jax.tree.structure(whole.ema) == jax.tree.structure(whole.code)
    before = np.asarray(job.state.heads["hint"]["pair_0"]["kernel"])
    assert np.abs(whole.heads["hint"]["pair_0"]["kernel"] - before).max() > 0.01

    jobs.fit(
        hinted(ema=0.9, transform=T.prune(sparsity=0.5)), tmp_path / "cut", steps=10
    )
    again = hinted(ema=0.9, transform=T.prune(sparsity=0.5))
    jobs.same(jobs.fit(again, tmp_path / "cut"), whole)


def test_an_objective_without_heads_has_none():
    job = jobs.make()
    assert job.state.heads == {}
    nothing = step.fresh_heads(job.recipe, None, None, None, None)
    assert nothing == {}
    trained = job.recipe.optimizer.init(job.state.code)
    assert jax.tree.structure(job.state.optimizer) == jax.tree.structure(trained)


def test_several_teachers_teach_the_mean_of_their_logits():
    networks, weights = [], []
    for seed, width in ((0, 3), (1, 5)):
        module = jobs.mlp(widths=(width,))
        params, _ = models.init(module, jax.random.key(seed), jobs.SHAPE)
        networks.append(step.Network(models.make_apply(module)))
        weights.append((params, {}, {}))
    batch = {"input": jax.random.normal(jax.random.key(2), (4, *jobs.SHAPE))}
    logits, features = teachers.several(networks)(weights, batch)
    each = [teachers.one(n)(w, batch) for n, w in zip(networks, weights, strict=True)]
    np.testing.assert_allclose(logits, (each[0][0] + each[1][0]) / 2, rtol=1e-6)
    assert set(features) == {"0/dense_0", "1/dense_0"}
    np.testing.assert_array_equal(features["1/dense_0"], each[1][1]["dense_0"])


@pytest.mark.slow
def test_a_mean_teacher_is_the_average_through_the_techniques():
    """The average decoded, with masks of the moment; the code itself is not it."""
    job = hinted(ema=0.5, transform=T.prune(sparsity=0.5), terms=("cross_entropy",))
    seen = []

    def objective(outputs, batch, params, told):
        gap = jnp.mean((outputs[0] - told[0]) ** 2)
        return gap + jnp.mean(outputs[0] ** 2), {"gap": gap}

    network = job.recipe.network
    recipe = job.recipe._replace(
        objective=objective, teacher=teachers.one(network), mean_teacher=True
    )
    state = step.init(recipe, job.state.code, {}, {})
    job = job._replace(
        recipe=recipe, state=state, fixed=job.fixed._replace(teacher=None)
    )
    average = state.code
    for new, metrics in job.steps(3):
        seen.append(float(metrics["gap"]))
        average = jax.tree.map(lambda a, c: 0.5 * a + 0.5 * c, average, new.code)
        jobs.close(new.ema, average, 1e-6)
    assert seen[1] < 1e-10 < seen[2]  # the first rate is 0

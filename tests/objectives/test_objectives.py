"""Terms found by name, and their weighted sum."""

import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lib import errors, objectives
from lib.objectives import distillation, penalties, task
from tests.objectives import samples

RNG = np.random.default_rng(0)
OUTPUTS = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), {})
TEACHER = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), {})
BATCH = {"label": jnp.array([0, 1, 2, 0]), "weight": jnp.array([1.0, 1.0, 1.0, 0.0])}
PARAMS = {"dense": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)}}

CRD = {"crd": samples.settings("crd")}
SETTINGS = {
    "cross_entropy": {"weight": 0.3, "label_smoothing": 0.1},
    "distill": {"weight": 0.7, "temperature": 4.0},
    "l2": {"weight": 5e-4, "pattern": "kernel$"},
}


def test_the_loss_is_the_weighted_sum_and_metrics_are_not_weighted():
    objective = objectives.build(("cross_entropy", "distill", "l2"), SETTINGS)
    loss, values = objective(OUTPUTS, BATCH, PARAMS, TEACHER)
    want = {
        "cross_entropy": task.cross_entropy(label_smoothing=0.1),
        "distill": distillation.distill(temperature=4.0),
        "l2": penalties.l2(pattern="kernel$"),
    }
    assert list(values) == list(want)
    for name, term in want.items():
        np.testing.assert_array_equal(
            values[name], term(OUTPUTS, BATCH, PARAMS, TEACHER)
        )
        assert values[name].shape == ()
    by_hand = 0.3 * values["cross_entropy"] + 0.7 * values["distill"] + 5e-4 * 2.5
    np.testing.assert_allclose(loss, by_hand, rtol=1e-6)


def test_settings_may_be_a_config_dict():
    config = ml_collections.ConfigDict(SETTINGS).lock()
    names = ("l2", "cross_entropy")
    got, values = objectives.build(names, config)(OUTPUTS, BATCH, PARAMS, None)
    want, _ = objectives.build(names, SETTINGS)(OUTPUTS, BATCH, PARAMS, None)
    assert list(values) == ["l2", "cross_entropy"]
    assert got == want
    assert config.to_dict() == SETTINGS


def test_weights_and_options_may_be_traced():
    def train(weight, temperature):
        settings = {
            "l2": {"weight": weight},
            "distill": {"weight": 1 - weight, "temperature": temperature},
        }
        objective = objectives.build(("distill", "l2"), settings)

        def loss(kernel):
            params = {"dense": {"kernel": kernel}}
            return objective(OUTPUTS, BATCH, params, TEACHER)[0]

        return jax.value_and_grad(loss)(PARAMS["dense"]["kernel"])

    weights, temperatures = jnp.array([0.1, 0.5, 1.0]), jnp.array([1.0, 2.0, 4.0])
    losses, grads = jax.jit(jax.vmap(train))(weights, temperatures)
    for i in range(3):
        loss, grad = train(float(weights[i]), float(temperatures[i]))
        np.testing.assert_allclose(losses[i], loss, rtol=1e-5)
        np.testing.assert_allclose(grads[i], grad, rtol=1e-5)


@pytest.mark.slow
def test_every_term_builds_and_is_finite():
    assert samples.OPTIONS.keys() == objectives.TERMS.keys()
    settings = {name: samples.settings(name) for name in samples.OPTIONS}
    objective = objectives.build(tuple(samples.OPTIONS), settings, examples=50)
    student, teacher = samples.floats(samples.STUDENT), samples.floats(samples.TEACHER)
    heads = objective.init(jax.random.key(0), student, teacher)
    headed = {"crd", "embeddings", "hidden", "hint", "self_distill"}
    assert set(heads) == headed
    args = (student, samples.BATCH, samples.PARAMS, teacher, heads)
    loss, values = jax.jit(objective.apply)(*args)
    assert np.isfinite(loss) and list(values) == list(samples.OPTIONS)
    np.testing.assert_allclose(loss, sum(values.values()), rtol=1e-6)


def test_heads_differ_between_terms_and_layers():
    names = ("hint", "hidden", "embeddings")
    settings = {name: samples.settings(name) for name in names}
    outputs = samples.floats(samples.STUDENT), samples.floats(samples.TEACHER)
    objective = objectives.build(names, settings)
    heads = objective.init(jax.random.key(0), *outputs)
    kernels = [x.ravel()[0] for x in jax.tree.leaves(heads) if x.ndim == 2]
    assert len(kernels) == len(set(map(float, kernels))) == 4
    again = objective.init(jax.random.key(0), *outputs)
    jax.tree.map(np.testing.assert_array_equal, heads, again)


@pytest.mark.parametrize("name", samples.OPTIONS)
def test_needs_teacher_names_the_terms_that_fail_without(name):
    options = {name: samples.settings(name)}
    objective = objectives.build((name,), options, examples=50)
    outputs = samples.floats(samples.STUDENT)

    def loss():
        heads = ()
        if isinstance(objective, objectives.Headed):
            heads = (objective.init(jax.random.key(0), outputs, None),)
        return objective(outputs, samples.BATCH, samples.PARAMS, None, *heads)

    try:
        jax.eval_shape(loss)
    except errors.UserError as e:
        assert f"term {name!r} needs a teacher" in str(e)
        assert name in objectives.NEEDS_TEACHER
    else:
        assert name not in objectives.NEEDS_TEACHER


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("cross_entropi",), {}, "unknown term 'cross_entropi'; did you mean 'cross_e"),
        (("l1", "l1"), {"l1": {"weight": 1.0}}, "term 'l1' is named twice"),
        (("l1",), {"l2": {"weight": 1.0}}, "term 'l1' has no settings"),
        (("l1",), {"l1": {}}, "term 'l1' needs the option 'weight'"),
        (("distill",), {"distill": {"weight": 1.0}}, "needs the option 'temperature'"),
        (
            ("distill",),
            {"distill": {"weight": 1.0, "temprature": 2.0}},
            "unknown option 'temprature' of term 'distill'; did you mean 'temperature'",
        ),
        (("l1",), {"l1": {"weight": -1.0}}, "l1.weight: expected a number in [0, inf)"),
        (("l1",), {"l1": {"weight": "1"}}, "l1.weight: expected a number in [0, inf)"),
        ((), {}, "an objective needs at least one term; got none"),
        (("crd",), CRD, "term 'crd' counts the examples it is trained on; got none"),
        (
            ("crd",),
            {"crd": {**CRD["crd"], "examples": 50}},
            "unknown option 'examples' of term 'crd'",
        ),
    ],
)
def test_a_mistake_is_named(names, settings, message):
    with pytest.raises(errors.UserError, match=re.escape(message)) as caught:
        objectives.build(names, settings)
    assert "\n" not in str(caught.value)

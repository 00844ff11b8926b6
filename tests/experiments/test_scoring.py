"""What is measured for techniques, from a config: shapes beforehand, then values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from experiments import chains, check, scoring, stage, workdir
from lib import errors, models, objectives, program, tree
from lib.data import dataset, splits
from lib.report import metrics
from lib.train import interrupt, step, teachers
from lib.transforms import saliency
from tests.train import jobs

DATA = dataset.Dataset(
    "toy",
    jobs.split(),
    jobs.split(splits.Validation, 16),
    jobs.split(splits.Test, 16),
    jobs.CLASSES,
    jobs.SHAPE,
    jobs.NORMALISATION,
)


def config(technique="prune", changes=(), **settings):
    """One stage that prunes a small MLP at once, by what is measured."""
    made = common.base(stages=("only",))
    made.only.update(dict(transforms=(technique,), steps=4, batch_size=8))
    made.only.model.widths = (8,)
    made.prune.update(dict(schedule="", sparsity=0.5, distribution="global", batches=2))
    made.prune.rounds = 5
    for name in ("sparsegpt", "gptq", "adaround"):
        made[name].batches = 2
    made.adaround.steps = 5
    made[technique].update(settings)
    made.only.update(dict(changes))
    return made


def images(count):
    """The first images that the stage's feed gives, normalised by hand."""
    order = np.random.default_rng([0, 0]).permutation(jobs.EXAMPLES)[:count]
    source = DATA.train.source
    return (source.fields["input"][order].astype(np.float32) - 80) / 50, source.fields[
        "label"
    ][order]


def network(module=None):
    module = module or jobs.mlp()
    params, variables = models.init(module, jax.random.key(0), jobs.SHAPE)
    return step.Network(models.make_apply(module)), (params, variables, {})


def loss_of(net, start, terms=("cross_entropy",)):
    """The objective over the whole set of images at once."""
    objective = objectives.build(terms, jobs.SETTINGS)

    def loss(params, batch):
        x, labels = batch
        outputs, _ = net(params, *start[1:], x)
        known = {"label": labels, "weight": jnp.ones(len(labels))}
        return objective(outputs, known, params, None)[0]

    return loss


def measure(made, *args):
    """Returns what the techniques of the only stage ask for; as `scoring.scene`."""
    return scoring.measure(made, made.only, scoring.scene(made, made.only, *args))


@pytest.mark.slow
@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_scores_of_the_loss(score):
    made = config(score=score)
    net, start = network()
    given = measure(made, DATA, net, start)
    assert list(given) == ["prune"] and given["prune"]["score"] == "given"
    found = given["prune"]["scores"]
    whole = getattr(saliency, score)(loss_of(net, start), start[0], [images(16)])
    assert set(found) == {"dense_0/kernel", "logits/kernel"}
    for path, expected in whole.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_teacher_takes_part_in_the_loss():
    """Who is taught by itself has nothing to learn: no gradient, so no saliency."""
    made = config(score="snip", changes={"objective": ("distill",), "teacher": "only"})
    made.distill.weight = 1.0
    net, start = network()
    given = measure(made, DATA, net, start, teachers.one(net), start)
    for score in given["prune"]["scores"].values():
        np.testing.assert_allclose(score, 0, atol=1e-5)


def test_inputs_and_what_they_give():
    net, start = network()
    x = images(16)[0].reshape(16, -1)
    (_, features), _ = net(*start, images(16)[0])
    hidden = np.asarray(features["dense_0"])

    made = config(score="wanda")
    found = measure(made, DATA, net, start)["prune"]["scores"]
    for layer, seen in (("dense_0", x), ("logits", hidden)):
        w = np.abs(np.asarray(start[0][layer]["kernel"]))
        expected = w * np.sqrt((seen**2).sum(0))[:, None]
        np.testing.assert_allclose(found[f"{layer}/kernel"], expected, rtol=1e-4)

    made = config("sparsegpt")
    found = measure(made, DATA, net, start)["sparsegpt"]["grams"]
    np.testing.assert_allclose(
        found["logits/kernel"], hidden.T @ hidden, rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_synflow_is_of_the_sparsity_asked_for():
    made = config(score="synflow", sparsity=0.9)
    net, start = network()
    given = measure(made, DATA, net, start)
    chain = chains.build(made, made.only, given)
    decoded = tree.flatten(chain.transform.decode(*chain.transform.encode(start[0])))
    left = {p: int((w != 0).sum()) for p, w in decoded.items() if "kernel" in p}
    total = sum(decoded[p].size for p in left)
    assert sum(left.values()) == total - round(0.9 * total) and min(left.values()) > 0


MEASURED = [("prune", {"score": s}) for s in ("snip", "grasp", "synflow", "obd")]
MEASURED += [("prune", {"score": "wanda", "distribution": "output"})]
MEASURED += [("sparsegpt", {}), ("factorize", {"weighting": "activations"})]
MEASURED += [("gptq", {"rules": (("^dense_0/kernel", 3), ("kernel", 8))})]
MEASURED += [("adaround", {})]


@pytest.mark.slow
@pytest.mark.parametrize("technique, settings", MEASURED)
def test_the_outline_has_the_shapes_of_what_is_measured(technique, settings):
    made = config(technique, **settings)
    net, start = network()
    found = measure(made, DATA, net, start)
    params, variables = jax.eval_shape(lambda: start[:2])
    zeros = scoring.outline(made, made.only, net, params, variables, jobs.EXAMPLE)

    def shapes(given):
        return {
            name: {
                argument: {p: (np.shape(x), str(x.dtype)) for p, x in value.items()}
                for argument, value in arguments.items()
                if argument != "score"
            }
            for name, arguments in given.items()
        }

    assert shapes(found) == shapes(zeros)
    (one,) = check.stages(made, DATA)
    taken = [row.path for row in one.plan if row.taken_by]
    assert taken == ["dense_0/kernel", "logits/kernel"]


def test_nothing_is_measured_for_what_asks_for_nothing():
    for technique, settings in (("prune", {}), ("factorize", {}), ("quantize", {})):
        made = config(technique, **settings)
        assert measure(made, DATA, None, (None,) * 3) == {}
        assert scoring.outline(made, made.only, None, None, None, jobs.EXAMPLE) == {}


def test_a_gram_over_all_rows_is_that_of_each_output():
    """Of a projection `[in, heads, head]`, seen as `[in * heads, head]`."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(9, 3)), rng.normal(size=(3, 2, 4))
    gram = scoring.over_rows(x.T @ x, w.shape)
    seen = w.reshape(6, 4)
    change = np.einsum("ni,iho->nho", x, w)
    np.testing.assert_allclose(np.trace(seen.T @ gram @ seen), (change**2).sum())


@pytest.mark.slow
def test_a_convolution_in_groups_is_measured_and_rounded():
    class Grouped(nn.Module):
        classes: int = 3

        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Conv(4, (1, 1), name="mix")(x)
            x = nn.Conv(8, (3, 3), feature_group_count=4, name="depthwise")(x)
            return nn.Dense(self.classes, name="logits")(x.mean((1, 2))), {}

    net, start = network(Grouped())
    made = config("gptq", bits=3)
    given = measure(made, DATA, net, start)
    grams = given["gptq"]["grams"]
    assert grams["depthwise/kernel"].shape == (4, 9, 9)
    transform = chains.build(made, made.only, given).transform
    rounded = transform.decode(*transform.encode(start[0]))
    x = images(16)[0]
    change = [net(p, *start[1:], x)[0][0] for p in (start[0], rounded)]
    assert 0 < np.abs(change[0] - change[1]).max() < np.abs(change[0]).max()

    made = config("factorize", weighting="activations", rank=1, budget=0.0)
    with pytest.raises(
        errors.UserError, match="factorize: depthwise/kernel has inputs"
    ):
        measure(made, DATA, net, start)


def test_mistakes():
    made = config(score="snap")
    with pytest.raises(errors.UserError, match="unknown score 'snap'; did you mean"):
        check.stages(made, DATA)
    made = config("factorize", weighting="inputs")
    with pytest.raises(errors.UserError, match="unknown weighting of factorize"):
        check.stages(made, DATA)
    made = config("sparsegpt", pattern=".")
    with pytest.raises(errors.UserError) as e:
        check.stages(made, DATA)
    assert str(e.value) == (
        "sparsegpt: grams needs the inputs of dense_0/bias: enters no contraction as "
        "it is; leave it out of sparsegpt.pattern"
    )
    made = config(score="snip")
    with pytest.raises(errors.UserError, match="nothing measures it here"):
        chains.build(made, made.only)
    made.prune.batches = 0
    with pytest.raises(errors.UserError, match="prune.batches is at least 1, got 0"):
        check.settings(made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "technique, settings", [("prune", {"score": "snip"}), ("sparsegpt", {})]
)
def test_a_stage_that_is_started_again_ends_with_the_same_bytes(
    technique, settings, tmp_path
):
    made = config(technique, changes={"steps": 12}, **settings)
    made.update(dict(save_every=4, log_every=4, steps_per_call=4))
    (one,) = check.stages(made, DATA)

    def run(at, stop=lambda: False):
        workdir.claim(at, made)
        with metrics.MetricsWriter(at) as writer:
            stage.train(made, DATA, one, at, writer, stop)
        return workdir.artifact_path(at, "only").read_bytes()

    whole = run(tmp_path / "whole")
    with pytest.raises(interrupt.Interrupted):
        run(tmp_path / "again", stop=lambda: True)
    assert list((tmp_path / "again" / "checkpoints" / "only").glob("4*"))
    assert run(tmp_path / "again") == whole


@pytest.mark.slow
def test_a_network_of_a_pmap_axis_is_measured_without_it():
    """Statistics are taken alone: batch norm finds no axis to average over."""
    made = config(score="snip")
    net, start = network(jobs.cnn())
    given = measure(made, DATA, net, start)
    assert all((s >= 0).all() for s in given["prune"]["scores"].values())
    assert (
        program.unfed(net.apply, pattern="kernel")(
            *start[:2], jnp.zeros((1, *jobs.SHAPE)), train=False, key=None
        )
        == []
    )

"""Stages that cut: counts of papers, what is told before compute, and composition."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from configs import shrink as cuts
from configs.papers import filter_pruning, slimming
from experiments import (
    check,
    choices,
    packing,
    preparing,
    shrinking,
    stage,
    unit_scores,
    workdir,
)
from lib import errors, files, models, program, shrink, tree
from lib.deploy import artifact
from lib.report import metrics
from lib.shrink import curves
from lib.train import step
from tests.experiments import test_preparing

DATA = test_preparing.DATA


def outlined(config, shape, classes=10):
    """Returns the groups and the plan of a config's cut, by shapes alone."""
    name = next(n for n in config.stages if config[n].prepare)
    settings = dict(config[config[name].start].model)
    module = models.build(settings.pop("name"), classes=classes, **settings)
    params, variables = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), shape)
    )
    weights = {"params": params, "variables": variables}
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    network = step.Network(models.make_apply(module))
    plan = shrinking.outlined("shrink", config.shrink, network, weights, images)
    groups = shrink.groups(shrinking.logits(network))(weights, images)
    small = jax.eval_shape(lambda w: shrink.cut(plan, w), weights)
    return groups, weights["params"], small["params"]


def kernels(params):
    return sum(x.size for p, x in tree.flatten(params).items() if "kernel" in p)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "params", "macs", "percents"),
    [
        # Table 1 of Li et al. 2017: A -9.4 % and -10.4 %, B -13.7 % and -27.6 %; the
        # exact counts are of weights without batch norm, filters rounded up.
        ("", 769_466, 112.44e6, (9.4, 10.4)),
        ("b", 732_026, 90.91e6, (13.8, 27.6)),
    ],
)
def test_resnet56_loses_what_the_paper_counts(variant, params, macs, percents):
    config = filter_pruning.get_config(variant)
    groups, large, small = outlined(config, (32, 32, 3))
    bias = 10
    assert kernels(large) + bias == 848_954
    assert kernels(small) + bias == params
    scores = {g.name: np.arange(g.size) for g in groups.groups}
    rules = shrinking.rules(config.shrink)
    removed = shrink.by_fraction(groups, scores, rules)
    before, after = shrink.macs(groups, {}), shrink.macs(groups, removed)
    np.testing.assert_allclose([before, after], [125.49e6, macs], rtol=1e-4)
    assert round(100 * (1 - params / 848_954), 1) == percents[0]
    assert round(100 * (1 - after / before), 1) == percents[1]


def test_slimming_leaves_the_papers_layers():
    _, large, small = outlined(slimming.get_config(), (28, 28, 1))
    widths = [small[f"dense_{i}"]["kernel"].shape for i in (0, 1)]
    assert widths == [(784, 100), (100, 60)]
    assert (kernels(large), kernels(small)) == (545_000, 85_000)


def config(**changes):
    made = common.base(stages=("dense", "small"))
    made.dense = common.stage(
        model=common.model("resnet", depth=8, widths=(4, 6, 8)), steps=0, batch_size=8
    )
    made.small = common.stage(start="dense", prepare=("shrink",), steps=0, batch_size=8)
    made.update(changes)
    return made


def trained(made, at):
    check.settings(made)
    stages = check.stages(made, DATA)
    workdir.claim(at, made)
    with metrics.MetricsWriter(at) as writer:
        for one in stages:
            stage.train(made, DATA, one, at, writer, lambda: False)
    paths = {one.name: workdir.artifact_path(at, one.name) for one in stages}
    return stages, {name: packing.load(path) for name, path in paths.items()}


@pytest.mark.slow
def test_each_stage_cuts_what_the_one_before_has_left(tmp_path):
    """Cut, trained and distilled from the uncut model, cut again, pruned, in 8 bits."""
    made = config()
    made.stages = ("dense", "small", "smaller", "packed")
    learns = dict(teacher="dense", objective=("cross_entropy", "distill"))
    with made.unlocked():
        made.smaller = common.stage(
            start="small",
            prepare=("shrink", "reestimate", "fold_batch_norm"),
            steps=2,
            batch_size=8,
            **learns,
        )
        made.packed = common.stage(
            start="smaller",
            transforms=("prune", "quantize"),
            program=("fake_quantize",),
            steps=2,
            batch_size=8,
        )
    made.reestimate.batches = 2
    made.prune.update(schedule="", sparsity=0.5)
    made.small.update(steps=2, **learns)
    stages, found = trained(made, tmp_path)
    width = {k: one.params["conv"]["kernel"].shape[-1] for k, one in found.items()}
    assert width == {"dense": 4, "small": 2, "smaller": 1, "packed": 1}
    record = files.read_json(workdir.record_path(tmp_path, "smaller"))
    assert 0 <= record["metrics"]["masked_minus_small"] < 1e-3
    cut = {one["name"]: (one["size"], one["kept"]) for one in record["cut"]}
    assert cut["conv"] == (2, 1) and cut["block_2_0/conv_0"] == (4, 2)
    # What the file holds builds the network again, which runs on the file's weights.
    last = found["packed"]
    module = stages[-1].module
    packing.check(last, module, DATA.shape)
    network = packing.network(last.about, module)
    images = jnp.zeros((2, *DATA.shape))
    logits = network(last.params, last.variables, last.ranges, images)[0][0]
    assert logits.shape == (2, DATA.classes) and np.isfinite(logits).all()
    kernel = last.params["conv"]["kernel"]
    flat = tree.flatten(last.params).items()
    zeros = [np.asarray(x) == 0 for p, x in flat if p.endswith("kernel")]
    assert np.concatenate([z.ravel() for z in zeros]).mean() >= 0.45
    wrong = last._replace(params={**last.params, "conv": {"kernel": kernel[..., :0]}})
    with pytest.raises(errors.UserError, match="params/conv/kernel"):
        packing.check(wrong, module, DATA.shape)


@pytest.mark.slow
def test_a_dropped_branch_is_gone_from_the_file(tmp_path):
    made = config()
    made.small.prepare = ("drop", "shrink")
    made.drop.update(pattern="block_1", batches=1)
    made.small.steps = 2  # the statistics of what is left are updated
    _, found = trained(made, tmp_path)
    paths = tree.flatten(found["small"].params)
    assert not any(path.startswith("block_1_0/") for path in paths)
    assert found["small"].params["block_2_0"]["conv_0"]["kernel"].shape[-1] == 4
    plan = packing.cut(found["small"].about)
    assert len(plan.dropped) == 10
    about = artifact.metadata(workdir.artifact_path(tmp_path, "small"))
    assert shrink.from_plain(about["cut"]).plain() == plan.plain()


@pytest.mark.slow
@pytest.mark.parametrize("score", sorted(unit_scores.SCORES))
def test_every_score_chooses_units(score):
    at = test_preparing.scene()
    at = at._replace(loss=lambda params, batch: _loss(at, params, batch))
    settings = common.base().shrink
    settings.update(score=score, batches=1, fraction=0.5)
    made = shrinking.units(at, settings, None)
    shapes = {p: x.shape for p, x in tree.flatten(made.weights).items()}
    before = {p: x.shape for p, x in tree.flatten(at.params).items()}
    assert shapes["params/logits/kernel"][0] * 2 == before["logits/kernel"][0]
    assert made.metrics["masked_minus_small"] < 1e-4


def _logits(at, params, batch):
    images = batch["input"]
    return at.network.apply(params, at.variables, images, train=False, key=None)[0][0]


def _loss(at, params, batch):
    return jnp.mean(_logits(at, params, batch) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("scope", unit_scores.SCOPES)
def test_a_budget_of_operations_is_met(scope):
    at = test_preparing.scene()
    settings = common.base().shrink
    settings.update(budget="macs", target=0.5, scope=scope)
    made = shrinking.units(at, settings, None)
    weights = {"params": at.params, "variables": at.variables}
    images = next(at.batches(1))["input"]
    f = shrinking.logits(at.network)
    whole = sum(s.macs for s in program.sites(f)(weights, images))
    small = shrink.resize(f, made.plan)
    left = sum(s.macs for s in program.sites(small)(made.weights, images))
    assert 0.25 * whole < left <= 0.5 * whole


@pytest.mark.slow
def test_curves_are_how_far_outputs_move_with_units_at_zero():
    at = test_preparing.scene()
    f, weights = shrinking.logits(at.network), shrinking._weights(at)
    groups = shrink.groups(f)(weights, next(at.batches(1))["input"])
    settings = common.base().shrink
    settings.update(scope="curves", batches=2)
    first = unit_scores.SCORES["l1"](at, f, groups, weights, settings)
    found = unit_scores.of_all(at, f, groups, first, weights, settings)

    def move(params, batch):
        return np.square(_logits(at, params, batch) - _logits(at, at.params, batch))

    costs = {}
    for group in groups.groups:
        costs[group.name] = []
        for n in curves.counts(group.size):
            gone = np.argsort(first[group.name], kind="stable")[:n]
            flat = tree.flatten(weights)
            for member in group.members:
                w = np.array(flat[member.path])
                for unit in gone:
                    for place in member.index[unit]:
                        np.moveaxis(w, member.axis, 0)[place] = 0
                flat[member.path] = w
            params = tree.unflatten(flat)["params"]
            moves = [np.mean(move(params, batch)) for batch in at.batches(2)]
            costs[group.name].append(float(np.mean(moves)))
    assert all(cost[-1] > cost[0] == 0 for cost in costs.values())
    wanted = curves.by_curve(groups, first, costs)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    assert len({*np.concatenate([*found.values()])}) == sum(map(len, found.values()))


def test_equal_kernels_are_cut_alike():
    at = test_preparing.scene()
    params = dict(at.params)
    kernel = params["conv_1_0"]["kernel"]
    weights = {"params": {"a": kernel, "b": kernel, "c": kernel + 1}, "variables": {}}
    pairs = shrink.twins(weights)
    assert pairs == [("params/a", "params/b")]

    def f(weights, x):
        p = weights["params"]
        y = x @ p["a"][0, 0] @ p["c"][0, 0].T
        return (y @ p["b"][0, 0]) @ p["c"][0, 0].T @ jnp.ones((kernel.shape[2], 1))

    x = jnp.ones((2, kernel.shape[2]))
    loose = shrink.groups(f)(weights, x)
    tied = shrink.groups(f, alike=pairs)(weights, x)
    both = [g for g in tied.groups if {"params/a", "params/b"} <= set(g.paths())]
    assert both and len(tied.groups) <= len(loose.groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "taylr"}, "did you mean 'taylor'"),
        ({"fraction": 1.5}, "or by group a whole number of units, got 1.5"),
        ({"fraction": 2.0, "scope": "global"}, "in [0, 1), or by group a whole"),
        ({"scope": "globl"}, "unknown scope of shrink 'globl'; did you mean 'global'"),
        ({"multiple": 0}, "multiple and floor are at least 1"),
        ({"budget": "mac"}, "did you mean 'macs'"),
        ({"budget": "macs", "target": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"rules": (("conv",),)}, "shrink.rules is pairs"),
        ({"rules": (("ab", "0.5"),)}, "shrink.rules is pairs"),
        ({"rules": (("a(", 0.5),)}, "no regular expression"),
        ({"pattern": "conv_9"}, "rule 'conv_9' matches nothing; nearest"),
        ({"batches": 0}, "shrink.batches is at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_told_before_compute(settings, message):
    made = config()
    made.shrink.update(settings)
    with pytest.raises(errors.UserError, match=re.escape(message)):
        check.settings(made)
        check.stages(made, DATA)


def test_more_branches_than_there_are_cannot_be_dropped():
    made = config()
    made.small.prepare = ("drop",)
    made.drop.count = 4
    with pytest.raises(errors.UserError, match="drop.count is 4, but there are 3 res"):
        check.stages(made, DATA)
    made.drop.count = 0
    with pytest.raises(errors.UserError, match="drop.count is at least 1, got 0"):
        preparing.check(made, made.small)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["", "iterative", "slimming", "growing", "macs", "depth", "heads"]
)
def test_every_variant_of_the_config_is_sound(variant):
    made = cuts.get_config(variant)
    check.settings(made)
    stages = check.stages(made, DATA)
    assert [one.name for one in stages] == list(made.stages)
    known = bool(stages[-1].cut.cuts)  # before any compute, as far as shapes tell
    assert known == (made.shrink.scope == "group" and variant != "depth")


@pytest.mark.slow
def test_a_network_that_was_cut_trains_on_several_devices(tmp_path):
    made = config(parallel="pmap")
    made.dense.model = common.model("cnn", widths=(4, 6))
    made.small.update(steps=2, batch_size=8)
    _, found = trained(made, tmp_path / "pmap")
    made.parallel = "jit"
    _, alone = trained(made, tmp_path / "jit")
    for name, x in tree.flatten(found["small"].params).items():
        other = tree.get(alone["small"].params, name)
        np.testing.assert_allclose(x, other, atol=1e-3, err_msg=name)


def test_a_restart_cuts_as_before_whatever_it_would_choose_now(tmp_path):
    at = test_preparing.scene()
    settings = common.base().shrink
    settings.update(score="random", seed=1)
    start = preparing.Prepared(at.params, at.variables, shrinking.NONE)
    asked = test_preparing.config("shrink", shrink=settings.to_dict())

    def prepared(seed):
        asked.shrink.seed = seed
        kept = choices.Choices(tmp_path / "small.choices.json")
        now = preparing.prepare(
            asked, asked.only, start, lambda now: at, lambda now: None, kept
        )
        return now.plan.plain()

    first = prepared(1)
    assert prepared(2) == first
    (tmp_path / "small.choices.json").unlink()
    assert prepared(2) != first


class _Tied(nn.Module):
    """A statistic of the hidden units that only training reads."""

    classes: int = DATA.classes

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Dense(8)(images.reshape((images.shape[0], -1))))
        mean = self.variable("stats", "mean", jnp.zeros, (8,))
        if train:
            mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
        return nn.Dense(self.classes)(x), {}


def test_what_training_alone_ties_is_told_before_it_trains():
    at = test_preparing.scene(_Tied())
    with pytest.raises(errors.UserError, match="cannot be (kept|removed) as the plan"):
        shrinking.units(at, common.base().shrink, None)


def test_groups_that_no_rule_takes_need_no_score():
    at = test_preparing.scene()
    settings = common.base().shrink
    settings.update(score="scale", rules=(("^conv_0_0$", 0.5),))
    made = shrinking.units(at, settings, None)
    told = {change.name: change.why for change in made.changes}
    assert told["conv_1_0"] == "no rule takes it"
    assert [(c["name"], c["kept"] < c["size"]) for c in made.cut] == [
        ("conv_0_0", True),
        ("conv_1_0", False),
    ]


@pytest.mark.slow
def test_a_budget_of_milliseconds_is_looked_for_on_this_machine():
    # Wide enough for the products, not the call, to take the time.
    module = models.build("cnn", classes=DATA.classes, widths=(256,), depth=2)
    at = test_preparing.scene(module)
    settings = common.base().shrink
    settings.update(budget="latency", target=0.6)
    made = shrinking.units(at, settings, None)
    assert all(one["kept"] < one["size"] for one in made.cut)
    assert made.metrics["masked_minus_small"] < 1e-2

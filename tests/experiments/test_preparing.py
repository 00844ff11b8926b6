"""What a stage does to its weights before all else, by the names in its config."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from experiments import (
    check,
    packing,
    preparing,
    scoring,
    shrinking,
    stage,
    workdir,
)
from lib import errors, models, tree
from lib.data import dataset, splits
from lib.report import metrics
from lib.train import step
from tests.train import jobs

ALL = tuple(n for n in preparing.PREPARATIONS if n not in ("shrink", "drop"))
DATA = dataset.Dataset(
    "toy",
    jobs.split(),
    jobs.split(splits.Validation, 16),
    jobs.split(splits.Test, 16),
    jobs.CLASSES,
    jobs.SHAPE,
    jobs.NORMALISATION,
)


def config(*prepare, **settings):
    made = common.base(stages=("only",))
    made.only.prepare = prepare
    for name in ("smooth", "awq", "correct_bias", "reestimate"):
        made[name].batches = 2
    made.awq.points = 3
    made.update(settings)
    return made


def scene(module=None):
    """A batch-norm CNN with lively norms, and batches of noise."""
    module = module or jobs.cnn()
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), jobs.SHAPE))
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda x: jnp.asarray(
            rng.uniform(0.2, 1, x.shape) - 0.3 * (x.ndim > 1), x.dtype
        ),
        shapes,
    )

    def batches(count, names=()):
        assert not names
        rng = np.random.default_rng(1)
        for i in range(count):
            images = rng.normal(size=(16, *jobs.SHAPE)).astype(np.float32)
            yield {"input": jnp.asarray(images), "key": jax.random.key(i)}

    network = step.Network(models.make_apply(module))
    return scoring.Scene(network, *weights, {}, None, batches, jobs.EXAMPLE)


def rounded(params, variables):
    """Kernels on a grid of quarters, rounded down."""
    flat = tree.flatten(params)
    return tree.unflatten(
        {p: jnp.floor(x * 4) / 4 if x.ndim > 1 else x for p, x in flat.items()}
    )


def logits(at, params, variables):
    run = jax.jit(lambda *args: at.network(*args)[0][0])
    return run(params, variables, {}, next(at.batches(1))["input"])


def prepared(asked, at):
    """Returns (params, variables) after the preparations that a config asks for."""

    def scene_of(now):
        return at._replace(params=now.params, variables=now.variables)

    start = preparing.Prepared(at.params, at.variables, shrinking.NONE)
    now = preparing.prepare(
        asked,
        asked.only,
        start,
        scene_of,
        lambda now: rounded(now.params, now.variables),
    )
    assert now.plan == shrinking.NONE
    return now.params, now.variables


@pytest.mark.slow
def test_all_of_them_left_to_right(capsys):
    at, asked = scene(), config(*ALL[:4])
    before = logits(at, at.params, at.variables)
    params, variables = prepared(asked, at)
    after = logits(at, params, variables)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(ALL[:4])
    folded, equal, smoothed, _ = lines
    assert "changed 2 of 3: CNN/conv_0_0, CNN/conv_1_0; left as they are: " in folded
    assert "CNN/logits (no product by channel" in folded
    assert "CNN/conv_0_0 (its input is the program's)" in equal
    assert "changed 2 of 3: CNN/conv_1_0, CNN/logits" in smoothed

    now = at._replace(params=params, variables=variables)
    asked = config(*ALL[4:])
    params, variables = prepared(asked, now)
    for name in ("conv_0_0", "conv_1_0", "logits"):
        np.testing.assert_array_equal(
            params[name]["kernel"], now.params[name]["kernel"]
        )
    raw = logits(now, rounded(now.params, variables), now.variables)
    raw = np.abs(raw - before).mean()
    put = np.abs(logits(now, rounded(params, variables), variables) - before).mean()
    assert put < 0.5 * raw
    images = [batch["input"] for batch in at.batches(2)]
    kernel = rounded(params, variables)["conv_0_0"]["kernel"]
    y = [
        jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        for x in images
    ]
    stats = variables["batch_stats"]["norm_0_0"]
    mean, var = (np.mean([m(b, (0, 1, 2)) for b in y], 0) for m in (np.mean, np.var))
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("prepare", "settings", "message"),
    [
        (("fold_batchnorm",), {}, "did you mean 'fold_batch_norm'"),
        (("smooth",), {"smooth": {"alpha": 2.0}}, "smooth.alpha is from 0 to 1"),
        (("awq",), {"awq": {"points": 1}}, "awq.points is at least 2, got 1"),
        (("reestimate",), {"reestimate": {"batches": 0}}, "at least 1, got 0"),
        (("reestimate",), {"reestimate": {"augment": ("flop",)}}, "mean 'flip'"),
        (("smooth",), {"smooth": {"pattern": "("}}, "no regular expression"),
        (
            ("awq",),
            {"only": {"transforms": ("gptq",)}},
            "awq tries many scales, and gp",
        ),
    ],
)
def test_settings_are_judged_without_a_model(prepare, settings, message):
    asked = config(*prepare, **settings)
    with pytest.raises(errors.UserError, match=message):
        preparing.check(asked, asked.only)


def test_what_does_not_fit_the_model_is_an_error_before_compute():
    def outlined(module, *prepare, **settings):
        asked = config(*prepare, **settings)
        shapes = jax.eval_shape(
            lambda: models.init(module, jax.random.key(0), jobs.SHAPE)
        )
        start = preparing.Prepared(*shapes, shrinking.NONE)
        apply = models.make_apply(module)
        return preparing.outline(asked, asked.only, apply, start, jobs.EXAMPLE)

    outlined(jobs.cnn(), *ALL)
    with pytest.raises(errors.UserError, match="keeps no running statistics"):
        outlined(jobs.mlp(), "reestimate")
    with pytest.raises(errors.UserError, match="'conv_7' matches nothing"):
        outlined(jobs.cnn(), "correct_bias", correct_bias={"pattern": "conv_7"})


@pytest.mark.slow
def test_a_stage_without_steps_is_prepared_rounded_and_packed(tmp_path, capsys):
    names = ("fold_batch_norm", "correct_bias", "reestimate")
    made = config(*names, reestimate={"augment": ("shift",)})
    made.only.model = common.model("cnn", widths=(4,))
    made.only.update(dict(transforms=("quantize",), steps=0, batch_size=8))
    (one,) = check.stages(made, DATA)
    workdir.claim(tmp_path, made)
    with metrics.MetricsWriter(tmp_path) as writer:
        stage.train(made, DATA, one, tmp_path, writer, lambda: False)
    told = capsys.readouterr().out
    assert all(f"\n{name}: changed " in told for name in names)
    packed = packing.load(workdir.artifact_path(tmp_path, "only"))
    norm, stats = packed.params["norm_0_0"], packed.variables["batch_stats"]["norm_0_0"]
    assert np.abs(stats["mean"]).min() > 0
    kernel = packed.params["conv_0_0"]["kernel"]
    assert all(len(np.unique(kernel[..., c])) <= 15 for c in range(4))  # 4 bits
    assert np.abs(norm["bias"]).min() > 0  # what rounding shifted

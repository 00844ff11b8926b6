"""What holds of every term that a teacher or an exit takes part in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, objectives
from tests.objectives import samples

TERMS = sorted((objectives.NEEDS_TEACHER | {"self_distill"}) - {"distill"})


MADE = {name: samples.term(name) for name in TERMS}


def heads_of_all():
    return {name: samples.heads_of(made) for name, made in MADE.items()}


@pytest.mark.slow
def test_an_example_of_weight_0_does_not_count_whatever_it_is():
    heads = heads_of_all()

    def cut(x):
        return x[samples.KEPT]

    def spoilt(outputs):
        logits, features = jax.tree.map(np.copy, outputs)
        for x in (logits, *features.values()):
            if x.dtype == float:
                x[4:] = np.nan
        return logits, features

    def values(student, teacher, batch):  # of all terms: one program
        return {
            name: made(student, batch, samples.PARAMS, teacher, *heads[name])
            for name, made in MADE.items()
        }

    both = samples.STUDENT, samples.TEACHER
    batch = {k: jnp.asarray(samples.BATCH[k]) for k in ("label", "weight")}
    few = jax.tree.map(cut, batch)
    wanted = jax.jit(values)(*(samples.floats(jax.tree.map(cut, x)) for x in both), few)
    found = jax.jit(values)(*(samples.floats(spoilt(x)) for x in both), batch)
    for name in TERMS:
        assert np.isfinite(wanted[name]) and abs(wanted[name]) > 1e-3, name
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_gradients_reach_the_student_and_heads_but_not_the_teacher():
    batch = {k: jnp.asarray(v) for k, v in samples.BATCH.items()}
    mask = {"mask": jnp.asarray(samples.MASK)}

    def split(outputs):
        logits, features = samples.floats(outputs)
        return (logits, {k: v for k, v in features.items() if k != "mask"})

    def slopes(student, teacher, heads):
        def loss(name, student, teacher, heads):
            both = (
                (logits, features | mask) for logits, features in (student, teacher)
            )
            student, teacher = both
            return MADE[name](student, batch, samples.PARAMS, teacher, *heads)

        slope = jax.grad(loss, argnums=(1, 2, 3))
        return {n: slope(n, student, teacher, heads[n]) for n in TERMS}

    args = split(samples.STUDENT), split(samples.TEACHER), heads_of_all()
    for name, (student, teacher, own) in jax.jit(slopes)(*args).items():
        for leaf in jax.tree.leaves((student, own)):
            assert np.isfinite(leaf).all(), name
        assert any(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(student)), name
        for leaf in jax.tree.leaves(teacher):
            np.testing.assert_array_equal(leaf, 0, err_msg=name)
        for head in jax.tree.leaves(own):
            assert np.abs(head).max() > 0, name


@pytest.mark.parametrize("name", sorted(objectives.NEEDS_FEATURES - {"minilm"}))
def test_an_unknown_feature_is_named_with_the_valid_ones(name):
    student, teacher = samples.floats(samples.STUDENT), samples.floats(samples.TEACHER)
    for whose, pair in (
        ("student", ("poolde", "pooled")),
        ("teacher", ("pooled", "poolde")),
    ):
        made = samples.term(name, pairs=(pair,))
        with pytest.raises(errors.UserError) as caught:
            if isinstance(made, objectives.Headed):
                made.init(jax.random.key(0), student, teacher)
            else:
                made(student, samples.BATCH, {}, teacher)
        assert str(caught.value).startswith(
            f"term {name!r}: the {whose} has no feature 'poolde'; did you mean "
            "'pooled'? valid: block_0, "
        )


@pytest.mark.parametrize("pairs", [(), "pooled", ("pooled", "pooled"), ((1, 2),)])
def test_what_is_no_pair_is_named(pairs):
    with pytest.raises(errors.UserError, match="hint.pairs: expected pairs"):
        samples.term("hint", pairs=pairs)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hint", dict(pairs=(("pooled", "stage_0"),)), "expected 2 or 4 axes of both"),
        ("attention_transfer", dict(pairs=samples.POOLED), "expected 4 axes of both"),
        ("hidden", dict(projection="identity"), "set projection='learned'"),
        ("minilm", dict(student=2), "has no feature 'scores_2'.*valid"),
        ("minilm", dict(heads=3), "has 4 elements, which do not split"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name, changes, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        samples.value(samples.term(name, **changes))
    assert f"term '{name}'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dkd", dict(temperature=0)),
        ("dist", dict(inter=-1.0)),
        ("crd", dict(negatives="none")),
        ("crd", dict(size=0)),
        ("correlation", dict(order=0)),
        ("attention_transfer", dict(power=0.5)),
        ("born_again", dict(kind="plain")),
        ("hidden", dict(distance="l1")),
        ("hidden", dict(tokens="last")),
        ("embeddings", dict(projection="none")),
        ("minilm", dict(relations=())),
        ("minilm", dict(relations=("values",))),
        ("self_distill", dict(features="stage_0")),
        ("self_distill", dict(share=2.0)),
    ],
)
def test_a_setting_out_of_its_range_is_one_line(name, changes):
    with pytest.raises(errors.UserError) as caught:
        samples.term(name, **changes)
    assert "\n" not in str(caught.value)


def test_mixed_labels_are_refused():
    batch = {**samples.BATCH, "target": samples.STUDENT[0]}
    for name in ("dkd", "crd"):
        with pytest.raises(errors.UserError, match="one label an example"):
            samples.value(samples.term(name), batch=batch)

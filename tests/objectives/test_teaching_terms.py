"""What holds of every term that a teacher or an exit takes part in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, objectives
from tests.objectives import samples

TERMS = sorted((objectives.NEEDS_TEACHER | {"self_distill"}) - {"distill"})


@pytest.mark.parametrize("name", TERMS)
def test_an_example_of_weight_0_does_not_count_whatever_it_is(name):
    made = samples.term(name)
    heads = samples.heads_of(made)

    def cut(x):
        return x[samples.KEPT]

    def spoilt(outputs):
        logits, features = jax.tree.map(np.copy, outputs)
        for x in (logits, *features.values()):
            if x.dtype == float:
                x[4:] = np.nan
        return logits, features

    few = {k: samples.BATCH[k][samples.KEPT] for k in ("label", "weight")}
    small = (jax.tree.map(cut, x) for x in (samples.STUDENT, samples.TEACHER))
    want = samples.value(made, *small, few, heads)
    got = samples.value(
        made, spoilt(samples.STUDENT), spoilt(samples.TEACHER), heads=heads
    )
    assert np.isfinite(want) and abs(want) > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_gradients_reach_the_student_and_heads_but_not_the_teacher(name):
    made = samples.term(name)
    heads = samples.heads_of(made)
    batch = {k: jnp.asarray(v) for k, v in samples.BATCH.items()}

    def split(outputs):
        logits, features = samples.floats(outputs)
        return (logits, {k: v for k, v in features.items() if k != "mask"})

    def loss(student, teacher, heads):
        mask = {"mask": jnp.asarray(samples.MASK)}
        student = (student[0], {**student[1], **mask})
        teacher = (teacher[0], {**teacher[1], **mask})
        return made(student, batch, samples.PARAMS, teacher, *heads)

    args = split(samples.STUDENT), split(samples.TEACHER), heads
    student, teacher, own = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*args)
    for leaf in jax.tree.leaves((student, own)):
        assert np.isfinite(leaf).all()
    assert any(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(student))
    for leaf in jax.tree.leaves(teacher):
        np.testing.assert_array_equal(leaf, 0)
    for head in jax.tree.leaves(own):
        assert np.abs(head).max() > 0


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

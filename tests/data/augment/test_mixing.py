"""Batches mixed in pairs, against loops over the examples.

`jax.random.beta` takes over a second to compile, so that most tests share a program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib import errors
from lib.data import augment

KEY = jax.random.key(3)
CLASSES, COUNT, SIDE = 4, 64, 16
DATA = {"kind": "image", "classes": CLASSES}
RNG = np.random.default_rng(0)
EYE = np.eye(CLASSES)


def batch_of(count):
    return {
        "input": RNG.normal(size=(count, SIDE, SIDE, 1)).astype(np.float32),
        "label": RNG.integers(0, CLASSES, count).astype(np.int32),
        "weight": np.ones(count, np.float32),
    }


BATCH = batch_of(COUNT)


@functools.cache
def compiled(name):
    @jax.jit
    def mix(key, batch, first, alpha, probability):
        make = augment.MIXINGS[name]
        return make(alpha=alpha, probability=probability, classes=CLASSES)(
            key, batch, first
        )

    return mix


def run(name, batch=BATCH, first=0, alpha=1.0, probability=1.0, key=KEY):
    got = compiled(name)(
        key, batch, first, jnp.float32(alpha), jnp.float32(probability)
    )
    return jax.tree.map(np.asarray, got)


def pair_of(i):
    return i - 1 if i % 2 else i + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", augment.MIXINGS)
@pytest.mark.parametrize("nothing", [{"alpha": 0.0}, {"probability": 0.0}])
def test_no_strength_is_the_identity_bit_for_bit(name, nothing):
    got = run(name, **nothing)
    assert got.keys() == {*BATCH, "target"}
    for field, value in BATCH.items():
        np.testing.assert_array_equal(got[field], value)
    np.testing.assert_array_equal(got["target"], EYE[BATCH["label"]])
    assert got["target"].dtype == np.float32


def test_mixup_is_the_formula():
    got = run("mixup")
    shares = []
    for i in range(COUNT):
        mine, other = BATCH["input"][i], BATCH["input"][pair_of(i)]
        share = np.median((got["input"][i] - other) / (mine - other))
        want = share * mine + (1 - share) * other
        np.testing.assert_allclose(got["input"][i], want, atol=1e-5)
        label, second = BATCH["label"][[i, pair_of(i)]]
        want = share * EYE[label] + (1 - share) * EYE[second]
        np.testing.assert_allclose(got["target"][i], want, atol=1e-5)
        shares.append(share)
    assert 0 <= min(shares) < 0.1 and 0.9 < max(shares) <= 1
    np.testing.assert_array_equal(got["label"], BATCH["label"])


def drawn(name, **strengths):
    """Returns the shares of a few thousand examples, read off their targets."""
    batch = {**BATCH, "label": np.tile(np.int32([0, 1]), COUNT // 2)}
    keys = jax.random.split(KEY, 50)
    targets = [run(name, batch, key=key, **strengths)["target"] for key in keys]
    return np.stack(targets)[:, np.arange(COUNT), batch["label"]].ravel()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_of_mixup_are_beta(alpha):
    shares = drawn("mixup", alpha=alpha)
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01  # Beta's variance


def test_as_many_are_mixed_as_asked():
    assert abs((drawn("mixup", probability=0.3) < 1).mean() - 0.3) < 0.03


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    got = run("cutmix")
    sizes = set()
    for i in range(COUNT):
        mine, other = BATCH["input"][i], BATCH["input"][pair_of(i)]
        pasted = (got["input"][i] == other).all(-1)
        np.testing.assert_array_equal(got["input"][i][~pasted], mine[~pasted])
        rows, columns = pasted.any(1), pasted.any(0)
        np.testing.assert_array_equal(pasted, rows[:, None] & columns)
        for line in (rows, columns):  # without a gap
            assert (np.diff(np.flatnonzero(line)) == 1).all()
        share = 1 - pasted.mean()
        label, second = BATCH["label"][[i, pair_of(i)]]
        want = share * EYE[label] + (1 - share) * EYE[second]
        np.testing.assert_allclose(got["target"][i], want, atol=1e-6)
        sizes.add(int(pasted.sum()))
    assert len(sizes) > 20


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_areas_of_cutmix_are_the_papers(alpha):
    """Against a loop over its equation 2, on a picture drawn pixel by pixel."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(10_000):
        side = int(SIDE * np.sqrt(1 - rng.beta(alpha, alpha)))
        lengths = []
        for centre in rng.integers(0, SIDE, 2):
            start = centre - side // 2
            lengths.append(min(start + side, SIDE) - max(start, 0))
        shares.append(1 - lengths[0] * lengths[1] / SIDE**2)
    got = drawn("cutmix", alpha=alpha)
    levels = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
        np.quantile(got, levels), np.quantile(shares, levels), atol=0.06
    )


@settings(max_examples=10)
@given(hnp.arrays(bool, COUNT), st.sampled_from(sorted(augment.MIXINGS)))
def test_padding_is_not_mixed_in(real, name):
    batch = {**BATCH, "weight": real.astype(np.float32), "input": BATCH["input"].copy()}
    batch["input"][~real] = np.nan
    got = run(name, batch)
    for i in range(COUNT):
        if not (real[i] and real[pair_of(i)]):
            np.testing.assert_array_equal(got["input"][i], batch["input"][i])
            np.testing.assert_array_equal(got["target"][i], EYE[batch["label"][i]])
    assert np.isfinite(got["input"][real]).all()
    np.testing.assert_allclose(got["target"].sum(-1), 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", augment.MIXINGS)
def test_even_parts_are_mixed_as_the_whole(name):
    """As on two devices; a part begins at `first`."""
    whole = run(name)
    half = COUNT // 2
    parts = [{k: v[i : i + half] for k, v in BATCH.items()} for i in (0, half)]
    got = [run(name, part, i * half) for i, part in enumerate(parts)]
    for field, want in whole.items():
        joined = np.concatenate([part[field] for part in got])
        np.testing.assert_allclose(joined, want, atol=1e-6)


def test_the_last_of_an_odd_part_stays():
    odd = {k: v[:5] for k, v in BATCH.items()}
    got, whole = run("mixup", odd), run("mixup")
    np.testing.assert_array_equal(got["input"][4], odd["input"][4])
    np.testing.assert_allclose(got["target"][4], EYE[odd["label"][4]])
    np.testing.assert_allclose(got["input"][:4], whole["input"][:4], atol=1e-6)


def test_what_is_mixed_is_mixed_again():
    once = run("mixup")
    twice = run("cutmix", once)
    alone = run("cutmix")
    for i in range(COUNT):
        other = once["input"][pair_of(i)]
        pasted = alone["input"][i] == BATCH["input"][pair_of(i)]
        want = np.where(pasted, other, once["input"][i])
        np.testing.assert_array_equal(twice["input"][i], want)
        share = 1 - pasted.mean()
        want = share * once["target"][i] + (1 - share) * once["target"][pair_of(i)]
        np.testing.assert_allclose(twice["target"][i], want, atol=1e-6)


def test_mixings_in_turn_have_keys_of_their_own():
    def noted(key, batch, first):
        return {**batch, "seen": [*batch["seen"], jax.random.key_data(key)]}

    got = augment.in_turn(noted, noted)(KEY, {"seen": []}, 0)["seen"]
    for i, data in enumerate(got):
        want = jax.random.key_data(jax.random.fold_in(KEY, i))
        np.testing.assert_array_equal(data, want)


def test_a_label_without_a_class_is_not_silent():
    batch = {**BATCH, "label": BATCH["label"].copy()}
    batch["label"][5] = CLASSES
    got = run("mixup", batch)
    assert np.isnan(got["target"][4:6]).all()
    assert np.isfinite(got["target"][6:]).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"alpha": -1.0}, "mixup.alpha"),
        ({"probability": 1.1}, "mixup.probability must lie in"),
    ],
)
def test_bad_settings(changes, message):
    given = {"mixup": {"alpha": 1.0, "probability": 1.0, **changes}}
    with pytest.raises(errors.UserError, match=message):
        augment.build(("mixup",), given, **DATA)


def test_the_two_kinds_are_told_apart():
    given = {
        "mixup": {"alpha": 1.0, "probability": 1.0},
        "flip": {"probability": 1.0},
    }
    both = augment.build(("mixup", "flip"), given, **DATA)
    assert both.images is not None and both.mixing is not None
    assert augment.build(("flip",), given, **DATA).mixing is None
    assert augment.build(("mixup",), given, **DATA).images is None
    assert augment.build((), given, **DATA) == (None, None)


@pytest.mark.parametrize("kind", ["text", "table"])
def test_other_kinds_of_data_have_none(kind):
    assert augment.build((), {}, kind=kind, classes=2) == (None, None)
    for name in (*augment.AUGMENTATIONS, *augment.MIXINGS):
        with pytest.raises(errors.UserError, match=f"{name}.* not '{kind}'"):
            augment.build((name,), {}, kind=kind, classes=2)

"""The small program is the large one with zeros, on every model of the zoo."""

import jax
import pytest

from lib import program, shrink
from tests.shrink import models
from tests.shrink.cuts import close, cut, cut_by, same

FAST = ("mlp", "fused_qkv", "reshaped")
SLOW = [n for n in models.NAMES if n not in FAST]
EVERY = [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]
# Those with batch norm or a mode of training, but no dropout: random bits are drawn at
# the small sizes, so that the draws differ.
_TRAINED = "lenet5 cnn resnet20 bottleneck resnext densenet unet squeeze_excite".split()
TRAINS = ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in _TRAINED)]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_results_and_gradients(name):
    same(cut(name), cut(name).case.x)


@pytest.mark.parametrize("name", EVERY)
def test_sites_and_their_macs(name):
    """Sites keep their names, and count what `macs` says of the large program."""
    one = cut(name)
    large = program.sites(one.case.f)(one.case.weights, one.case.x)
    small = program.sites(one.f)(one.weights, one.case.x)
    assert [s.name for s in small] == [s.name for s in large]
    assert [s.primitive for s in small] == [s.primitive for s in large]
    assert shrink.macs(one.groups, {}) == sum(s.macs for s in large)
    left = sum(s.macs for s in small)
    assert shrink.macs(one.groups, one.removed) == left
    assert left < sum(s.macs for s in large) or name == "weight_norm"


@pytest.mark.parametrize("name", TRAINS)
def test_training(name):
    """Batch statistics, and what they leave in the running ones, are cut alike."""
    one = cut(name)
    key = jax.random.key(0)
    large, new = jax.jit(one.case.train)(one.masked, one.case.x, key)
    f = jax.jit(shrink.resize(one.case.train, one.plan))
    small, small_new = f(one.weights, one.case.x, key)
    close(small, large)
    if new:
        wanted = cut_by(one.plan, {**one.masked, "variables": new})["variables"]
        close(small_new, wanted)

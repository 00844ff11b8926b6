"""The laws of the packed file: what is saved is what is loaded, to the last bit."""

import dataclasses
import json
import math
import os
import resource
import struct
import zlib

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, formats, tree
from lib import representations as reps
from lib.deploy import artifact, reader

BFLOAT16 = np.dtype(jnp.bfloat16)
IN_JAX = [
    *map(np.dtype, ["?", "i1", "i2", "i4", "u1", "u2", "u4", "f2", "f4"]),
    BFLOAT16,
]
ALL = [*IN_JAX, *map(np.dtype, ["i8", "u8", "f8"])]
ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
# JAX compiles each operation anew for each shape: a few are enough for what it does.
FEW_SHAPES = st.sampled_from([(), (5,), (4, 6), (2, 1, 3, 4), (3, 0)])


# --- Random representations -----------------------------------------------------


@st.composite
def any_bits(draw, shape, dtype):
    """An array of any bits: NaNs of any payload, infinities, -0.0, subnormals."""
    count = math.prod(shape)
    data = draw(st.binary(min_size=count * dtype.itemsize, max_size=None))
    data = np.frombuffer(data[: count * dtype.itemsize], np.uint8)
    if dtype.kind == "b":
        return (data % 2).astype(bool).reshape(shape)
    return data.view(dtype).reshape(shape)


@st.composite
def tame(draw, shape, dtype):
    """Whole numbers over 16: normal, exact, and no overflow in any sum."""
    whole = draw(hnp.arrays(np.int8, shape, elements=st.integers(-100, 100)))
    return (whole / 16).astype(dtype)


@st.composite
def quantized(draw, shape, dtype):
    bits = draw(st.integers(2, 8))
    affine = draw(st.booleans())
    rows = math.prod(shape[:-1])
    groups = [0]
    if shape and math.prod(shape):
        groups += [g for g in range(1, rows + 1) if rows % g == 0]
    group = draw(st.sampled_from(groups))
    view = (rows // group, group, shape[-1]) if group else shape
    scale_shape = tuple(draw(st.sampled_from([1, n])) for n in view)
    high = 2**bits - 1 if affine else 2 ** (bits - 1) - 1
    elements = st.integers(0 if affine else -high, high)
    codes = draw(hnp.arrays(np.uint8 if affine else np.int8, shape, elements=elements))
    steps = draw(hnp.arrays(np.uint8, scale_shape, elements=st.integers(1, 255)))
    scale = (steps / 37).astype(dtype)
    zero = None
    if affine:
        zero = draw(hnp.arrays(np.uint8, scale_shape, elements=elements))
    return reps.Quantized(codes, scale, zero, bits, group)


@st.composite
def levels(draw, shape, dtype):
    """Codes of a format, with the scales of some grid of the same shape."""
    grid = draw(quantized(shape, dtype))
    name = draw(st.sampled_from(sorted(formats.FORMATS)))
    elements = st.integers(0, len(formats.FORMATS[name]) - 1)
    codes = draw(hnp.arrays(np.uint8, shape, elements=elements))
    return reps.Levels(codes, grid.scale, name, grid.group)


@st.composite
def codebook(draw, shape, values):
    count = draw(st.sampled_from([1, 2, 3, 5, 16, 17, 300]))
    dtype = np.uint8 if count <= 256 else np.uint16
    indices = draw(hnp.arrays(dtype, shape, elements=st.integers(0, count - 1)))
    book = draw(values((count,)))
    return reps.Codebook(indices, reps.Dense(book) if draw(st.booleans()) else book)


@st.composite
def vectors(draw, shape, values):
    """A codebook of vectors, of a weight with at least one axis."""
    rows = math.prod(shape[:-1])
    d = draw(st.sampled_from([d for d in range(1, rows + 1) if rows % d == 0] or [1]))
    elements = st.integers(0, 4)
    indices = draw(hnp.arrays(np.uint8, (rows // d, shape[-1]), elements=elements))
    return reps.Codebook(indices, draw(values((5, d))), shape)


@st.composite
def representation(draw, shape, dtypes, *, factors, depth=3):
    """A nest of representations of one `shape`; `factors` is None, "any" or "tame"."""
    kinds = ["Dense", "Quantized", "Levels", "Codebook"]
    if depth:
        kinds.append("Sparse")
        if shape:
            kinds.append("vectors")
        if factors:
            kinds += ["Sum"] + ["LowRank"] * (len(shape) >= 2)
            kinds += ["Tucker", "CP"] * (len(shape) == 4)
    kind = draw(st.sampled_from(kinds))
    dtype = draw(st.sampled_from(dtypes))
    bits = tame if factors == "tame" else any_bits
    floats = [d for d in dtypes if d.kind == "f" or d == BFLOAT16]
    if kind == "Dense":
        return reps.Dense(draw(bits(shape, dtype)))
    if kind == "Quantized":
        return draw(quantized(shape, draw(st.sampled_from(floats))))
    if kind == "Levels":
        return draw(levels(shape, draw(st.sampled_from(floats))))
    if kind == "Codebook":
        return draw(codebook(shape, lambda s: bits(s, dtype)))
    if kind == "vectors":
        return draw(vectors(shape, lambda s: bits(s, dtype)))

    def below(shape):
        return draw(representation(shape, dtypes, factors=factors, depth=depth - 1))

    if kind == "Sparse":
        return reps.sparse(draw(hnp.arrays(bool, shape)), below(shape))
    rank = 3
    shapes = {
        "Sum": (shape, shape),
        "LowRank": ((*shape[:-1], rank), (rank, *shape[-1:])),
        "Tucker": ((*shape[2:3], 2), (*shape[:2], 2, rank), (rank, *shape[3:])),
        "CP": (*((n, rank) for n in shape[:3]), (rank, *shape[3:])),
    }
    return getattr(reps, kind)(*map(below, shapes[kind]))


def trees(dtypes, *, shapes, factors):
    leaves = shapes.flatmap(lambda s: representation(s, dtypes, factors=factors))
    names = st.text(min_size=1, max_size=4).filter(lambda name: "/" not in name)
    return st.dictionaries(
        names,
        st.one_of(leaves, st.dictionaries(names, leaves, max_size=2)),
        max_size=3,
    )


# --- Equality to the last bit ---------------------------------------------------


def assert_same(a, b):
    """Compares types, static fields, dtypes, shapes and bytes."""
    if isinstance(a, reps.Representation):
        assert type(a) is type(b)
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, np.ndarray | jax.Array):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    else:
        assert a == b and type(a) is type(b)


def widened(x):
    return x.astype(np.float32) if x.dtype == BFLOAT16 else x


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("artifact") / "model.pare"


@hypothesis.given(frozen=trees(ALL, shapes=ANY_SHAPE, factors="any"))
def test_load_of_save_is_the_same(path, frozen):
    nbytes = artifact.save(path, frozen)
    assert nbytes == os.path.getsize(path)
    first = path.read_bytes()
    loaded = artifact.load(path)
    assert_same(loaded, frozen)
    artifact.save(path, loaded)
    assert path.read_bytes() == first


@hypothesis.given(frozen=trees(IN_JAX, shapes=FEW_SHAPES, factors=None))
def test_dense_weights_agree_to_the_last_bit(path, frozen):
    artifact.save(path, frozen)
    expected = artifact.materialize(frozen)
    assert_same(artifact.materialize(artifact.load(path)), expected)
    dense = reader.load(path)
    flat = {p: np.asarray(leaf) for p, leaf in tree.flatten(expected).items()}
    assert dense.keys() == flat.keys()
    for name, weight in flat.items():
        if weight.dtype == BFLOAT16:
            # Exact widening, NaN payloads included: 16 zero bits behind.
            bits = weight.view(np.uint16).astype(np.uint32) << 16
            weight = np.asarray(bits).view(np.float32)
        assert_same(dense[name], weight)


@hypothesis.given(frozen=trees([np.dtype("f4")], shapes=FEW_SHAPES, factors="tame"))
def test_products_of_factors_agree(path, frozen):
    artifact.save(path, frozen)
    expected = artifact.materialize(frozen)
    assert_same(artifact.materialize(artifact.load(path)), expected)
    dense = reader.load(path)
    leaves = tree.flatten(frozen)
    for name, weight in tree.flatten(expected).items():
        assert dense[name].dtype == weight.dtype
        # Sums run in another order: what cancels in one leaves its rounding behind.
        near = 1e-6 * (1 + largest(leaves[name]))
        np.testing.assert_allclose(dense[name], weight, rtol=1e-6, atol=near)


def largest(node):
    """No sum of absolute values within `node` is greater, ranks and axes being 3."""
    parts = [getattr(node, f.name) for f in dataclasses.fields(node)]
    parts = [p for p in parts if isinstance(p, reps.Representation)]
    if isinstance(node, reps.LowRank | reps.Tucker | reps.CP):
        return 3 ** len(parts) * math.prod(map(largest, parts))
    if isinstance(node, reps.Sum | reps.Sparse):
        return sum(map(largest, parts))
    return np.max(np.abs(artifact.materialize({"w": node})["w"]), initial=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_of_half_floats_agree(path, dtype):
    rng = np.random.default_rng(0)
    u, v = (rng.normal(size=s).astype(dtype) for s in ((9, 4), (4, 7)))
    frozen = {"w": reps.LowRank(reps.Dense(u), reps.Dense(v))}
    artifact.save(path, frozen)
    expected = np.asarray(artifact.materialize(frozen)["w"])
    # One unit in the last place: the sums run in another order.
    tolerance = float(jnp.finfo(dtype).eps)
    dense = reader.load(path)["w"]
    assert dense.dtype == widened(expected).dtype
    np.testing.assert_allclose(
        dense.astype(np.float32),
        expected.astype(np.float32),
        rtol=tolerance,
        atol=tolerance,
    )


def test_a_format_of_another_table_or_name_is_refused(path):
    codes, scale = np.zeros((2, 2), np.uint8), np.ones((1, 1), np.float32)
    content = {}
    for name in ("nf4", "nf5"):
        table = struct.pack("<2f", -1, 2)
        leaf = ["f", name, 0, ["f4", [2]], ["u1", [2, 2], 1], ["f4", [1, 1]]]
        path.write_bytes(seal({"w": leaf}, table + b"\0" + scale.tobytes()))
        np.testing.assert_array_equal(reader.load(path)["w"], [[-1, -1], [-1, -1]])
        with pytest.raises(errors.UserError) as e:
            artifact.load(path)
        content[name] = str(e.value)
    assert "its format 'nf4' of 2 levels is not the one of that name" in content["nf4"]
    assert "unknown format in an artifact 'nf5'; did you mean 'nf4'" in content["nf5"]
    artifact.save(path, {"w": reps.Levels(codes, scale, "nf4")})
    assert_same(artifact.load(path)["w"].codes, codes)


def test_odd_floats_survive(path):
    bits = np.array([0x7FC00001, 0xFF800001, 0x80000000, 1, 0x7F800000], np.uint32)
    frozen = {
        "f4": bits.view(np.float32),
        "bf": (bits >> 16).astype(np.uint16).view(BFLOAT16),
        "f2": np.array([0x7E01, 0x8000, 1], np.uint16).view(np.float16),
        "scalar": np.float32(-0.0),
        "empty": np.zeros((3, 0, 2), np.int64),
        "on device": jnp.arange(4),
    }
    artifact.save(path, frozen)
    assert_same(artifact.load(path), {k: reps.of(x) for k, x in frozen.items()})


# --- The file -------------------------------------------------------------------


def seal(tree, body, metadata=None):
    """A file as its docstring has it."""
    header = json.dumps([tree, metadata or {}], separators=(",", ":")).encode()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=reader.DICTIONARY)
    header = deflater.compress(header) + deflater.flush()
    assert len(header) < 128
    prefix = b"PARE" + struct.pack("<H", 2)
    rest = bytes([len(header)]) + header + body
    return prefix + struct.pack("<I", zlib.crc32(prefix + rest)) + rest


def test_file_literal(path):
    frozen = {"b": np.array([1, -2], np.float32)}
    expected = seal({"b": ["d", ["f4", [2]]]}, struct.pack("<2f", 1, -2))
    assert artifact.save(path, frozen) == len(expected) < 50
    assert path.read_bytes() == expected


def test_even_codes_take_exactly_their_bits():
    """Which no entropy coder can better: all are equally frequent."""
    rng = np.random.default_rng(0)
    for bits in range(2, 9):
        codes = rng.permutation(np.arange(2560) % 2**bits).reshape(40, 64)
        codes = codes.astype(np.uint8)
        scale = np.ones((1, 1), np.float32)
        rep = reps.Quantized(codes, scale, np.full((1, 1), 1, np.uint8), bits)
        (row,) = reader.parse(artifact.pack({"w": rep}), "")[2]
        assert row.nbytes == 2560 * bits // 8 + 4 + 1
    for count, bits in [(1, 0), (2, 1), (16, 4), (256, 8)]:
        indices = rng.permutation(np.arange(2560) % count).astype(np.uint16)
        centroids = rng.integers(0, 2**16, count).astype(np.uint16).view(np.float16)
        rep = reps.Codebook(indices, centroids)
        (row,) = reader.parse(artifact.pack({"w": rep}), "")[2]
        assert row.nbytes <= 2560 * bits // 8 + 2 * count


def test_one_code_for_all_takes_a_few_bytes():
    tenths = np.full((300, 72), 0.1, np.float32)
    book = reps.Dense(np.zeros(65536, np.float32))
    same = {
        "codes": reps.Quantized(np.ones((300, 70), np.int8), np.float32(2), None, 4),
        "indices": reps.Codebook(np.full((300, 71), 65535, np.uint16), book),
        "kept": reps.Sparse(np.ones((300, 72), bool), reps.Dense(tenths)),
        "removed": reps.Sparse(np.zeros(9000, bool), reps.Dense(np.zeros(9000))),
        "ones": np.ones(5000, np.float32),
    }
    for row in reader.parse(artifact.pack(same), "")[2]:
        assert row.nbytes <= 24, row


def mlp(sizes):
    """A 90 %-sparse 4-bit MLP, and its dense weights."""
    rng = np.random.default_rng(0)
    frozen = {}
    for i, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        mask = rng.permutation(n * m).reshape(n, m) < n * m // 10
        codes = rng.integers(-7, 8, (n, m)).astype(np.int8)
        scale = rng.uniform(0.1, 1, (1, m)).astype(np.float32)
        kernel = reps.sparse(mask, reps.Quantized(codes, scale, None, 4))
        bias = rng.normal(size=m).astype(np.float32)
        frozen[f"Dense_{i}"] = {"kernel": kernel, "bias": bias}
    return {"params": frozen, "variables": {}, "ranges": {}}


def test_overhead_is_small():
    blob = artifact.pack(mlp([64, 300, 100, 10]), {"accuracy": 0.97, "seed": 0})
    rows = reader.parse(blob, "")[2]
    assert len(blob) - sum(row.nbytes for row in rows) < 150
    weights, kept, scales, biases = 50_200, 5_020, 410, 410
    entropy = weights * (-0.1 * math.log2(0.1) - 0.9 * math.log2(0.9))
    floats = 4 * (scales + biases)
    assert len(blob) < (entropy + kept * math.log2(15)) * 1.02 / 8 + floats + 150


def test_equal_arrays_are_stored_once():
    w = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    mask = w > 1
    rep = reps.sparse(mask, reps.Dense(w))
    one = len(artifact.pack({"a": rep, "b": w}))
    many = {"a": rep, "b": w, "c": {"tied": w.copy(), "mask": rep}}
    assert one < len(artifact.pack(many)) < one + 50
    assert_same(
        reader.parse(artifact.pack(many), "")[0]["c"]["tied"].fields["values"], w
    )


def test_bytes_do_not_depend_on_order_or_name(tmp_path):
    frozen = mlp([4, 3, 2])
    backwards = {key: frozen[key] for key in reversed(frozen)}
    backwards["params"] = dict(reversed(frozen["params"].items()))
    artifact.save(tmp_path / "a", frozen, {"x": 1, "y": 2})
    artifact.save(tmp_path / "b", backwards, {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]  # and nothing beside them


def test_metadata_and_empty_dicts_come_back(path):
    metadata = {"accuracy": 0.5, "classes": ["zéro", "un"], "nested": {"a": None}}
    artifact.save(path, mlp([4, 3]), metadata)
    assert artifact.metadata(path) == metadata
    assert artifact.load(path)["ranges"] == {}
    artifact.save(str(path), {})
    assert artifact.load(str(path)) == {}
    assert artifact.metadata(path) == {}


def test_uncleared_values_are_cleared(path):
    mask = np.array([True, False, True])
    values = np.array([1, 2, -0.0], np.float32)
    artifact.save(path, {"w": reps.Sparse(mask, reps.Dense(values))})
    assert_same(artifact.load(path)["w"], reps.sparse(mask, reps.Dense(values)))


def test_mask_over_mask_and_over_factors(path):
    outer = np.array([[True, False], [True, True]])
    inner = np.array([[True, True], [False, True]])
    factor = reps.Dense(np.full((2, 2), 3, np.float32))
    frozen = {
        "masks": reps.Sparse(outer, reps.sparse(inner, factor)),
        "factors": reps.sparse(outer, reps.LowRank(factor, factor)),
    }
    artifact.save(path, frozen)
    assert_same(artifact.load(path), frozen)
    assert reader.load(path)["masks"].tolist() == [[3, 0], [0, 3]]
    assert reader.load(path)["factors"].tolist() == [[18, 0], [18, 18]]


# --- Mistakes -------------------------------------------------------------------


def test_load_names_the_file_and_what_is_wrong(tmp_path):
    path = tmp_path / "model.pare"
    with pytest.raises(errors.UserError, match="model.pare: No such file") as e:
        artifact.load(path)
    assert "\n" not in str(e.value)
    with pytest.raises(errors.UserError, match="Is a directory"):
        artifact.metadata(tmp_path)
    artifact.save(path, mlp([4, 3]))
    blob = path.read_bytes()
    path.write_bytes(blob[:-1])
    with pytest.raises(errors.UserError, match="model.pare: truncated or altered: "):
        artifact.load(path)
    path.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    with pytest.raises(errors.UserError, match="altered: the checksum does not hold"):
        artifact.load(path)
    path.write_bytes(b"PARE" + struct.pack("<H", 3) + blob[6:])
    with pytest.raises(errors.UserError, match="version 3 is newer"):
        artifact.load(path)
    path.write_text("hello")
    with pytest.raises(errors.UserError, match="no Pare artifact"):
        artifact.load(path)


@pytest.mark.parametrize(
    "leaf",
    [np.zeros(2, np.complex64), np.array(["a"]), jnp.zeros(2, jnp.float8_e4m3fn)],
)
def test_dtypes_without_a_place_are_named(path, leaf):
    with pytest.raises(errors.UserError, match="a/b: dtype .*valid: bool, int8"):
        artifact.save(path, {"a": {"b": leaf}})


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": np.zeros(2)}])
def test_metadata_is_json(path, metadata):
    with pytest.raises(errors.UserError, match="metadata is what JSON can hold"):
        artifact.save(path, {}, metadata)


@pytest.mark.parametrize(
    "tree", [{"a/b": np.ones(2)}, {"a": [1, 2]}, {1: 2}, np.ones(2)]
)
def test_trees_are_nested_dicts(path, tree):
    with pytest.raises(TypeError):
        artifact.save(path, tree)


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("rep", "what"),
    [
        (reps.Quantized(np.full((2, 3), 8, np.int8), ONES, None, 4), "do not fit 4"),
        (reps.Quantized(np.zeros((2, 3), np.int8), ONES[:1, :2], None, 4), "broadcast"),
        (reps.Quantized(np.zeros((2, 3), np.int8), ONES, None, 4, 5), "groups of 5"),
        (reps.Codebook(np.full(3, 4, np.uint8), np.ones(4, np.float32)), "do not fit"),
        (reps.Codebook(np.full(3, 3, np.uint8), np.ones(3, np.float32)), "outside"),
        (reps.Sparse(ONES, reps.Dense(ONES)), "a mask is bool"),
        (reps.Sparse(np.ones(3, bool), reps.Dense(ONES)), "mask .* over a weight"),
        (reps.LowRank(reps.Dense(ONES), reps.Dense(ONES)), "do not multiply"),
    ],
)
def test_broken_representations_are_not_written(tmp_path, rep, what):
    with pytest.raises(ValueError, match=f"layer/kernel: .*{what}"):
        artifact.save(tmp_path / "a", {"layer": {"kernel": rep}})
    assert os.listdir(tmp_path) == []


def test_save_into_what_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a", "/proc/a"):
        with pytest.raises(errors.UserError, match=f"cannot write {path}: "):
            artifact.save(path, mlp([4, 3]))


def test_save_over_a_directory_leaves_it(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(errors.UserError, match="cannot write"):
        artifact.save(tmp_path / "a", mlp([4, 3]))
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_save_into_a_read_only_directory(tmp_path):
    artifact.save(tmp_path / "a", {"w": np.ones(3)})
    before = (tmp_path / "a").read_bytes()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(errors.UserError, match="Permission denied"):
            artifact.save(tmp_path / "a", mlp([4, 3]))
    finally:
        tmp_path.chmod(0o700)
    assert (tmp_path / "a").read_bytes() == before


def test_save_without_space_keeps_the_old_file(tmp_path):
    path = tmp_path / "a"
    artifact.save(path, {"w": np.ones(3)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(errors.UserError, match="cannot write .*large"):
            artifact.save(path, mlp([64, 30]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def test_large_headers_are_compressed(path):
    frozen = {f"layer_{i}": {"bias": np.zeros(3, np.float32)} for i in range(200)}
    artifact.save(path, frozen)
    assert path.stat().st_size < 900
    assert_same(artifact.load(path), jax.tree.map(reps.of, frozen))


def test_ties_are_references(path):
    w = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    params = {"out": {"kernel": w}, "in": reps.Tied("out/kernel")}
    frozen = {"params": params, "variables": {"again": reps.Tied("params/in")}}
    artifact.save(path, frozen)
    loaded = artifact.load(path)
    assert_same(loaded["params"]["in"], reps.Tied("out/kernel"))
    thawed = artifact.materialize(loaded["params"])
    np.testing.assert_array_equal(thawed["in"], w)
    whole = tree.flatten(artifact.materialize(loaded))
    for name, weight in reader.load(path).items():
        np.testing.assert_array_equal(weight, w, err_msg=name)
        np.testing.assert_array_equal(whole[name], w, err_msg=name)
    rows = {row.path: row for row in artifact.listing(path)}
    assert rows["params/in"].nbytes == rows["variables/again"].nbytes == 0
    assert rows["params/in"].shape == (30, 20)


@pytest.mark.parametrize("tree", [{"a": "b"}, {"a": "a"}, {"a": "b", "b": "a"}])
def test_ties_to_nothing_are_refused(path, tree):
    ties = {key: reps.Tied(other) for key, other in tree.items()}
    with pytest.raises(ValueError, match="a: tied to ., which is not a weight of its"):
        artifact.save(path, ties)


def test_the_listing_tells_sparsity(path):
    mask = np.arange(40).reshape(4, 10) % 4 == 0
    sparse = reps.sparse(mask, reps.Dense(np.ones((4, 10), np.float32)))
    full = reps.Dense(np.ones((10, 4), np.float32))
    frozen = {"a": sparse, "b": reps.LowRank(sparse, full), "c": full}
    frozen["d"] = reps.sparse(np.eye(4) > 0, frozen["b"])
    artifact.save(path, frozen)
    shares = [row.sparsity for row in artifact.listing(path)]
    assert shares == [0.75, 0.375, 0, 0.375]

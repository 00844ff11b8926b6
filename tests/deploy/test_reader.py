"""The reader alone: without JAX, and on files that were damaged or forged."""

import json
import pathlib
import struct
import subprocess
import sys
import time
import zlib

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from lib import representations as reps
from lib.deploy import artifact, reader


def every_kind():
    rng = np.random.default_rng(0)
    mask = rng.random((8, 6)) < 0.3
    codes = rng.integers(0, 8, (8, 6)).astype(np.uint8)
    scale = rng.uniform(0.1, 1, (2, 1, 6)).astype(np.float32)
    zero = rng.integers(0, 8, (2, 1, 6)).astype(np.uint8)
    quantized = reps.Quantized(codes, scale, zero, 3, 4)
    book = reps.Codebook(codes, rng.normal(size=8).astype(np.float32))
    return {
        "params": {
            "bias": jnp.asarray([1.5, -2.25], jnp.bfloat16),
            "codes": reps.sparse(mask, quantized),
            "factors": reps.LowRank(reps.sparse(mask, book), reps.Dense(np.eye(6))),
            "signed": reps.Quantized(
                np.array([[-7, 0, 7]], np.int8), np.float32([[0.5]]), None, 4
            ),
        },
        "variables": {"mean": np.zeros((), np.float32), "on": np.array([True])},
    }


def forge(tree, contents=(), metadata=None, lengths=None) -> bytes:
    """A file whose checksums hold, whatever its header says."""
    lengths = [len(c) for c in contents] if lengths is None else lengths
    return seal(json.dumps([tree, lengths, metadata or {}]).encode(), contents)


def seal(header: bytes, contents=()) -> bytes:
    prefix = struct.pack("<4sHI", b"PARE", 1, len(header))
    blob = prefix + struct.pack("<I", zlib.crc32(prefix + header)) + header
    for content in contents:
        blob += content + struct.pack("<I", zlib.crc32(content))
    return blob


def refuses(blob: bytes) -> str:
    with pytest.raises(reader.ArtifactError) as e:
        reader.parse(blob, "file.pare")
    message = str(e.value)
    assert message.startswith("file.pare: ") and "\n" not in message
    return message


# --- Alone ----------------------------------------------------------------------

ALONE = """
import sys
for name in ("jax", "jaxlib", "flax", "ml_dtypes", "lib"):
  sys.modules[name] = None  # importing it is an ImportError
sys.path.insert(0, {folder!r})
import numpy as np
import reader
np.savez({out!r}, **reader.load({path!r}))
"""


def test_the_reader_runs_alone(tmp_path):
    source = pathlib.Path(reader.__file__).read_text()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "reader.py").write_text(source)
    path, out = tmp_path / "model.pare", tmp_path / "out.npz"
    artifact.save(path, every_kind(), {"accuracy": 0.5})
    code = ALONE.format(folder=str(tmp_path / "copy"), out=str(out), path=str(path))
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", code], check=True)
    dense = np.load(out)
    expected = reader.load(path)
    assert set(dense.files) == set(expected)
    for name in dense.files:
        np.testing.assert_array_equal(dense[name], expected[name])
        assert dense[name].dtype == expected[name].dtype
    assert dense["params/bias"].dtype == np.float32
    assert dense["params/bias"].tolist() == [1.5, -2.25]

    printed = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "copy" / "reader.py"), str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = printed.splitlines()
    assert lines[0].split() == ["path", "representation", "shape", "bytes"]
    assert lines[2].split()[:5] == [
        "params/codes",
        "Sparse",
        "22.9%,",
        "Quantized",
        "3",
    ]
    assert lines[-2].split() == ["(file)", str(path.stat().st_size)]
    assert lines[-1] == 'metadata: {"accuracy": 0.5}'


def test_main_tells_mistakes_in_one_line(tmp_path, capsys):
    path = tmp_path / "a"
    path.write_bytes(b"PARE")
    for arguments in ([], [str(path)], [str(tmp_path / "absent")]):
        assert reader.main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1


def test_read_gives_nodes(tmp_path):
    artifact.save(tmp_path / "a", every_kind(), {"x": [1]})
    nodes, metadata = reader.read(tmp_path / "a")
    assert metadata == {"x": [1]}
    assert nodes["params"]["bias"].fields["values"].dtype == reader.BFLOAT16
    signed = nodes["params"]["signed"]
    assert (signed.kind, signed.fields["bits"]) == ("Quantized", 4)
    assert signed.fields["codes"].tolist() == [[-7, 0, 7]]
    assert reader.dense(signed).tolist() == [[-3.5, 0, 3.5]]


def test_listing_adds_up(tmp_path):
    w = np.arange(100, dtype=np.float32)
    nbytes = artifact.save(tmp_path / "a", {"a": w, "b": w, "c": w[:5]})
    rows = {row.path: row for row in reader.listing(tmp_path / "a")}
    assert [rows[name].nbytes for name in "abc"] == [404, 0, 24]  # b shares a's section
    assert rows["c"][:3] == ("c", "Dense float32", (5,))
    header = nbytes - 404 - 24
    assert header == len(artifact.pack({"a": w, "b": w, "c": w[:5]})) - 428 < 120


def test_rounding_to_bfloat16_is_the_one_of_ml_dtypes():
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    halves = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF], np.uint32)
    nans = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32)
    x = np.concatenate([bits, halves, nans]).view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = x.astype(jnp.bfloat16)
    found = reader._narrow(x).view(jnp.bfloat16)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    number = ~np.isnan(found)
    np.testing.assert_array_equal(
        found[number].view(np.uint16), expected[number].view(np.uint16)
    )


# --- Damage ---------------------------------------------------------------------


def test_every_flip_and_every_truncation_is_found():
    blob = artifact.pack(every_kind(), {"name": "x"})
    assert len(blob) < 2000
    for i in range(len(blob)):
        for bit in (1, 0x80, 0xFF):
            refuses(blob[:i] + bytes([blob[i] ^ bit]) + blob[i + 1 :])
        refuses(blob[:i])
    refuses(blob + b"\0")
    reader.parse(blob, "")


def test_versions():
    blob = artifact.pack({})
    assert "version 513 is newer than version 1" in refuses(b"PARE\1\2" + blob[6:])
    assert "version 0 is not one" in refuses(b"PARE\0\0" + blob[6:])
    assert "no Pare artifact" in refuses(b"hello, this is no artifact")
    assert "truncated" in refuses(b"")


# --- Forgery --------------------------------------------------------------------

F4 = [0, "f4", [2]]
EIGHT = [bytes(8)]


@pytest.mark.parametrize(
    ("leaf", "what"),
    [
        (["d", [0, "f4", [10**12]]], "unfolds to far more"),
        (["d", [0, "f4", [10**30, 0]]], "is no shape"),
        (["d", [0, "f4", [-2]]], "is no shape"),
        (["d", [0, "f4", [2.0]]], "is no shape"),
        (["d", [0, "f4", [1] * 64]], "is no shape"),
        (["d", [0, "f4", None]], "is no shape"),
        (["d", [0, "f4", [3]]], "8 bytes where its array takes 12"),
        (["d", [7, "f4", [2]]], "there is no section 7"),
        (["d", [-1, "f4", [2]]], "there is no section -1"),
        (["d", [0, "c8", [1]]], "unknown dtype 'c8'"),
        (["d", [0, "f4", [2], 32]], "f4 does not take 32 bits"),
        (["d", [0, "u1", [2], 10**9]], "does not take"),
        (["d", [0, {}, []]], "not described"),
        (["d"], "unknown representation"),
        (["x", F4], "unknown representation"),
        ("d", "unknown representation"),
        (None, "unknown representation"),
        (["q", 0, [0, "u1", [8], 8], [0, "f4", [2]], None], "broadcast"),
        (["q", 3, [0, "u1", [8, 1], 8], [0, "f4", [2]], None], "groups of 3"),
        (["q", -1, [0, "u1", [8], 8], [0, "f4", [2]], None], "groups of -1"),
        (["q", 0, [0, "u1", [8], 8], [0, "u4", [2]], None], "scales are floats"),
        (["q", 0, [0, "u1", [8], 8], [0, "f8", [1]], [0, "f8", [1]]], "zero points"),
        (["c", [0, "u1", [8], 8], [0, "f4", [2, 1]]], "not a list of values"),
        (["c", [0, "u1", [9**12], 0], [0, "f4", [2]]], "unfolds to far more"),
        (["s", [0, [64]], ["d", F4]], "differ in shape"),
        (["s", [0, [65]], ["d", F4]], "8 bytes where its array takes 9"),
        (["s", [0, [10**12], 0, 0], ["d", F4]], "unfolds to far more"),
        (["s", [0, [100], 10**9, 0], ["d", F4]], "do not fit its section"),
        (["s", [0, [100], 3, 0], ["d", F4]], "keeps 0 weights, not 3"),
        (["s", [0, [100], -1, 0], ["d", F4]], "do not fit its section"),
        (["s", [0, [100], 1, 99], ["d", F4]], "do not fit its section"),
        (["l", ["d", F4], ["d", F4]], "do not multiply"),
        (
            ["l", ["d", [0, "u1", [8, 1], 8]], ["d", [0, "u1", [1, 9]]]],
            "8 bytes where its array takes 9",
        ),
    ],
)
def test_forged_leaves(leaf, what):
    assert what in refuses(forge({"w": leaf}, EIGHT))


def test_forged_products_and_copies():
    empty = [b""]
    u, v = (["c", [0, "u1", s, 0], [1, "f4", [1]]] for s in ([2**20, 1], [1, 2**20]))
    assert "far more" in refuses(forge({"w": ["l", u, v]}, [b"", bytes(4)]))
    pruned = ["s", [0, [2**20], 0, 0], ["d", [0, "u1", None]]]
    many = {str(i): pruned for i in range(10_000)}
    header = zlib.compress(json.dumps([many, [0], {}]).encode())
    assert "far more" in refuses(seal(header, empty))


def test_forged_runs():
    stream = np.packbits([0] * 20 + [1], bitorder="little").tobytes()
    leaf = ["s", [0, [20], 1, 0], ["d", [1, "u1", None]]]
    assert "longer than the weight" in refuses(forge({"w": leaf}, [stream, b"x"]))
    leaf[1][1] = [21]
    (row,) = reader.parse(forge({"w": leaf}, [stream, b"x"]), "")[2]
    assert row.shape == (21,)
    low = (2**32 - 1).to_bytes(4, "little")
    leaf[1][2:] = [1, 32]
    assert "longer than the weight" in refuses(forge({"w": leaf}, [low + stream, b"x"]))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[",
        b"[]",
        b"[1,2,3]",
        b"[{},[],[]]",
        b"[{},[-4],{}]",
        b"[{},[1e9],{}]",
        b"[{},[" + b"9" * 6000 + b"],{}]",
        b"[" * 100_000,
        b"[\xff]",
        b'[{"a":' * 5000,
        zlib.compress(b"[{},[],{}]")[:-1],
        zlib.compress(b"[{},[],{}]") + b"x",
        zlib.compress(b"[" + b" " * 2**27),
        b"x\x9cnot zlib",
    ],
)
def test_forged_headers(header):
    refuses(seal(header))


JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**63, 10**20, 1.5, "f4", "u1", "b1", "bf2", "d", "s"]),
    st.lists(st.integers(0, 9), max_size=3),
    st.just({}),
)


def places(spec, here=()):
    """Every path into nested lists and dicts."""
    items = spec.items() if isinstance(spec, dict) else enumerate(spec)
    for key, child in items:
        yield (*here, key)
        if isinstance(child, list | dict):
            yield from places(child, (*here, key))


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.data())
def test_any_header_is_read_or_refused(data):
    blob = artifact.pack(every_kind())
    length = struct.unpack_from("<I", blob, 6)[0]
    header = json.loads(zlib.decompress(blob[14 : 14 + length]))
    contents = [bytes(c) for c in reader._verify(blob)[2]]
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(list(places(header))))
        spec = header
        for key in parents:
            spec = spec[key]
        spec[last] = data.draw(JSON)
    forged = seal(json.dumps(header).encode(), contents)
    start = time.perf_counter()
    try:
        nodes = reader.parse(forged, "file.pare")[0]
    except reader.ArtifactError as e:
        assert "\n" not in str(e)
    else:
        for _, node in reader._nodes(nodes):
            assert reader.dense(node).shape == reader.shape_of(node)
    assert time.perf_counter() - start < 5

"""The reader alone: without JAX, and on files that were damaged or forged."""

import base64
import functools
import json
import pathlib
import re
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
from lib.deploy import artifact, coder, reader


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


# What version 1 wrote of `every_kind()`.
VERSION_1 = base64.b64decode(
    "UEFSRQEA2wAAAAqEvVt42mWQwW6EMAxE/8XnUUVCoOn+SpSDCVAhsdBCqVQh/r2OYffQKgdH48mzM2Gn"
    "D174vtJtp2ZgqYFaQihATW/lYmOMoDS3nfZWkQyCRy1yoE+CEw9oM4RpG0eUIjtQ7/JbmNNXnoZLEE9m"
    "9py+5kWpo/T+ohP9B1cX2MeonrxpLZrXWqtK6/A+dW3GynYFwitoMMoWhIt5wkkxMOLP8HiAvnkZuBk7"
    "jeLe8fSI4u2yK3x+yiZHpFxpHEf+dY1KjvMoLaz3sBKOkyHYiVPaFk4/dCteqiP+AkLZZZPAPxDAVkOY"
    "qQ6oNAABQKMLEduYoby5Ab/Hx1yY2v5BCrELUNg0IP4+o4l1P6jGDD82Jfc+R38oP8jefj+TPHQ/K5gD"
    "P0QuSD/JNAw/tI0TPyClTj+8N83x2C1Bv6w02D97JJO+NobJPxuW3b6iSDy/vcd/PqgGhD/hGB9aAAAA"
    "AAAA8D8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADw"
    "PwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8D8AAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADwPwAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/KCM8sYEPZKb+8wAAAD8h"
    "8iKXAAAAABzfRCEBG98FpQ=="
)


def newer_kinds():
    """What version 1 had no place for."""
    rng = np.random.default_rng(1)

    def normal(*shape):
        return reps.Dense(rng.normal(size=shape).astype(np.float32))

    mask = rng.random((40, 30)) < 0.3 * np.arange(40)[:, None] / 40
    codes = np.minimum(rng.geometric(0.4, (40, 30)) - 1, 15).astype(np.uint8)
    book = reps.Codebook(
        codes, reps.Quantized(np.arange(-8, 8, dtype=np.int8), np.float32(0.5), None, 5)
    )
    kernel = reps.sparse(mask, book)
    return {
        "sum": reps.Sum(reps.LowRank(normal(40, 2), normal(2, 30)), kernel),
        "conv": {
            "low": reps.LowRank(normal(3, 3, 4, 2), normal(2, 5)),
            "tucker": reps.Tucker(normal(4, 2), normal(3, 3, 2, 3), normal(3, 5)),
            "cp": reps.CP(normal(3, 2), normal(3, 2), normal(4, 2), normal(2, 5)),
            "tied": reps.Tied("conv/cp"),
        },
        "product": reps.Codebook(codes[:10, :9], normal(16, 4), (2, 20, 9)),
        "levels": reps.Levels(codes[:8, :9] % 9, np.float32([[0.5]]), "pow2_4"),
        "twice": kernel,
    }


def forge(tree, contents=(), metadata=None, lengths=None) -> bytes:
    """A file of version 1 whose checksums hold, whatever its header says."""
    lengths = [len(c) for c in contents] if lengths is None else lengths
    return seal(json.dumps([tree, lengths, metadata or {}]).encode(), contents)


def seal(header: bytes, contents=()) -> bytes:
    prefix = struct.pack("<4sHI", b"PARE", 1, len(header))
    blob = prefix + struct.pack("<I", zlib.crc32(prefix + header)) + header
    for content in contents:
        blob += content + struct.pack("<I", zlib.crc32(content))
    return blob


def seal_2(header: bytes, body: bytes = b"", length=None) -> bytes:
    """A file of version 2 whose checksum holds, whatever its header says."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=reader.DICTIONARY)
    header = deflater.compress(header) + deflater.flush()
    length = len(header) if length is None else length
    rest = coder.varint(length) + header + body
    prefix = b"PARE" + struct.pack("<H", 2)
    return prefix + struct.pack("<I", zlib.crc32(rest, zlib.crc32(prefix))) + rest


def forge_2(tree, body=b"") -> bytes:
    return seal_2(json.dumps([tree, {}]).encode(), body)


@functools.cache
def sound() -> bytes:
    return artifact.pack(every_kind() | newer_kinds(), {"name": "x"})


def opened(blob: bytes) -> tuple:
    """The header's JSON and the body of a sound file of version 2."""
    tree, metadata, decoder = reader._open(blob)
    return [tree, metadata], bytes(decoder.stream.data)


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
    w = np.arange(100, dtype=np.float32) / 7
    nbytes = artifact.save(tmp_path / "a", {"a": w, "b": w, "c": w[:5]})
    rows = {row.path: row for row in reader.listing(tmp_path / "a")}
    assert rows["b"].nbytes == 0  # it shares a's array
    assert 100 < rows["a"].nbytes < 400 and rows["c"].nbytes <= 20
    assert rows["c"][:3] == ("c", "Dense float32", (5,))
    assert 10 < nbytes - rows["a"].nbytes - rows["c"].nbytes < 60


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


@pytest.mark.parametrize("version", [1, 2])
def test_every_flip_and_every_truncation_is_found(version):
    blob = VERSION_1 if version == 1 else sound()
    assert len(blob) < 3000
    for i in range(len(blob)):
        for bit in (1, 0x80, 0xFF):
            refuses(blob[:i] + bytes([blob[i] ^ bit]) + blob[i + 1 :])
        refuses(blob[:i])
    refuses(blob + b"\0")
    reader.parse(blob, "")


def test_versions():
    blob = artifact.pack({})
    assert "version 513 is newer than version 2" in refuses(b"PARE\1\2" + blob[6:])
    assert "version 0 is not one" in refuses(b"PARE\0\0" + blob[6:])
    assert "no Pare artifact" in refuses(b"hello, this is no artifact")
    assert "truncated" in refuses(b"")


def test_version_1_is_read(tmp_path):
    (tmp_path / "1").write_bytes(VERSION_1)
    artifact.save(tmp_path / "2", every_kind(), {"accuracy": 0.5})
    assert artifact.metadata(tmp_path / "1") == {"accuracy": 0.5}
    assert (tmp_path / "2").stat().st_size < len(VERSION_1)
    old, new = reader.load(tmp_path / "1"), reader.load(tmp_path / "2")
    assert old.keys() == new.keys()
    for name, weight in new.items():
        assert old[name].dtype == weight.dtype and old[name].shape == weight.shape
        assert old[name].tobytes() == weight.tobytes()
    artifact.save(tmp_path / "again", artifact.load(tmp_path / "1"), {"accuracy": 0.5})
    assert (tmp_path / "again").read_bytes() == (tmp_path / "2").read_bytes()


def test_newer_kinds_are_read(tmp_path):
    frozen = newer_kinds()
    artifact.save(tmp_path / "a", frozen)
    dense, expected = reader.load(tmp_path / "a"), artifact.materialize(frozen)
    for name, weight in dense.items():
        wanted = expected
        for key in name.split("/"):
            wanted = wanted[key]
        assert weight.dtype == wanted.dtype
        np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(dense["product"], expected["product"])
    rows = {row.path: row for row in reader.listing(tmp_path / "a")}
    what = {path: row.representation for path, row in rows.items()}
    assert what["conv/low"] == "LowRank 2 (Dense float32; Dense float32)"
    assert what["levels"] == "Levels pow2_4"
    np.testing.assert_array_equal(dense["levels"], expected["levels"])
    assert what["product"] == "Codebook of 16x4 (Dense float32)"
    assert what["twice"].endswith("Codebook of 16 (Quantized 5 bits)")
    assert what["conv/tied"] == "Tied to conv/cp" and rows["conv/tied"].nbytes == 0
    assert rows["conv/tied"].shape == rows["conv/cp"].shape == (3, 3, 4, 5)
    assert rows["sum"].nbytes > 0 == rows["twice"].nbytes


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


def read_or_refused(forged: bytes) -> None:
    start = time.perf_counter()
    try:
        nodes = reader.parse(forged, "file.pare")[0]
    except reader.ArtifactError as e:
        assert "\n" not in str(e)
    else:
        for _, node in reader._nodes(nodes):
            if node.kind != "Tied":
                assert reader.dense(node).shape == reader.shape_of(node)
    assert time.perf_counter() - start < 5


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.data(), st.sampled_from([1, 2]))
def test_any_header_is_read_or_refused(data, version):
    if version == 1:
        length = struct.unpack_from("<I", VERSION_1, 6)[0]
        header = json.loads(zlib.decompress(VERSION_1[14 : 14 + length]))
        contents = [bytes(c) for c in reader._open(VERSION_1)[2].sections]
    else:
        header, body = opened(sound())
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(list(places(header))))
        spec = header
        for key in parents:
            spec = spec[key]
        spec[last] = data.draw(JSON)
    plain = json.dumps(header).encode()
    read_or_refused(seal(plain, contents) if version == 1 else seal_2(plain, body))


@pytest.mark.slow
@hypothesis.settings(max_examples=150)
@hypothesis.given(st.data())
def test_any_body_is_read_or_refused(data):
    header, body = opened(sound())
    body = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    body = bytes(body) + bytes(data.draw(st.integers(0, 2)))
    read_or_refused(seal_2(json.dumps(header).encode(), body))


@pytest.mark.parametrize(
    ("leaf", "what"),
    [
        (["d", ["f4", [10**12]]], "unfolds to far more"),
        (["d", ["f4", [3]]], "takes 12 bytes where 8 are left"),
        (["d", ["f4", [1]]], "more in the file than in its header"),
        (["d", 0], "there is no array 0"),
        (["d", ["f4", None]], "is no shape"),
        (["d", ["f4", [2], 8]], "float32 is not stored as .8"),
        (["d", ["f4", [2], "x"]], "float32 is not stored as 'x'"),
        (["d", ["f8", [1], "n"]], "float64 is not stored as .n"),
        (["d", ["b1", [2], "x"]], "a mask is not stored as 'x'"),
        (["d", ["b1", [3, 2], "4"]], "a mask is not stored as '4'"),
        (["d", ["b1", [2], 1]], "bool is not stored as .1"),
        (["d", ["b1", [100], "g"]], "does not end where|keeps|left|gaps|more in"),
        (["q", 64, 0, ["u1", [4]], ["f4", []], None], "codes of 64 bits"),
        (["c", ["u1", [8]], ["f4", [0]]], "outside its codebook"),
        (["f", "x", 0, ["f4", [0]], ["u1", [4]], ["f4", []]], "outside its 0 levels"),
        (["f", "x", 0, ["f4", [1]], ["i1", [0]], ["f4", []]], "codes of .* are bytes"),
        (["f", "x", 0, ["f4", [1, 1]], ["u1", [0]], ["f4", []]], "a list of float32"),
        (["f", "x", 3, ["f4", [1]], ["u1", [4, 1], 0], ["f4", []]], "groups of 3"),
        (["f", 1, 0, ["f4", [1]], ["u1", [0]], ["f4", []]], "unknown representation"),
        (["d", ["u1", [4], True]], "a boolean stands where a number"),
        (["s", ["u1", [8]], ["d", 0]], "a mask is not of booleans"),
        (["+", ["d", ["f4", [2]]], ["d", ["f4", [0]]]], "not of one shape"),
        (["+", ["d", ["f4", [2]]]], "Sum does not take 1 parts"),
        (["u", *[["d", ["u1", [1, 1]]]] * 3], "do not multiply"),
        (["p", *[["d", ["u1", [1, 2]]]] * 4], "do not multiply"),
        (["p", ["d", ["f8", []]], *[["d", ["u1", [0]]]] * 3], "do not multiply"),
        (["+", ["t", "w"], ["t", "w"]], "stands alone"),
        (["t", "v"], "not a weight of its own"),
        (["t", "w"], "not a weight of its own"),
        (["t", 1], "stands alone"),
    ],
)
def test_forged_leaves_of_version_2(leaf, what):
    body = b"" if leaf[0] == "t" else bytes(8)
    assert re.search(what, refuses(forge_2({"w": leaf}, body)))


@pytest.mark.slow
def test_forged_streams():
    """Bits that promise more than there is to read or to hold."""
    ones = b"\xff" * 40
    for body in (bytes(40), ones, bytes(8) + ones):
        for how in "nm":
            refuses(forge_2({"w": ["d", ["f4", [10], how]]}, body))
        for how in "rg48":
            refuses(forge_2({"w": ["d", ["b1", [80, 10], how]]}, body))
    # One lane, and more symbols than one lane may have.
    head = coder.BitWriter()
    for number, bits in ((0, 10), (1, 1), (0, 4)):  # low, zeros, first = 0
        head.write(number, bits)
    head.golomb(1, 2)  # two symbols
    head.write(1, 4)  # that are equally frequent
    head.write(0, 3)
    head.golomb(1, 0)
    body = head.bytes() + bytes(30)
    for count, what in ((10**7, "steps"), (10**12, "far more")):
        assert what in refuses(forge_2({"w": ["d", ["u1", [count], "n"]]}, body))
    # Nothing but references to an array that is stored in no bytes.
    leaf = ["c", ["u1", [2**20], 0], ["f4", [1]]]
    many = {str(i): ["c", 0, 1] for i in range(10_000)} | {"!": leaf}
    plain = json.dumps([dict(sorted(many.items())), {}]).encode()
    assert "far more" in refuses(seal_2(plain, bytes(4)))


@pytest.mark.parametrize("plain", [b"", b"[", b"[1,2]", b"[{},{},{}]", b"[" * 10**5])
def test_forged_headers_of_version_2(plain):
    refuses(seal_2(plain))


@pytest.mark.slow
def test_forged_lengths_of_version_2():
    refuses(seal_2(b"[{},{}]", length=3))
    refuses(seal_2(b"[{},{}]", length=10**6))
    refuses(seal_2(b"[" + b" " * 2**27))

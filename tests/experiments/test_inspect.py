"""The listing of an artifact: what it prints, and what it says of a bad path."""

import numpy as np
import pytest

from configs import inspect as config_file
from experiments import inspect
from lib import errors
from lib import representations as reps
from lib.deploy import artifact


def config(path):
    found = config_file.get_config()
    found.path = str(path)
    return found


def test_it_prints_a_line_for_each_weight(tmp_path, capsys):
    mask = np.arange(1000).reshape(20, 50) % 10 == 0
    kernel = reps.sparse(mask, reps.Dense(np.ones((20, 50), np.float32)))
    frozen = {"params": {"bias": np.arange(4, dtype=np.float16), "kernel": kernel}}
    path = tmp_path / "a.pare"
    nbytes = artifact.save(path, frozen)
    rows = inspect.run(config(path))
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert out[0][0] == "path" and out[0][-1] == "bytes"
    bias, kernel = rows
    assert out[1] == ["params/bias", "Dense", "float16", "4", "16.00", "0.0", "8"]
    share = f"{8 * kernel.nbytes / 1000:.2f}"
    assert out[2][0] == "params/kernel" and out[2][-2:] == ["90.0", str(kernel.nbytes)]
    assert out[2][-3] == share
    total = bias.nbytes + kernel.nbytes
    assert out[3][:2] == ["(weights)", "1,004"] and out[3][-1] == str(total)
    assert out[4] == ["(header)", "-", "-", str(nbytes - total)]
    assert out[5][0] == "(file)" and out[5][-1] == str(nbytes)
    assert len({len(line) for line in inspect.lines(rows, nbytes)}) == 1


def test_it_names_what_it_cannot_read(tmp_path):
    with pytest.raises(errors.UserError, match="config.path is empty"):
        inspect.run(config(""))
    with pytest.raises(errors.UserError, match="cannot read artifact .*absent"):
        inspect.run(config(tmp_path / "absent"))
    (tmp_path / "a").write_bytes(b"PARE\2\0damaged")
    with pytest.raises(errors.UserError, match="artifact .*truncated or altered"):
        inspect.run(config(tmp_path / "a"))

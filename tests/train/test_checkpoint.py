"""Checkpoints: bit for bit there and back, and no damage that goes unnoticed."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors
from lib.train import checkpoint
from tests.train import jobs


def tree(seed=0):
    """Leaves of every kind that a state may hold, empty ones and containers too."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((3, 4)).astype(np.float32)
    values[0] = [-0.0, np.inf, 1e-45, 3.4e38]
    return {
        "float": jnp.asarray(values),
        "half": jnp.asarray(rng.standard_normal(5), jnp.bfloat16),
        "mask": jnp.asarray(rng.random((2, 3)) < 0.5),
        "codes": jnp.asarray(rng.integers(-128, 128, 7), jnp.int8),
        "bytes": jnp.asarray(rng.integers(0, 256, 7), jnp.uint8),
        "step": jnp.int32(rng.integers(2**31)),
        "nothing": jnp.zeros((0, 3), jnp.float32),
        "empty": {},
        "states": ((), {"leaf": ()}, None),
        "pair": (jnp.ones(2), [jnp.zeros((1, 1))]),
    }


@pytest.fixture
def make(tmp_path):
    """A function that opens checkpoints in a folder; `said` is what was told."""
    opened, said = [], []

    def make(folder="run"):
        one = checkpoint.Checkpoints(tmp_path / folder, said.append)
        opened.append(one)
        return one

    make.said = said
    yield make
    for one in opened:
        one.close()


def kept(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_everything_comes_back_bit_for_bit(make):
    feed = {"step": 7, "examples": 72, "grain": {"next_index": 112}}
    one = make()
    one.save(7, tree(), feed)
    one.wait()
    restored = make().restore(tree(seed=1))
    assert restored.step == 7 and restored.feed == feed
    jobs.same(restored.state, tree())
    assert make.said == []


def test_no_checkpoint_is_none(make):
    assert make().restore(tree()) is None
    assert make.said == []


def test_the_newest_and_the_best_are_kept(make, tmp_path):
    one = make()
    accuracies = {1: 0.5, 2: 0.9, 3: 0.2, 4: None, 5: 0.4, 6: 0.6}
    for step, accuracy in accuracies.items():
        one.save(step, tree(step), {}, accuracy)
    one.wait()
    assert kept(tmp_path / "run") == [2, 5, 6]
    other = make()  # another process remembers the accuracies
    assert other.restore(tree()).step == 6
    assert other.best(tree()).step == 2
    jobs.same(other.best(tree()).state, tree(2))
    other.save(7, tree(7), {}, 0.89)
    other.save(8, tree(8), {}, 0.9)  # as good, and later
    other.save(9, tree(9), {})
    other.save(10, tree(10), {}, 0.1)
    other.wait()
    assert kept(tmp_path / "run") == [8, 9, 10]
    assert make().best(tree()).step == 8


def test_without_a_validated_checkpoint_there_is_no_best(make):
    one = make()
    one.save(1, tree(), {})
    with pytest.raises(errors.UserError, match="no sound checkpoint that was valid"):
        one.best(tree())


def test_a_step_that_is_there_is_left_as_it_is(make):
    one = make()
    one.save(1, tree(1), {"step": 1})
    one.save(1, tree(2), {"step": 2})
    jobs.same(one.restore(tree()).state, tree(1))
    again = make()
    again.save(1, tree(3), {})
    jobs.same(again.restore(tree()).state, tree(1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints 1 and 2, and best 1; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    one = checkpoint.Checkpoints(folder, print)
    one.save(1, tree(1), {"step": 1}, 0.9)
    one.save(2, tree(2), {"step": 2}, 0.3)
    one.close()
    return folder


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "first byte": lambda path: flip(path, 0),
    "byte at a third": lambda path: flip(path, 1 / 3),
    "middle byte": lambda path: flip(path, 1 / 2),
    "last byte": lambda path: flip(path, 1),
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.slow
def test_damage_to_any_file_is_harmless_or_noticed(saved, tmp_path, how, capfd):
    """Either what was saved comes back, or the checkpoint before it, with a word."""
    files = sorted(p.relative_to(saved) for p in saved.glob("2/**/*") if p.is_file())
    assert len(files) > 8
    noticed = 0
    for number, name in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        DAMAGES[how](folder / name)
        said = []
        one = checkpoint.Checkpoints(folder, said.append)
        restored = one.restore(tree())
        if restored.step == 2:
            assert said == []
        else:
            assert restored.step == 1 and kept(folder) == [1]
            assert len(said) == 1 and "\n" not in said[0]
            assert said[0].startswith(f"checkpoint {folder}/2 is damaged (")
            assert said[0].endswith("falling back to the one before it")
            noticed += 1
        jobs.same(restored.state, tree(restored.step))
        assert restored.feed == {"step": restored.step}
        one.save(3, tree(3), {"step": 3})  # and the run goes on
        one.close()
        after = checkpoint.Checkpoints(folder, said.append)
        jobs.same(after.restore(tree()).state, tree(3))
        after.close()
    assert noticed >= 3
    assert "Traceback" not in capfd.readouterr().err


def test_an_empty_folder_of_a_step_is_damage(saved, tmp_path):
    folder, said = tmp_path / "run", []
    shutil.copytree(saved, folder)
    (folder / "9").mkdir()
    one = checkpoint.Checkpoints(folder, said.append)
    jobs.same(one.restore(tree()).state, tree(2))
    assert len(said) == 1 and f"{folder}/9 is damaged" in said[0]
    assert kept(folder) == [1, 2]
    one.close()


def test_when_all_are_damaged_there_is_none(saved, tmp_path):
    folder, said = tmp_path / "run", []
    shutil.copytree(saved, folder)
    for step in (1, 2):
        cut(folder / str(step) / "label" / "metadata")
    one = checkpoint.Checkpoints(folder, said.append)
    assert one.restore(tree()) is None
    assert len(said) == 2 and kept(folder) == []
    one.save(1, tree(5), {})
    jobs.same(one.restore(tree()).state, tree(5))
    one.close()


def test_a_damaged_best_gives_way_to_the_next(saved, tmp_path):
    folder, said = tmp_path / "run", []
    shutil.copytree(saved, folder)
    one = checkpoint.Checkpoints(folder, said.append)
    for path in (folder / "1").glob("state/d/*"):
        cut(path)
    jobs.same(one.best(tree()).state, tree(2))
    assert len(said) == 1 and f"{folder}/1 is damaged" in said[0]
    one.close()


OTHERS = {
    "a leaf more": lambda t: {**t, "more": jnp.ones(1)},
    "a leaf less": lambda t: {k: v for k, v in t.items() if k != "mask"},
    "another name": lambda t: {**t, "extra": t["float"]} | {"float": None},
    "another shape": lambda t: {**t, "float": t["float"].T},
    "another dtype": lambda t: {**t, "codes": t["codes"].view(jnp.uint8)},
}


@pytest.mark.parametrize("how", OTHERS)
def test_another_structure_is_refused_and_kept(saved, tmp_path, how):
    folder, said = tmp_path / "run", []
    shutil.copytree(saved, folder)
    one = checkpoint.Checkpoints(folder, said.append)
    with pytest.raises(errors.UserError, match=f"{folder}/2 is of another model"):
        one.restore(OTHERS[how](tree()))
    assert said == [] and kept(folder) == [1, 2]
    jobs.same(one.restore(tree()).state, tree(2))
    one.close()


def test_what_is_saved_is_the_state_at_the_call(make):
    """The buffers may be donated, or a NumPy array changed, before it is on disk."""
    state = {"big": jnp.arange(2.0**20), "host": np.ones(2**18)}
    wanted = jax.tree.map(np.array, state)
    one = make()
    one.save(1, state, {})
    state["host"][:] = -1
    donated = jax.jit(lambda x: x * 0, donate_argnums=0)(state["big"])
    donated.block_until_ready()
    one.wait()
    jobs.same(make().restore(wanted).state, wanted)


def test_leftovers_of_a_killed_save_are_removed(saved, tmp_path):
    """Orbax writes beside, and renames when all is there."""
    folder, said = tmp_path / "run", []
    shutil.copytree(saved, folder)
    left = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2" / "label", left / "label")
    (left / "state.orbax-checkpoint-tmp" / "d").mkdir(parents=True)
    one = checkpoint.Checkpoints(folder, said.append)
    jobs.same(one.restore(tree()).state, tree(2))
    one.save(4, tree(3), {})
    one.wait()
    assert not left.exists()
    jobs.same(one.restore(tree()).state, tree(3))
    assert said == []
    one.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UserError, match="cannot write checkpoints to .*file"):
        checkpoint.Checkpoints(tmp_path / "file" / "run", print)

"""Texts in a run: what does not fit is told before any compute, and what is served."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from experiments import check, packing, recipe, repeats, starting
from lib import errors, models, tree
from lib.data import dataset, inputs, mapped
from lib.data.text import vocabulary
from lib.models.layouts import bert
from tests.train import jobs

SENTENCES = ("a good film", "a bad film", "so good it hurts", "so bad it is good") * 5


@pytest.fixture
def config(tmp_path):
    lines = [f"{s}\t{'bad' in s}" for s in SENTENCES]
    path = tmp_path / "films.tsv"
    path.write_text("\n".join(["sentence\tlabel", *lines]), encoding="utf-8")
    config = common.base(stages=("one",))
    config.data.kind = "text"
    config.data.update(name=str(path), test="")
    config.data.text.update(size=60, max_length=12)
    fields = dict(layers=1, width=4, heads=1, intermediate=4, pad=0, separator=3)
    config.one = common.stage(
        model=common.model("encoder", vocabulary=60, max_length=12, **fields)
    )
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"one.model.vocabulary": 9}, "one.model.vocabulary is 9, and ids .* reach"),
        ({"one.model.pad": 1}, "set one.model.pad=0"),
        ({"one.model.separator": 102}, "set one.model.separator=3"),
        ({"one.model.max_length": 9}, "expected at least the 12 tokens of a text"),
        (
            {"data.text.buckets": (6,), "steps_per_call": 2},
            "steps_per_call is 0 or 1 with them, got 2",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_compute(config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message) as e:
        check.stages(config, recipe.load_data(config.data))
    assert "\n" not in str(e.value)


def weights(config, file, names):
    """Writes weights of zeros for the model, by BERT's names or by its own."""
    module = recipe.build_model(config.one.model, 2)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, _ = jax.eval_shape(lambda k: models.init(module, k, (12,), jnp.int32), key)
    arrays = {}
    for path, leaf in tree.flatten(params).items():
        theirs = bert.place(f"params/{path}", module)
        theirs = theirs if isinstance(theirs, str) else theirs.name
        name = theirs if names == "bert" else path
        turned = names == "bert" and path.endswith("kernel")
        arrays[name] = np.zeros(leaf.shape[::-1] if turned else leaf.shape, np.float32)
    np.savez(file, **arrays)
    return str(file)


@pytest.mark.parametrize("names", ["bert", "own"])
def test_embeddings_of_another_vocabulary_are_refused(config, tmp_path, names):
    data = recipe.load_data(config.data)
    config.one.weights = weights(config, tmp_path / "weights.npz", names)
    if names == "own":  # as a run on the same texts wrote it
        check.stages(config, data)
        return
    with pytest.raises(errors.UserError, match="one.weights know the tokens of their"):
        check.stages(config, data)
    config.one.fresh = "^tokens/"
    check.stages(config, data)


@pytest.mark.parametrize(
    ("tokens", "rows", "told"),
    [
        (60, 60, "fits"),
        (60, 64, "4 of the 64 rows of the embedding in "),
        (65, 128, "63 of the 128 rows of the embedding in "),
        (60, 61, "one.weights embed 61 tokens, and data.text.vocabulary '.*' has 60; "),
        (60, 72, "expected as many, or rows that fill up to a multiple of 8, 64, 128"),
        (60, 128, "68 of the 128 rows of the embedding in "),
        (60, 136, "one.weights embed 136 tokens"),
        (61, 60, "one.model.vocabulary is 60, and ids .* reach 60; expected .* 61"),
    ],
)
def test_a_given_vocabulary_has_the_size_of_the_weights(
    config, tmp_path, capsys, tokens, rows, told
):
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad")
    others = [f"word{i}" for i in range(tokens - len(special))]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *others]) + "\n")
    config.data.text.vocabulary = str(tmp_path / "vocab.txt")
    config.one.model.vocabulary = rows
    config.one.weights = weights(config, tmp_path / "weights.npz", "bert")
    data = recipe.load_data(config.data)
    assert data.counts["tokens of the vocabulary"] == tokens
    if "rows of the embedding" in told or told == "fits":
        check.stages(config, data)
        said = capsys.readouterr().out
        assert ("of no token" not in said) if told == "fits" else (told in said)
        return
    with pytest.raises(errors.UserError, match=told) as e:
        check.stages(config, data)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("beside", ["vocab.txt", "tokenizer.json"])
def test_another_vocabulary_of_the_same_size_is_told(config, tmp_path, capsys, beside):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    mine = [*special, *(f"word{i}" for i in range(56))]
    (tmp_path / "mine.txt").write_text("\n".join(mine) + "\n")
    config.data.text.vocabulary = str(tmp_path / "mine.txt")
    data = recipe.load_data(config.data)
    folder = tmp_path / "pretrained"
    folder.mkdir()
    config.one.weights = weights(config, folder / "weights.npz", "bert")
    for changed, moved in ((0, 0), (3, 3), (30, 30), (31, 31)):
        theirs = mine[: 60 - changed] + [f"other{i}" for i in range(changed)]
        (folder / "vocab.txt").write_text("\n".join(theirs) + "\n")
        if beside != "vocab.txt":
            path = str(folder / "vocab.txt")
            made = vocabulary.read(path, kind="wordpiece", lowercase=True)
            made.save(str(folder / beside))
            (folder / "vocab.txt").unlink()
        capsys.readouterr()
        if moved > 30:
            with pytest.raises(errors.UserError, match="31 of 60 tokens .* other ids"):
                check.stages(config, data)
            continue
        check.stages(config, data)
        said = capsys.readouterr().out
        assert (f"{moved} of 60 tokens of data.text.vocabulary" in said) == (moved > 0)


def test_rows_fill_up_to_the_next_round_number():
    for tokens in range(1, 300):
        fit = {tokens}
        for n in (8, 64, 128):
            fit.add(next(rows for rows in range(tokens, 500) if rows % n == 0))
        found = {rows for rows in range(500) if starting.filled_up(tokens, rows)}
        assert found == fit
    assert starting.filled_up(30_522, 30_528)  # BERT's by 8 and by 64
    assert starting.filled_up(50_257, 50_304)  # nanoGPT's of GPT-2
    assert not starting.filled_up(28_996, 30_522)  # BERT's cased, and not


def test_the_label_of_an_artifact_loads_the_same_texts(config, tmp_path):
    data = recipe.load_data(config.data)
    label = dataset.own(config.data.to_dict())
    assert "text" in label and not {"table", "normalisation"} & set(label)
    kept = inputs.from_label(inputs.to_label(data.inputs))
    label["text"]["vocabulary"] = "moved away since"
    again = recipe.load_data(label, kept)
    for part in ("train", "validation", "test"):
        one, other = (getattr(d, part).source.fields for d in (data, again))
        np.testing.assert_array_equal(one["input"], other["input"])


@pytest.mark.slow
def test_a_stage_learns_the_same_of_texts_that_are_streamed(config, tmp_path):
    config.one.update(steps=4, batch_size=8)
    config.log_every = config.save_every = 2
    config.steps_per_call = 1
    found = []
    for name, room in (("held", 2**20), ("streamed", 0)):
        config.data.resident_bytes = room
        data = recipe.load_data(config.data)
        assert isinstance(data.train.source, mapped.Mapped) == (name == "streamed")
        repeats.train(config, data, tmp_path / name)
        found.append(packing.load(repeats.last(config, tmp_path / name)).params)
    jobs.close(*found, 1e-6)

"""Options of layers: which there are, what they take, and the chain that makes them."""

import re

import jax
import numpy as np
import pytest

from configs import budget as config_file
from experiments import allocation, chains, recipe
from experiments.allocation import Choice, Option
from experiments.budgeting import options, stages
from lib import models, tree
from lib import transforms as T
from lib.deploy import artifact

DENSE, LAST = "dense_0/kernel", "logits/kernel"


def config_of(**strengths):
    config = config_file.get_config("smoke")
    if strengths:
        config.budget.sensitivity.techniques = tuple(strengths)
        config.budget.sensitivity.strengths.update(strengths)
    return config


def weights():
    module = recipe.build_model(config_of().dense.model, 10)
    params, _ = models.init(module, jax.random.key(0), (8, 8, 1))
    return jax.tree.map(np.asarray, params)


def offered(shape, **strengths):
    settings = options.settings_of(config_of(**strengths))
    return options.offered(settings, jax.ShapeDtypeStruct(shape, np.float32))


def plain(found):
    return [{name: value for name, (value, _) in one.items()} for one in found]


def test_the_options_of_a_layer_by_hand():
    two = {"sparsity": (0.0, 0.9), "bits": (2, 8)}
    assert plain(offered((20, 10), **two)) == [
        {},
        {"sparsity": 0.0, "bits": 2},
        {"sparsity": 0.0, "bits": 8},
        {"sparsity": 0.9, "bits": 2},
        {"sparsity": 0.9, "bits": 8},
    ]
    # Of 10 columns 0.31 are 3 and 0.34 are 3, too: once, at the place of the first;
    # rank 7 of 20 x 10 holds 210 weights of 200.
    ranked = offered((4, 5, 10), rank=(0.34, 0.01, 0.31, 0.7), bits=(4,))
    assert ranked == [
        {},
        {"bits": (4, 0)},
        {"rank": (1, 1), "bits": (4, 0)},
        {"rank": (3, 0), "bits": (4, 0)},
    ]
    assert plain(offered((20, 10), clusters=(4, 16))) == [
        *({}, {"clusters": 4}, {"clusters": 16})
    ]
    assert plain(offered((3, 1), rank=(1.0,))) == [{}]  # no rank of it pays
    assert plain(offered((20, 10), sparsity=(0.5,), rank=(0.2,))) == [
        *({}, {"sparsity": 0.5}, {"rank": 2})
    ]


# Options of two layers, and the techniques that a chain of them has.
CHOSEN = [
    ({"sparsity": 0.5, "bits": 2}, {"sparsity": 0.0, "bits": 8}, ("prune", "quantize")),
    ({"clusters": 8}, {"clusters": 2}, ("share",)),
    ({"rank": 3, "bits": 4}, {}, ("factorize", "quantize")),
    ({"rank": 5}, {"sparsity": 0.9}, ("factorize", "prune")),
    ({"rank": 2, "bits": 8}, {"clusters": 16}, ("factorize", "share", "quantize")),
    ({}, {}, ()),
]


def chain_of(taken):
    now = stages.chosen(config_of(), 0, "small_0", taken)
    now.prune.schedule = ""  # all at once, so that nothing has to be trained
    return now, chains.build(now, now.small_0).transform


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last", "techniques"), CHOSEN)
def test_what_layers_take_adds_up_to_the_file(first, last, techniques, tmp_path):
    params = weights()
    flat = tree.flatten(params)
    dense = artifact.save(tmp_path / "dense.pare", {"params": params})
    listed = {r.path: r.nbytes for r in artifact.listing(tmp_path / "dense.pare")}
    overhead = dense - sum(listed[f"params/{p}"] for p in (DENSE, LAST))
    taken = {DENSE: first, LAST: last}
    now, chain = chain_of(taken)
    assert now.small_0.transforms == techniques
    frozen = chain.freeze(*chain.encode(params))
    size = artifact.save(tmp_path / "small.pare", {"params": frozen})
    settings = options.settings_of(config_of())
    expected = overhead + sum(
        options.packed_bytes(settings, path, flat[path], strengths)
        for path, strengths in taken.items()
    )
    assert abs(expected - size) < 60  # names in the header are deflated together


def expected(path, w, strengths):
    """A layer under the techniques themselves, aimed at it by its path."""
    nested = tree.unflatten({path: w})
    parts = []
    if "rank" in strengths:
        parts.append(T.factorize(rank=strengths["rank"]))
    if "sparsity" in strengths:
        parts.append(T.prune(sparsity=strengths["sparsity"]))
    if "clusters" in strengths:
        parts.append(T.share(bits={2: 1, 8: 3, 16: 4}[strengths["clusters"]]))
    if "bits" in strengths:
        where = "/[uv]$" if "rank" in strengths else "kernel$"
        parts.append(T.quantize(bits=strengths["bits"], pattern=where))
    t = T.chain(*parts)
    return t.decode(*t.encode(nested))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last", "techniques"), CHOSEN)
def test_a_technique_touches_only_the_layers_that_chose_it(first, last, techniques):
    params = weights()
    flat = tree.flatten(params)
    _, chain = chain_of({DENSE: first, LAST: last})
    found = tree.flatten(chain.decode(*chain.encode(params)))
    for path, strengths in ((DENSE, first), (LAST, last)):
        wanted = tree.flatten(expected(path, flat[path], strengths))[path]
        np.testing.assert_allclose(found[path], wanted, rtol=1e-6, atol=1e-7)
        if "clusters" in strengths:
            assert len(np.unique(found[path])) <= strengths["clusters"]
        if "rank" in strengths:
            assert np.linalg.matrix_rank(found[path]) <= strengths["rank"]
    for path in set(flat) - {DENSE, LAST}:
        assert found[path] is flat[path] or (found[path] == flat[path]).all()


def test_every_layer_gets_its_own_rules():
    taken = {
        "a/kernel": {"sparsity": 0.5, "bits": 2},
        "b.c/kernel": {"rank": 3, "bits": 8},
        "d/kernel": {"clusters": 16},
        "e/kernel": {},
    }
    now = stages.chosen(config_of(), 1, "small_1_0", taken)
    assert now.stages == ("dense", "cut_1", "small_1_0")
    assert now.small_1_0.start == "cut_1" and now.cut_1.start == "dense"
    assert now.small_1_0.transforms == ("factorize", "prune", "share", "quantize")
    assert now.prune.rules == (("^a/kernel$", 0.5),)
    assert now.share.rules == (("^d/kernel$", 4),)  # bits of an index
    assert now.factorize.rules == ((r"^b\.c/kernel$", 3),)
    assert now.factorize.budget == now.factorize.energy == 0
    assert now.quantize.rules == (("^a/kernel$", 2), (r"^b\.c/kernel/[uv]$", 8))
    assert re.search(now.quantize.rules[1][0], "b.c/kernel/u")
    assert not re.search(now.quantize.rules[1][0], "b.c/kernel")


def test_a_cut_is_a_stage_of_its_own():
    config = config_of()
    config.budget.channels = (0.25, 0.5)
    cut, name = stages.cut(config, 2, trained=True)
    assert cut.stages == ("dense", name) and cut.shrink.fraction == 0.5
    assert cut[name].steps == config.cut.steps
    timed, other = stages.cut(config, 2, trained=False)
    assert other != name and timed[other].steps == 0
    assert timed[other].prepare == cut[name].prepare == ("shrink",)
    nothing, dense = stages.cut(config, 0, trained=True)
    assert nothing.stages == ("dense",) and dense == "dense"


@pytest.mark.slow
def test_an_option_costs_what_its_strengths_add_alone():
    settings = options.settings_of(
        config_of(sparsity=(0.0, 0.9), bits=(8,), rank=(0.1, 0.2))
    )
    flat = tree.flatten(weights())
    layers = {path: flat[path] for path in (DENSE, LAST)}
    curves = {
        "sparsity": {"loss": [[1.0, 1.5], [0.9, 1.25]]},  # one below the base costs 0
        "bits": {"loss": [[1.0625], [1.0]]},
        "rank": {"loss": [[4.0, 3.0], [6.0, 5.0]]},
    }
    found = {"base": {"loss": 1.0}, "curves": curves}
    strengths, priced = options.priced(settings, layers, found)
    first, last = (
        {tuple(s.items()): o.cost for s, o in zip(*pair, strict=True)}
        for pair in zip(strengths, priced, strict=True)
    )
    assert first == {
        (): 0.0,
        (("sparsity", 0.0), ("bits", 8)): 0.0625,
        (("sparsity", 0.9), ("bits", 8)): 0.5625,
        (("rank", 2), ("bits", 8)): 3.0625,  # 0.1 and 0.2 of 16 are 2 and 3
        (("rank", 3), ("bits", 8)): 2.0625,
    }
    assert last[(("sparsity", 0.0), ("bits", 8))] == 0.0
    assert last[(("sparsity", 0.9), ("bits", 8))] == 0.25
    assert last[(("rank", 1), ("bits", 8))] == 5.0  # 0.1 of the 10 outputs
    for whole, full, sparse, *low in priced:  # as it is; 8 bits; 0.9 removed, 8 bits
        assert whole.bytes > full.bytes > sparse.bytes
        assert low[0].bytes < low[1].bytes < full.bytes


def test_fronts_are_of_all_options_and_of_sparsity_and_bits_alone():
    """Against every choice there is."""
    strengths = [
        [{}, {"clusters": 4}, {"sparsity": 0.5, "bits": 2}, {"rank": 1, "bits": 2}],
        [{"sparsity": 0.0, "bits": 8}, {"clusters": 2}, {}],
    ]
    priced = [
        [Option(90, 0.0), Option(20, 1.0), Option(25, 2.0), Option(9, 4.0)],
        [Option(30, 1.0), Option(10, 1.5), Option(50, 0.0)],
    ]
    layers = options.Layers({}, strengths, priced, 0)
    every, alone = options.fronts(layers)
    assert every == allocation.front(priced)
    plain = [
        Choice(priced[0][i].bytes + priced[1][j].bytes, cost, (i, j))
        for i in (0, 2)
        for j in (0, 2)
        for cost in (priced[0][i].cost + priced[1][j].cost,)
    ]
    unbeaten = [
        a
        for a in plain
        if not any(b != a and b.bytes <= a.bytes and b.cost <= a.cost for b in plain)
    ]
    assert alone == sorted(unbeaten)
    one_kind = options.Layers({}, [[{}, {"clusters": 2}]], [priced[1][:2]], 0)
    assert len(options.fronts(one_kind)) == 1

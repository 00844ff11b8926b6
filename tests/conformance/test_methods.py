"""Every way to quantize, on every kind of model: it works, or says why in one line."""

import functools

import jax
import numpy as np
import pytest

from lib import errors, program, representations, tree
from lib import transforms as T
from tests.conformance import models


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    """Many programs that run once each; XLA optimises little of them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def case(name):
    return models.make(name)


@functools.cache
def grams(name):
    one = case(name)
    batches = ((one.again(seed),) for seed in range(2))
    return program.accumulate(
        one.f, program.gram, one.params, batches, pattern=one.weights
    )


@functools.cache
def ranges(name):
    one = case(name)
    batches = [(one.again(seed),) for seed in range(3)] + [(one.x,)]
    return program.calibrate(one.f, one.params, batches, program.minmax())


def off(found, wanted):
    """Returns the error of outputs, relative to their size."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# name -> (technique on the weights of a case, the largest relative error of outputs)
WEIGHTS = {
    "quantize": (lambda n: T.quantize(bits=8, pattern=case(n).weights), 0.03),
    "quantize mse": (
        lambda n: T.quantize(bits=4, range="mse", pattern=case(n).weights),
        0.4,
    ),
    "lsq": (lambda n: T.lsq(bits=8, pattern=case(n).weights), 0.1),
    "nf4": (
        lambda n: T.levels(
            format="nf4", granularity="channel", pattern=case(n).weights
        ),
        0.4,
    ),
    "e4m3": (
        lambda n: T.levels(
            format="e4m3", granularity="channel", pattern=case(n).weights
        ),
        0.1,
    ),
    "gptq": (
        lambda n: T.gptq(bits=4, grams=grams(n), pattern=case(n).weights),
        0.4,
    ),
    "adaround": (
        lambda n: T.adaround(bits=4, grams=grams(n), pattern=case(n).weights, steps=50),
        0.4,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("method", WEIGHTS)
def test_weights(name, method):
    """The weights of every model take every format; what is frozen is what ran."""
    one = case(name)
    make, most = WEIGHTS[method]
    unread = program.unfed(one.f, pattern=one.weights)(one.params, one.x)
    if method in ("gptq", "adaround") and unread:
        # They need the inputs of a weight; where none can be read, they say so.
        assert all(left.why for left in unread)
        with pytest.raises(errors.UserError, match=unread[0].name):
            make(name).encode(one.params)
        return
    t = make(name)
    code, state = t.encode(one.params)
    decoded = t.decode(code, state)
    frozen = representations.thaw(t.freeze(jax.device_get(code), state))
    for path, w in tree.flatten(decoded).items():
        assert np.asarray(w).tobytes() == tree.flatten(frozen)[path].tobytes(), path
    wanted = one.f(one.params, one.x)
    assert 0 < off(one.f(decoded, one.x), wanted) < most
    grads = jax.grad(lambda c: (one.f(t.decode(c, state), one.x) ** 2).sum())(code)
    for g in jax.tree.leaves(grads):
        assert np.isfinite(g).all() and g.any()


SETTINGS = {
    "static": {"bits": 8, "symmetric": False},
    "symmetric": {"bits": 8, "symmetric": True},
    "dynamic": {"bits": 8, "symmetric": False, "range": "dynamic"},
    "token": {"bits": 8, "symmetric": True, "range": "token"},
    "lsq": {"bits": 8, "symmetric": False, "learn": "lsq"},
    "lsq+": {"bits": 8, "symmetric": False, "learn": "lsq+"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("method", SETTINGS)
def test_activations(name, method):
    """Every contraction of every model is covered, rounded, and passes gradients."""
    one, settings = case(name), SETTINGS[method]
    rules = ((".", settings),)
    rows = program.coverage(one.f, rules)(one.params, one.x)
    assert [r.site for r in rows] == [s.name for s in program.sites(one.f)(*one[1:3])]
    assert all(row.operands for row in rows)
    static = settings.get("range", "static") == "static"
    f = program.fake_quantize(one.f, ranges(name) if static else {}, rules)
    wanted = one.f(one.params, one.x)
    assert 0 < off(f(one.params, one.x), wanted) < 0.05
    grads = jax.grad(lambda p: (f(p, one.x) ** 2).sum())(one.params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("how", [c for c in program.CALIBRATIONS if c != "fixed"])
def test_calibrations(name, how):
    """Ranges of every kind lie within what was seen, and scans have one a turn."""
    one = case(name)
    given = {"decay": 0.5} if how == "moving_average" else {}
    given |= {"percent": 99.0} if how == "percentile" else {}
    given |= {"bits": 8, "symmetric": False} if how in ("mse", "entropy") else {}
    found = program.calibrate(
        one.f,
        one.params,
        [(one.again(seed),) for seed in range(3)] + [(one.x,)],
        program.CALIBRATIONS[how](**given),
    )
    sites = {s.name: s for s in program.sites(one.f)(one.params, one.x)}
    assert set(found) == set(sites)
    for site, sides in ranges(name).items():
        for side, (low, high) in sides.items():
            least, most = found[site][side]
            assert np.shape(least) == sites[site].scans
            slack = 1e-2 * (high - low) + 1e-6
            assert (least >= low - slack).all() and (most <= high + slack).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("bits", [8, 4])
def test_integers(name, bits):
    """What runs on integers is what was rounded in float; the rest is named."""
    one = case(name)
    t = T.quantize(bits=bits, pattern=one.weights)
    code, state = t.encode(one.params)
    frozen = t.freeze(jax.device_get(code), jax.device_get(state))
    rules = ((".", {"bits": 8, "symmetric": False}),)
    rounded = program.fake_quantize(one.f, ranges(name), rules)
    wanted = rounded(t.decode(code, state), one.x)
    params = program.integer_params(frozen)
    found = program.run_integer(one.f, ranges(name), rules)(params, one.x)
    # Another order of summation now and then rounds a value to the next code.
    assert off(found, wanted) < 0.02
    rows = program.integers(one.f, ranges(name), rules)(params, one.x)
    assert all(row.integer or row.why for row in rows)
    assert sum(row.integer for row in rows) >= len(rows) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("how", ["fold_batch_norm", "equalize", "smooth"])
def test_what_keeps_the_function(name, how):
    """On any model: the outputs stay, and what was left says why."""
    one = case(name)
    run = lambda: getattr(program, how)(one.f)(one.params, one.x)  # noqa: E731
    if how == "smooth":
        run = functools.partial(
            program.smooth,
            one.f,
            one.params,
            [(one.again(seed),) for seed in range(2)],
            example=(one.x,),
            alpha=0.5,
            pattern=".",
        )
        if all(site.around for site in program.sites(one.f)(one.params, one.x)):
            with pytest.raises(errors.UserError, match="outside loops"):
                run()
            return
    new, changes = run()
    assert all(change.paths or change.why for change in changes)
    assert off(one.f(new, one.x), one.f(one.params, one.x)) < 1e-4

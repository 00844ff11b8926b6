"""The loop: resumed anywhere it ends the same, and what breaks it is named."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors, schedules
from lib import transforms as T
from lib.data import augment
from lib.train import checkpoint, interrupt, loop, parallel, step
from tests.train import jobs


class Killed(BaseException):
    """Stands for the end of a process: nobody catches it."""


def whole(**changes):
    """A job with all that a state can hold: masks, averages, statistics, dropout."""
    rising = schedules.cubic(initial=0.0, final=0.8, begin=0, end=12)
    settings = dict(
        module=jobs.mlp(dropout=0.2),
        transform=T.chain(T.prune(sparsity=rising, every=3), T.quantize(bits=4)),
        augmentation=augment.shift(pixels=1, fill="zero"),
        ema=0.9,
    )
    settings |= changes
    return jobs.make(settings.pop("module"), **settings)


@pytest.fixture(scope="module", params=["on device", "streamed"])
def streamed(request):
    return request.param == "streamed"


@pytest.fixture(scope="module")
def undisturbed(streamed, tmp_path_factory):
    """The last state and the log of a run that nothing disturbed."""
    log = jobs.Log()
    folder = tmp_path_factory.mktemp("undisturbed")
    return jobs.fit(whole(streamed=streamed), folder, log=log), log


def kill_at(step):
    def then(done):
        if done == step:
            raise Killed

    return jobs.Log(then)


@pytest.mark.slow
@pytest.mark.parametrize("at", [5, 10, 15, 20])
def test_killed_and_resumed_it_ends_the_same(at, streamed, undisturbed, tmp_path):
    """Killed as the records of step `at` are written, before its checkpoint is."""
    with pytest.raises(Killed):
        jobs.fit(whole(streamed=streamed), tmp_path, log=kill_at(at))
    log, said = jobs.Log(), []
    last = jobs.fit(whole(streamed=streamed), tmp_path, log=log, say=said.append)
    expected, records = undisturbed
    jobs.same(last, expected)
    assert said == []
    for name in ("loss", "validation_accuracy", "validation_loss"):
        wanted = {k: v for k, v in records.of(name).items() if k >= at}
        assert log.of(name) == wanted and 20 in wanted


@pytest.mark.slow
def test_resumed_from_the_checkpoint_before_a_damaged_one(
    streamed, undisturbed, tmp_path
):
    with pytest.raises(Killed):
        jobs.fit(whole(streamed=streamed), tmp_path, log=kill_at(15))
    for path in tmp_path.glob("10/state/d/*"):
        path.write_bytes(b"")
    log, said = jobs.Log(), []
    last = jobs.fit(whole(streamed=streamed), tmp_path, log=log, say=said.append)
    jobs.same(last, undisturbed[0])
    assert len(said) == 1 and "10 is damaged" in said[0]
    assert min(log.of("loss")) == 10  # from step 5 on


@pytest.mark.slow
def test_started_again_when_finished_it_does_nothing(tmp_path, undisturbed, streamed):
    jobs.fit(whole(streamed=streamed), tmp_path)
    log = jobs.Log()
    jobs.same(jobs.fit(whole(streamed=streamed), tmp_path, log=log), undisturbed[0])
    assert log == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", parallel.PARALLEL)
def test_sigterm_saves_and_exits(mode, tmp_path):
    def then(done):
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    log = jobs.Log(then)
    expected = jobs.fit(whole(), tmp_path / "other", parallel_by=mode)
    with pytest.raises(interrupt.Interrupted, match="143") as stopped:
        with interrupt.asked_to_stop() as stop:
            jobs.fit(whole(), tmp_path / "run", log=log, stop=stop, parallel_by=mode)
    assert stopped.value.code == 143
    assert stopped.value.message == "asked to stop: saved step 10"
    assert signal.getsignal(signal.SIGTERM) == before
    assert max(log.of("loss")) == 10 and (tmp_path / "run" / "10").exists()
    log = jobs.Log()
    last = jobs.fit(whole(), tmp_path / "run", log=log, parallel_by=mode)
    jobs.same(last, expected)
    assert min(log.of("loss")) == 15


@pytest.mark.slow
def test_a_stop_between_checkpoints_does_not_change_which_is_best(tmp_path):
    """Pace: records each 5 steps, checkpoints each 10; asked to stop after 5 and 10."""
    pace = loop.Pace(steps=30, call=5, log=5, save=10)
    job = whole()

    def best(folder):
        one = checkpoint.Checkpoints(folder, print)
        found = one.best(job.state)
        one.close()
        return found

    jobs.fit(job, tmp_path / "whole", pace=pace)
    for at in (5, 10, 15):
        log = jobs.Log()
        with pytest.raises(interrupt.Interrupted):
            jobs.fit(
                whole(),
                tmp_path / "stopped",
                pace=pace,
                log=log,
                stop=lambda log=log, at=at: True,
            )
        assert list(log.of("loss")) == [at]
        assert list(log.of("validation_accuracy")) == ([at] if at == 10 else [])
    jobs.fit(whole(), tmp_path / "stopped", pace=pace)
    one, other = best(tmp_path / "whole"), best(tmp_path / "stopped")
    assert one.step == other.step
    jobs.same(one.state, other.state)


@pytest.mark.slow
def test_before_the_schedule_is_done_no_checkpoint_is_the_best(tmp_path):
    job = whole()
    jobs.fit(job, tmp_path, eligible=18)
    assert checkpoint.Checkpoints(tmp_path, print).best(job.state).step == 20


@pytest.mark.slow
def test_asked_to_stop_at_the_last_step_it_finishes(tmp_path, undisturbed, streamed):
    stops = iter([False, False, False, True])
    last = jobs.fit(whole(streamed=streamed), tmp_path, stop=lambda: next(stops))
    jobs.same(last, undisturbed[0])


def test_sigterm_that_nobody_asked_about_still_ends_the_run():
    with pytest.raises(interrupt.Interrupted, match="143"):
        with interrupt.asked_to_stop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop()


def test_sigterm_at_once():
    reached = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(interrupt.Interrupted, match="143"):
        with interrupt.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(True)
    assert not reached and signal.getsignal(signal.SIGTERM) == before


def test_no_signal_no_word():
    with interrupt.at_once(), interrupt.asked_to_stop() as stop:
        assert not stop()


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def poisoned():
    """Returns data with one label of 99, and the step, from 1, that first draws it."""
    train = jobs.split()
    train.source.fields["label"][50] = 99
    order = np.concatenate(
        [np.random.default_rng([0, epoch]).permutation(72) for epoch in range(5)]
    )
    return train, int(np.argmax(order == 50)) // 8 + 1


def spoilt_by_99(outputs, batch, params, teacher):
    """Two terms, one of which is infinite where a label is 99."""
    logits, label = outputs[0], batch["label"]
    terms = {
        "sound": jnp.mean(logits**2),
        "spoilt": jnp.mean(jnp.log(99.0 - label) * logits[:, 0]),
    }
    return terms["sound"] + terms["spoilt"], terms


@pytest.mark.slow
@pytest.mark.parametrize("mode", parallel.PARALLEL)
@pytest.mark.parametrize("module", [jobs.mlp, jobs.cnn])
def test_a_term_that_is_not_finite_is_named(module, mode, tmp_path):
    train, at = poisoned()
    assert 5 < at
    job = jobs.make(
        module(),
        train=train,
        batch_size=8,
        axis=parallel.AXIS if mode == "pmap" else None,
    )
    job = job._replace(recipe=job.recipe._replace(objective=spoilt_by_99))
    # The first checkpoint is written by a run that ends in time.
    jobs.fit(job, tmp_path, steps=5, parallel_by=mode)
    before = contents(tmp_path)
    job.feed.restore({**job.feed.state(), "step": 0})
    with pytest.raises(loop.NotFinite) as e:
        jobs.fit(job, tmp_path, parallel_by=mode, pace=loop.Pace(20, 5, 10, 20))
    first = {"mlp": "dense_0/bias", "cnn": "conv_0_0/kernel"}[module.__name__]
    assert str(e.value) == (
        f"training met NaN or infinity at step {at}; terms: loss, spoilt; "
        f"first leaf: gradient/{first}; "
        f"the last good checkpoint is {tmp_path}/5"
    )
    assert isinstance(e.value, errors.RunError)
    assert contents(tmp_path) == before
    one = checkpoint.Checkpoints(tmp_path, print)
    assert one.restore(job.state).step == 5
    one.close()


def spoil(at, value):
    """An optimiser whose step number `at`, from 1, adds `value` to one weight."""

    def update(grads, count, params):
        spoilt = jnp.where(count + 1 == at, value, 0.0)
        kernel = grads["logits"]["kernel"] * 0
        changes = jax.tree.map(lambda g: -0.01 * g, grads)
        changes["logits"] = {**changes["logits"], "kernel": kernel.at[0, 0].set(spoilt)}
        return changes, count + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


@pytest.mark.slow
@pytest.mark.parametrize("at", [7, 10, 20])
def test_weights_that_overflow_are_named(at, tmp_path):
    """Also when the loss never shows it: at the last step, or before a checkpoint."""
    job = jobs.make(optimize=spoil(at, jnp.inf))
    with pytest.raises(loop.NotFinite) as e:
        jobs.fit(job, tmp_path)
    good = 5 * ((at - 1) // 5)
    assert str(e.value) == (
        f"training met NaN or infinity at step {at}; terms: none; "
        "first leaf: updated/weights/logits/kernel; "
        f"the last good checkpoint is {tmp_path}/{good}"
    )
    one = checkpoint.Checkpoints(tmp_path, print)
    restored = one.restore(job.state)
    assert (
        restored.step == good
        and np.isfinite(restored.state.code["logits"]["bias"]).all()
    )
    one.close()


@pytest.mark.slow
def test_a_loss_that_overflows_while_the_weights_do_not(tmp_path):
    """The weight is 1e30, its square infinite."""
    job = jobs.make(optimize=spoil(3, 1e30), terms=("cross_entropy", "l2"))
    with pytest.raises(loop.NotFinite) as e:
        jobs.fit(job, tmp_path)
    assert str(e.value) == (
        "training met NaN or infinity at step 4; terms: l2, loss; first leaf: none; "
        "there is no checkpoint yet"
    )


@pytest.mark.slow
def test_weights_that_are_not_finite_to_begin_with(tmp_path):
    job = jobs.make()
    kernel = job.state.code["dense_0"]["kernel"].at[0, 0].set(jnp.nan)
    job.state.code["dense_0"]["kernel"] = kernel
    with pytest.raises(loop.NotFinite, match="step 1; .*leaf: weights/dense_0/kernel"):
        jobs.fit(job, tmp_path)


PACES = [
    # steps, log, save, call, convolves -> call, log, save
    ((2000, 50, 200, 0, False), (50, 50, 200)),
    ((2000, 50, 200, 0, True), (1, 50, 200)),
    ((2000, 50, 200, 7, False), (5, 50, 200)),
    ((2000, 50, 200, 7, True), (5, 50, 200)),
    ((2000, 50, 70, 0, False), (50, 50, 50)),
    ((2000, 50, 20, 0, False), (50, 50, 50)),
    ((2000, 50, 10_000, 0, False), (50, 50, 10_000)),
    ((20, 50, 200, 0, False), (20, 20, 200)),
    ((2000, 120, 200, 0, False), (40, 120, 240)),
    ((2000, 53, 200, 0, False), (1, 53, 212)),
    ((1, 50, 200, 0, False), (1, 1, 200)),
    ((2000, 50, 200, 500, False), (50, 50, 200)),
]


@pytest.mark.parametrize("given, wanted", PACES)
def test_pace_table(given, wanted):
    steps, log, save, call, convolves = given
    found = loop.pace(steps=steps, log=log, save=save, call=call, convolves=convolves)
    assert found == loop.Pace(steps, *wanted)
    assert found.log % found.call == 0 and found.save % found.log == 0


@pytest.mark.parametrize("module, convolves", [(jobs.mlp, False), (jobs.cnn, True)])
def test_has_convolution(module, convolves):
    job = jobs.make(module())
    state = job.state
    example = jax.ShapeDtypeStruct((1, *jobs.SHAPE), jnp.float32)
    args = (state.code, state.variables, {}, example)
    assert loop.has_convolution(job.recipe.network, *args) is convolves


@pytest.mark.slow
def test_a_stage_shorter_than_its_calls(tmp_path):
    """The last call takes the steps that are left, and its record their mean."""
    pace = loop.Pace(steps=12, call=5, log=5, save=10)
    log = jobs.Log()
    last = jobs.fit(jobs.make(), tmp_path, pace=pace, log=log)
    *_, (state, _) = jobs.make().steps(12)
    losses = [float(m["loss"]) for _, m in jobs.make().steps(12)]
    assert int(last.step) == 12
    jobs.close(last.code, state.code, 1e-6)
    means = {5: losses[:5], 10: losses[5:10], 12: losses[10:]}
    assert log.of("loss").keys() == means.keys()
    for done, part in means.items():
        np.testing.assert_allclose(log.of("loss")[done], np.mean(part), rtol=1e-5)
    assert list(log.of("validation_accuracy")) == [10, 12]


def test_the_average_is_what_is_validated(tmp_path):
    """With a decay of almost 1 it stays where it began, whatever the weights do."""
    log = jobs.Log()
    job = jobs.make(ema=0.999999, optimize=jobs.adam(peak=0.1))
    last = jobs.fit(job, tmp_path, log=log)
    first, *_, end = log.of("validation_loss").values()
    np.testing.assert_allclose(first, end, rtol=1e-3)
    assert not np.allclose(
        step.trained(last)["logits"]["kernel"], last.code["logits"]["kernel"]
    )


def ended_by(accuracies, patience, save, eligible=0):
    """The step after which a run with such validations ends, and that of its best."""
    best, at = -1.0, None
    for now, accuracy in sorted(accuracies.items()):
        if now >= eligible and accuracy >= best:
            best, at = accuracy, now
        if at is not None and now - at >= patience * save:
            return now, at
    return max(accuracies), at


@pytest.mark.slow
@pytest.mark.parametrize("patience, eligible", [(1, 0), (2, 0), (1, 15)])
def test_patience_ends_where_validations_were_long_no_better(
    patience, eligible, tmp_path
):
    job, log = whole(), jobs.Log()
    shown = {5: 0.5, 10: 0.7, 15: 0.6, 20: 0.7, 25: 0.6, 30: 0.6, 35: 0.9, 40: 0.0}

    def validate(now):
        return {"accuracy": shown[int(now.step)], "loss": 0.0, "count": 1}

    settings = dict(steps=40, validate=validate, patience=patience, eligible=eligible)
    last = jobs.fit(job, tmp_path, log=log, **settings)
    want, best = ended_by(shown, patience, 5, eligible)
    assert int(last.step) == want == max(log.of("loss")) < 40
    checkpoints = checkpoint.Checkpoints(tmp_path, print)
    assert checkpoints.best_step() == best
    assert checkpoints.best(job.state).step == best
    checkpoints.close()
    # Started again, it has nothing to do; as it was killed before, neither more.
    again = jobs.fit(whole(), tmp_path, log=(log := jobs.Log()), **settings)
    jobs.same(again, last)
    assert log == []


@pytest.mark.slow
def test_killed_with_patience_it_ends_at_the_same_step(tmp_path):
    shown = {5: 0.5, 10: 0.7, 15: 0.6, 20: 0.6, 25: 0.9, 30: 0.9}

    def validate(now):
        return {"accuracy": shown[int(now.step)], "loss": 0.0, "count": 1}

    settings = dict(steps=30, validate=validate, patience=2)
    expected = jobs.fit(whole(), tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        jobs.fit(whole(), tmp_path / "killed", log=kill_at(15), **settings)
    last = jobs.fit(whole(), tmp_path / "killed", **settings)
    assert int(last.step) == 20
    jobs.same(last, expected)

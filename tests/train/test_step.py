"""The step against loops written by hand: what reaches the optimiser, what moves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import schedules
from lib import transforms as T
from lib.train import step, teachers
from tests.train import jobs

STEPS = 20


def plain_batches(batch_size, seed=0):
    """The batches of `jobs.split()`, shuffled and normalised by hand."""
    source = jobs.split().source
    stream = np.concatenate(
        [np.random.default_rng([seed, e]).permutation(jobs.EXAMPLES) for e in range(9)]
    )
    for t in range(STEPS):
        index = stream[t * batch_size : (t + 1) * batch_size]
        yield (
            (source.fields["input"][index].astype(np.float32) - 80) / 50,
            source.fields["label"][index],
        )


def plain_loss(module, params, images, labels):
    logits, _ = module.apply({"params": params}, images, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_identity_is_the_plain_jax_and_optax_loop():
    module, job = jobs.mlp(), jobs.make()
    params = job.state.code
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 20)
    kernels = {k: {"kernel": True, "bias": False} for k in params}
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, weight_decay=0.01, mask=kernels),
    )
    slots = optimizer.init(params)

    @jax.jit
    def plain_step(params, slots, images, labels):
        loss, grads = jax.value_and_grad(
            lambda p: plain_loss(module, p, images, labels)
        )(params)
        updates, slots = optimizer.update(grads, slots, params)
        return optax.apply_updates(params, updates), slots, loss

    losses = []
    for (state, metrics), batch in zip(
        job.steps(STEPS), plain_batches(16), strict=True
    ):
        params, slots, loss = plain_step(params, slots, *batch)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=0, atol=1e-6)
        jobs.close(state.code, params, 1e-6)
        losses.append(float(loss))
    assert int(state.step) == STEPS
    assert losses[-1] < 0.8 * losses[0]  # it learns: no fixed point is compared


def keep_gradients():
    """An optimiser that changes nothing and keeps the last gradients as its state."""

    def zeros(tree):
        return jax.tree.map(jnp.zeros_like, tree)

    return optax.GradientTransformation(zeros, lambda g, s, p: (zeros(g), g))


def record():
    """A transform that does nothing and keeps the gradients `update` was shown."""
    return T.identity()._replace(
        encode=lambda params: (params, jax.tree.map(jnp.zeros_like, params)),
        update=lambda code, state, signals: signals.grads,
    )


@pytest.mark.slow
def test_update_sees_dense_gradients_and_the_optimiser_masked_ones():
    module = jobs.mlp()
    transform = T.chain(record(), T.prune(sparsity=0.5), record())
    job = jobs.make(transform=transform, optimize=keep_gradients())
    decoded = transform.decode(job.state.code, job.state.codec)
    images, labels = next(plain_batches(16))
    dense = jax.grad(lambda p: plain_loss(module, p, images, labels))(decoded)

    (state, _), *_ = job.steps(1)
    seen_dense, masks, seen_below = state.codec
    jobs.close(seen_dense, dense, 1e-6)
    masked = {**dense}
    for path, mask in masks.items():
        layer = path.split("/")[0]
        assert 0.4 < 1 - mask.mean() < 0.6
        assert np.abs(dense[layer]["kernel"][~mask]).max() > 1e-3
        masked[layer] = {**dense[layer], "kernel": dense[layer]["kernel"] * mask}
    jobs.close(seen_below, masked, 1e-6)
    jobs.same(state.optimizer, seen_below)


def naive_mask(weights, removed):
    """Drops the smallest magnitudes; of equal ones the last in the array go first."""
    flat = np.abs(np.asarray(weights)).ravel()
    mask = np.ones(flat.size, bool)
    mask[np.lexsort((-np.arange(flat.size), flat))[:removed]] = False
    return mask.reshape(weights.shape)


def naive_quantized(w, bits=4):
    scale = np.abs(w).max(axis=0, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    return np.round(w / scale) * scale


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("prune",), ("quantize",), ("prune", "quantize")], ids="+".join
)
def test_techniques_are_the_loop_written_by_hand(names):
    module = jobs.mlp()
    rising = schedules.cubic(initial=0.0, final=0.8, begin=0, end=12)
    made = {
        "prune": T.prune(sparsity=rising, every=4),
        "quantize": T.quantize(bits=4),
    }
    optimize = optax.sgd(0.05, momentum=0.9)
    job = jobs.make(transform=T.chain(*(made[n] for n in names)), optimize=optimize)
    layers = list(job.state.code)
    code = jax.tree.map(np.asarray, job.state.code)
    slots = optimize.init(code)
    masks = {k: np.ones(code[k]["kernel"].shape, bool) for k in layers}
    grad = jax.jit(jax.value_and_grad(lambda p, x, y: plain_loss(module, p, x, y)))

    def rounded(code):
        if "quantize" not in names:
            return {k: code[k]["kernel"] for k in layers}
        return {k: naive_quantized(code[k]["kernel"]) for k in layers}

    pairs = zip(job.steps(STEPS), plain_batches(16), strict=True)
    for t, ((state, metrics), batch) in enumerate(pairs):
        kernels = rounded(code)
        params = {k: {**code[k], "kernel": kernels[k] * masks[k]} for k in layers}
        loss, grads = grad(params, *batch)
        grads = {
            k: {**grads[k], "kernel": grads[k]["kernel"] * masks[k]} for k in layers
        }
        updates, slots = optimize.update(grads, slots)
        code = jax.tree.map(np.asarray, optax.apply_updates(code, updates))
        if "prune" in names and t % 4 == 0:
            sparsity = 0.8 * (1 - (1 - min(t / 12, 1)) ** 3)
            for k, w in rounded(code).items():
                count = round(sparsity * w.size)
                if count != (~masks[k]).sum():  # a schedule that rests moves no mask
                    masks[k] = naive_mask(w, count)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=0, atol=2e-5)
        jobs.close(state.code, code, 2e-5)
    if "prune" in names:
        for k in layers:
            found = np.asarray(state.codec[0][f"{k}/kernel"])
            np.testing.assert_array_equal(found, masks[k])
            assert (~found).sum() == round(0.8 * found.size)


def test_ema_follows_its_recursion():
    job = jobs.make(ema=0.9)
    average = jax.tree.map(np.asarray, job.state.code)
    for state, _ in job.steps(8):
        average = jax.tree.map(
            lambda a, w: 0.9 * a + 0.1 * np.asarray(w), average, state.code
        )
        jobs.close(state.ema, average, 1e-6)
    assert step.trained(state) is state.ema
    assert np.abs(state.ema["logits"]["kernel"] - state.code["logits"]["kernel"]).max()


def test_without_ema_the_code_is_the_result():
    state = jobs.make().state
    assert state.ema is None and step.trained(state) is state.code


def test_losses_see_targets_and_accuracy_labels():
    classes = jobs.mlp().classes

    def to_second(key, batch, first):
        target = jnp.tile(jax.nn.one_hot(jnp.int32([1]), classes), (16, 1))
        return {**batch, "target": target}

    ((_, plain),) = jobs.make().steps(1)
    ((_, mixed),) = jobs.make(mixing=to_second).steps(1)
    assert mixed["accuracy"] == plain["accuracy"]
    assert abs(mixed["loss"] - plain["loss"]) > 1e-3


def noisy_job(seed):
    """A job whose terms show the dropout's and the augmentation's random numbers."""

    def apply(params, variables, images, *, train, key):
        logits = images.reshape(len(images), -1) @ params["kernel"]
        return (logits, {"noise": jax.random.uniform(key, ())}), variables

    def objective(outputs, batch, params, teacher):
        terms = {"drop": outputs[1]["noise"], "pixel": batch["input"][0, 0, 0, 0]}
        return jnp.sum(outputs[0]) + jnp.sum(params["kernel"] ** 2), terms

    job = jobs.make(seed=seed, optimize=optax.sgd(0.1))
    recipe = job.recipe._replace(
        network=step.Network(apply),
        objective=objective,
        prepare=lambda key, raw, first: {
            **raw,
            "input": jnp.full((16, *jobs.SHAPE), jax.random.uniform(key, ())),
        },
    )
    params = {"kernel": jnp.full((36, 4), 0.1)}
    return job._replace(recipe=recipe, state=step.init(recipe, params, {}, {}))


def test_random_keys_depend_on_the_seed_and_the_step_only():
    seen = {}
    for seed in (0, 1):
        job = noisy_job(seed)
        for t, (_, metrics) in enumerate(job.steps(4)):
            seen[seed, t] = float(metrics["drop"]), float(metrics["pixel"])
    assert len({drop for drop, _ in seen.values()}) == len(seen)
    assert len({pixel for _, pixel in seen.values()}) == len(seen)
    # Other weights, no history, other rows: the same numbers.
    job = noisy_job(1)
    job.feed.next(5)
    state = job.state._replace(
        step=jnp.int32(2), code={"kernel": jnp.full((36, 4), 7.0)}
    )
    ((_, metrics),) = job._replace(state=state).steps(1)
    assert (float(metrics["drop"]), float(metrics["pixel"])) == seen[1, 2]


@pytest.mark.slow
def test_batch_statistics_move_as_linen_moves_them():
    module, job = jobs.cnn(), jobs.make(jobs.cnn())
    variables, state = job.state.variables, job.state
    pairs = zip(job.steps(3), plain_batches(16), strict=False)
    for (new, _), (images, _) in pairs:
        _, variables = module.apply(
            {"params": state.code, **variables},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        jobs.close(new.variables, variables, 1e-5)
        state = new
    moved = state.variables["batch_stats"]["norm_0_0"]["mean"]
    assert np.abs(np.asarray(moved)).max() > 1e-3


def test_terms_are_in_the_metrics_and_add_up():
    job = jobs.make(terms=("cross_entropy", "l2"))
    ((_, metrics),) = job.steps(1)
    total = metrics["cross_entropy"] + 0.5 * metrics["l2"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)
    assert set(metrics) == {"loss", "cross_entropy", "l2", "accuracy"}


@pytest.mark.slow
def test_a_teacher_teaches_and_is_not_taught():
    module = jobs.mlp()
    job = jobs.make(module)
    teacher = jobs.make(jobs.mlp(widths=(5,)), seed=3)

    def distance(outputs, batch, params, taught):
        loss = jnp.mean((outputs[0] - taught[0]) ** 2)
        return loss, {"distance": loss}

    teach = teachers.one(teacher.recipe.network)
    recipe = job.recipe._replace(objective=distance, teacher=teach)
    fixed = job.fixed._replace(teacher=(teacher.state.code, {}, {}))
    job = job._replace(recipe=recipe, fixed=fixed)
    images, _ = next(plain_batches(16))
    student = module.apply({"params": job.state.code}, images, train=False)[0]
    other = jobs.mlp(widths=(5,)).apply(
        {"params": teacher.state.code}, images, train=False
    )[0]
    losses = [float(m["distance"]) for _, m in job.steps(8)]
    np.testing.assert_allclose(losses[0], np.mean((student - other) ** 2), rtol=1e-5)
    assert losses[-1] < losses[0]

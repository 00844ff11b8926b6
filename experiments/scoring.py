"""What techniques want measured on data: at the start of their stage, before it trains.

Training batches only, the first ones of the stage's own feed, without augmentation and
on one device. The same config measures the same after a kill, and what the technique
makes of it (masks, weights) stands in the checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, objectives, program, tree
from lib.data import augment, dataset, pipeline
from lib.report import progress
from lib.train import step, teachers
from lib.transforms import saliency, scores

Measured = dict[str, Any]  # path -> array
Given = Mapping[str, Mapping[str, Any]]  # technique -> arguments that were measured

# Settings that say how to measure; no arguments of a technique.
SETTINGS = ("batches", "rounds", "weighting")

HEADS = 2**31 - 1  # no stage's number, by which the models' own weights are drawn


class Scene(NamedTuple):
    """What is measured on.

    Attributes:
      network: the model, not bound to a pmap axis.
      params: the weights that the stage starts from.
      variables: the model's other collections.
      ranges: of the activations that are rounded; {} if none are.
      loss: (params, batch) -> scalar: the stage's objective, in training mode.
      batches: (how many, names of augmentations or ()) -> that many batches, the same
        ones at every call.
      example: a batch of one input, as shape and dtype.
      once: calls a function that makes a choice, or returns what it chose before a
        restart; what is chosen is plain data.
    """

    network: step.Network
    params: Any
    variables: Any
    ranges: Any
    loss: Callable[[Any, Any], jax.Array]
    batches: Callable[..., Iterator[Any]]
    example: jax.ShapeDtypeStruct
    once: Callable[[Callable[[], Any]], Any] = lambda make: make()


def snip(scene: Scene, settings: Any) -> Measured:
    """`saliency.snip` of the stage's loss."""
    return _by_loss(saliency.snip, scene, settings)


def grasp(scene: Scene, settings: Any) -> Measured:
    """`saliency.grasp` of the stage's loss."""
    return _by_loss(saliency.grasp, scene, settings)


def obd(scene: Scene, settings: Any) -> Measured:
    """`saliency.fisher` of the stage's loss; the closer, the smaller the batches."""
    return _by_loss(saliency.fisher, scene, settings)


def _by_loss(score: Callable, scene: Scene, settings: Any) -> Measured:
    batches = scene.batches(settings.batches)
    return score(scene.loss, scene.params, batches, pattern=settings.pattern)


def synflow(scene: Scene, settings: Any) -> Measured:
    """`saliency.synflow` of the model in evaluation; reads no data."""

    def logits(params, images):
        return scene.network.apply(
            params, scene.variables, images, train=False, key=None
        )[0][0]

    return saliency.synflow(
        logits,
        scene.params,
        scene.example.shape,
        sparsity=settings.sparsity,
        rounds=settings.rounds,
        pattern=settings.pattern,
    )


def wanda(scene: Scene, settings: Any) -> Measured:
    """`saliency.wanda` with the norms of the inputs, in evaluation."""
    norms = _of_inputs(scene, settings, program.square_norm)
    return saliency.wanda(scene.params, norms)


def grams(scene: Scene, settings: Any) -> Measured:
    """`x.T @ x` of the inputs x of each weight, in evaluation."""
    return _of_inputs(scene, settings, program.gram)


def _of_inputs(
    scene: Scene, settings: Any, stat: Callable[[jax.Array], Any]
) -> Measured:
    batches = ((batch["input"],) for batch in scene.batches(settings.batches))

    def apply(params, images):
        # In float: what rounds the weights must not depend on what rounds the rest.
        return scene.network.apply(
            params, scene.variables, images, train=False, key=None
        )

    return program.accumulate(
        apply, stat, scene.params, batches, pattern=settings.pattern
    )


# name -> what it measures: (scene, the technique's settings) -> {path: array}.
MEASURES: dict[str, Callable[[Scene, Any], Measured]] = {
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "obd": obd,
    "wanda": wanda,
    "grams": grams,
}
# Those that read the inputs of every weight, so each must be reached.
OF_INPUTS = ("wanda", "grams")


def asked(name: str, settings: Any) -> str:
    """Returns the key of `MEASURES` that a technique's settings ask for, or ""."""
    if name == "prune":
        ours = {k: k for k in MEASURES if k != "grams"}
        known = {**dict.fromkeys(scores.SCORES, ""), **ours}
        return errors.lookup(known, settings.score, "score")
    if name == "factorize":
        known = {"": "", "activations": "grams"}
        return errors.lookup(known, settings.weighting, "weighting of factorize")
    return "grams" if name in ("sparsegpt", "gptq", "adaround") else ""


def arguments(
    name: str, settings: Any, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns the settings as a technique's arguments, with what was measured.

    Raises:
      UserError: they ask for what was not measured.
    """
    options = {k: v for k, v in settings.items() if k not in SETTINGS}
    if asked(name, settings) and given is None:
        raise errors.UserError(
            f"{name}: {asked(name, settings)} is measured on batches as a stage of "
            "experiment 'compress' starts; nothing measures it here"
        )
    return {**options, **(given or {})}


def _given(name: str, found: Measured, params: Any) -> dict[str, Any]:
    """Returns what was measured as arguments of a technique."""
    if name == "prune":
        return {"score": "given", "scores": found}
    if name == "factorize":
        for path, gram in found.items():
            if np.ndim(gram) > 2:
                raise errors.UserError(
                    f"factorize: {path} has inputs for each group of a convolution or "
                    "turn of a scan; leave it out of factorize.pattern"
                )
        found = {p: over_rows(g, tree.get(params, p).shape) for p, g in found.items()}
    return {"grams": found}


def over_rows(gram: Any, shape: tuple[int, ...]) -> Any:
    """Returns the gram of a kernel seen as `[all axes but the last, last]`.

    It differs from what `program.inputs` gives where outputs stand among those axes:
    a projection `[in, heads, head]` has a row of its own for each head, fed alike.
    """
    rows = int(np.prod(shape[:-1]))
    return np.kron(gram, np.eye(rows // len(gram), dtype=np.float32))


def scene(
    config: Any,
    stage: Any,
    data: dataset.Dataset,
    network: step.Network,
    start: tuple[Any, Any, Any],
    teacher: teachers.Teacher | None = None,
    taught: Any = None,
) -> Scene:
    """Returns what a stage measures on.

    Args:
      config: the whole config.
      stage: the stage's settings.
      data: of which the training split is read.
      network: that learns, not bound to a pmap axis.
      start: its (params, variables, ranges).
      teacher: who teaches, or None.
      taught: the teacher's weights.
    """
    objective = objectives.build(stage.objective, config, examples=len(data.train))
    params, variables, ranges = start

    def loss(params, batch):
        outputs, _ = network(
            params, variables, ranges, batch["input"], train=True, key=batch["key"]
        )
        told = teacher(taught, batch) if teacher else None
        own = ()
        if isinstance(objective, objectives.Headed):
            own = (objective.init(heads_key(config), outputs, told),)
        return objective(outputs, batch, params, told, *own)[0]

    def some(count, names=()):
        key = jax.random.key(config.seed)
        found = batches(config, data, stage.batch_size, count, names)
        for i, batch in enumerate(found):
            yield {**batch, "key": jax.random.fold_in(key, i)}

    return Scene(network, params, variables, ranges, loss, some, data.example)


def heads_key(config: Any) -> jax.Array:
    """Returns the PRNG key of the first weights of an objective's own."""
    return jax.random.fold_in(jax.random.key(config.seed), HEADS)


def measure(config: Any, stage: Any, scene: Scene) -> Given:
    """Returns what the stage's techniques ask for, `{technique: {argument: value}}`.

    Args:
      config: the whole config.
      stage: the stage's settings.
      scene: what is measured on.
    """
    given = {}
    for name in stage.transforms:
        what = asked(name, config[name])
        if what:
            read = "" if what == "synflow" else f" on {config[name].batches} batches"
            progress.say(f"{name}: measuring {what}{read}")
            found = MEASURES[what](scene, config[name])
            given[name] = _given(name, found, scene.params)
    return given


def outline(
    config: Any,
    stage: Any,
    network: step.Network,
    params: Any,
    variables: Any,
    example: jax.ShapeDtypeStruct,
) -> Given:
    """Returns zeros of the shapes of what `measure` will return; computes nothing.

    Args:
      config: the whole config.
      stage: the stage's settings.
      network: that learns.
      params: shapes and dtypes of its weights.
      variables: those of its other collections.
      example: a batch of one input, as shape and dtype.

    Raises:
      UserError: a technique needs the inputs of a weight that cannot be read, or feeds
        the model what is no token.
    """
    options = dict(train=False, key=None)
    given = {}
    for name in stage.transforms:
        settings = config.get(name)
        what = asked(name, settings)
        if not what:
            continue
        if what == "synflow" and not jnp.issubdtype(example.dtype, jnp.floating):
            raise errors.UserError(
                f"{name}: synflow feeds the model ones, which token ids are not; take "
                "another score"
            )
        pattern = settings.pattern
        if what in OF_INPUTS:
            args = (params, variables, example)
            for left in program.unfed(network.apply, pattern=pattern)(*args, **options):
                raise errors.UserError(
                    f"{name}: {what} needs the inputs of {left.name}: {left.why}; "
                    f"leave it out of {name}.pattern"
                )
        if what == "grams":
            fed = program.inputs(network.apply, program.gram, pattern=pattern)
            shapes = jax.eval_shape(lambda *a, f=fed: f(*a, **options), *args)
        else:
            flat = tree.flatten(params)
            shapes = {path: flat[path] for path in tree.match([pattern], flat)}
        zeros = {p: np.zeros(x.shape, np.float32) for p, x in shapes.items()}
        given[name] = _given(name, zeros, params)
    return given


def batches(
    config: Any,
    data: dataset.Dataset,
    batch_size: int,
    count: int,
    names: tuple[str, ...] = (),
) -> Iterator[Any]:
    """Yields the first training batches, normalised; augmented if `names` says so."""
    feed = pipeline.feed(
        data.train,
        batch_size=batch_size,
        seed=config.seed,
        threads=config.data.threads,
        ahead=config.data.ahead,
    )
    distortions = augment.build(
        names, config, kind=data.inputs.KIND, classes=data.classes
    )
    prepare = pipeline.preparation(data.inputs, *distortions)
    prepare = jax.jit(prepare) if names else prepare
    key = jax.random.key(config.seed)
    for i in range(count):
        rows = jax.tree.map(lambda r: r[0], feed.next(1))
        yield prepare(jax.random.fold_in(key, i), feed.take(feed.resident, rows))

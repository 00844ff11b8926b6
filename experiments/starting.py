"""Where the weights of a stage come from that has a model of its own.

They are fresh, those of a file, or some layers of an earlier stage.
"""

import pathlib
from typing import Any

import jax

from experiments import packing, shrinking, workdir
from lib import errors, models, shrink
from lib.data import dataset
from lib.data.text import vocabulary
from lib.models import foreign, layers, layouts, matching, readers
from lib.report import progress

# What embeddings are filled up to a multiple of, for speed: `pad_to_multiple_of` of
# `transformers`, and 128 of Megatron-LM (arXiv 1909.08053).
ROUND = (8, 64, 128)


def check(stage: Any, name: str) -> None:
    """Raises a `UserError` for settings of a start that do not fit one another."""
    if stage.start and stage.weights:
        raise errors.UserError(
            f"{name} starts from stage {stage.start!r} and from weights "
            f"{stage.weights!r}; give one of the two"
        )
    if stage.unused and not stage.weights:
        raise errors.UserError(
            f"{name}.unused is of weights from outside; set {name}.weights or clear it"
        )
    if stage.layers and not (stage.start or stage.weights):
        raise errors.UserError(
            f"{name}.layers are of a stage or of weights; set {name}.start or "
            f"{name}.weights, or clear it"
        )
    if stage.fresh and not (stage.weights or stage.layers):
        raise errors.UserError(
            f"{name}.fresh is what weights or layers do not give; set {name}.weights "
            f"or {name}.layers, or clear it"
        )
    if not all(isinstance(n, int) and n >= 0 for n in stage.layers):
        raise errors.UserError(
            f"{name}.layers: expected numbers of blocks, from 0, got {stage.layers}"
        )


def has_own_model(stage: Any) -> bool:
    """Returns whether a stage builds its own model, not that of its start."""
    return not stage.start or bool(stage.layers)


def outline(
    config: Any,
    name: str,
    module: Any,
    data: dataset.Dataset,
    larger: tuple[Any, Any, shrink.Plan] | None,
) -> Any:
    """Returns shapes of `(params, variables)` as `weights` will give; computes nothing.

    Says what comes from a file, and what of either side does not.

    Args:
      config: the whole config.
      name: of the stage, which has a model of its own.
      module: its model.
      data: for the shape of an example.
      larger: (module, shapes of its (params, variables), what was cut off them) of the
        stage whose layers are taken, or None.

    Raises:
      UserError: what the weights come from does not fit.
    """
    stage = config[name]
    key = jax.eval_shape(lambda: jax.random.key(0))
    like = data.shape, data.inputs.DTYPE
    own = jax.eval_shape(lambda k: models.init(module, k, *like), key)
    if stage.weights:
        found = foreign.fit(stage.weights, module, *like, **_asked(stage))
        _knows_tokens(config, name, data, found, own[0])
        progress.say(f"{name}: {stage.weights}: {found.told()}")
    if larger is not None:
        source, shapes, cut = larger
        if cut != shrinking.NONE:
            raise errors.UserError(
                f"{name}.layers: expected a stage that nothing was cut off, got "
                f"{stage.start!r}"
            )
        layers.check_alike(module, source)
        _taken(stage, own, shapes)
        progress.say(
            f"{name}: blocks {', '.join(map(str, stage.layers))} of {stage.start} "
            f"become its own; fresh: {stage.fresh or 'nothing'}"
        )
    return own


def weights(
    config: Any,
    name: str,
    index: int,
    module: Any,
    data: dataset.Dataset,
    at: pathlib.Path,
) -> tuple[Any, Any]:
    """Returns `(params, variables)` before a stage's first step.

    Args:
      config: the whole config.
      name: of the stage, which has a model of its own.
      index: of the stage, for what is random.
      module: its model.
      data: for the shape of an example.
      at: the folder of the run.
    """
    stage = config[name]
    key = jax.random.fold_in(jax.random.key(config.seed), index)
    like = data.shape, data.inputs.DTYPE
    if stage.weights:
        return foreign.load(stage.weights, module, *like, key=key, **_asked(stage))
    # Barely optimised: it runs once, and compiling is what takes time.
    fresh = jax.jit(
        models.init,
        static_argnums=(0, 2, 3),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    own = fresh(module, key, *like)
    if not stage.start:
        return own
    start = packing.load(workdir.artifact_path(at, stage.start))
    return _taken(stage, own, (start.params, start.variables))


def _knows_tokens(
    config: Any, name: str, data: dataset.Dataset, found: matching.Match, params: Any
) -> None:
    """Raises a `UserError` for embeddings of other tokens than the data's.

    A vocabulary of another size is another one, but for rows behind its last token
    that fill the embedding up to a round number: these are told. (`Tokens.fits` refuses
    one that is larger.)

    Args:
      config: the whole config.
      name: of the stage.
      data: whose inputs are ids of tokens, or anything else.
      found: how the weights fit the model.
      params: shapes of the model's.
    """
    embeds = "params/tokens/embedding" in found.names
    if data.inputs.KIND != "text" or not embeds:
        return
    theirs = found.family != layouts.OWN.family
    if theirs and not config.data.text.vocabulary:
        raise errors.UserError(
            f"{name}.weights know the tokens of their own vocabulary, and the data's "
            "is trained anew; set data.text.vocabulary to theirs, or "
            f"{name}.fresh to '^tokens/'"
        )
    rows, count = params["tokens"]["embedding"].shape[0], data.inputs.vocabulary
    if theirs and not filled_up(count, rows):
        raise errors.UserError(
            f"{name}.weights embed {rows:,} tokens, and data.text.vocabulary "
            f"{config.data.text.vocabulary!r} has {count:,}; expected as many, or rows "
            f"that fill up to a multiple of {', '.join(map(str, ROUND))}"
        )
    if rows != count:
        progress.say(
            f"{name}: {rows - count:,} of the {rows:,} rows of the embedding in "
            f"{config[name].weights} are of no token of the vocabulary"
        )
    if theirs:
        _agrees(config, name, data.inputs.ids)


def _agrees(config: Any, name: str, ids: dict[str, int]) -> None:
    """Says how many tokens have other ids in the vocabulary beside the weights.

    Somebody may have given unused ones a meaning. Another vocabulary of the same size
    is a `UserError`: most of its tokens are elsewhere.
    """
    folder = readers.locate(config[name].weights).parent
    known = vocabulary.inside(folder)
    moved = sum(known.get(token) != i for token, i in ids.items()) if known else 0
    if not moved:
        return
    told = f"{moved:,} of {len(ids):,} tokens of data.text.vocabulary"
    if 2 * moved > len(ids):
        raise errors.UserError(
            f"{name}.weights: {told} {config.data.text.vocabulary!r} have other ids in "
            f"the vocabulary in {folder}; set it to that folder"
        )
    progress.say(f"{name}: {told} have other ids in {folder}")


def filled_up(tokens: int, rows: int) -> bool:
    """Returns whether an embedding has a row a token, or fills up to a round number."""
    return any(rows == -(-tokens // n) * n for n in (1, *ROUND))


def _asked(stage: Any) -> dict[str, Any]:
    return {
        "fresh": stage.fresh,
        "unused": stage.unused,
        "layers": tuple(stage.layers),
    }


def _taken(stage: Any, own: Any, larger: Any) -> tuple[Any, Any]:
    """Returns `(params, variables)` out of a larger model's layers."""
    if own[1] or larger[1]:
        raise errors.UserError(
            "layers: expected a model without running statistics, got "
            f"{', '.join({**own[1], **larger[1]})}"
        )
    return layers.start(own[0], larger[0], stage.layers, stage.fresh), {}

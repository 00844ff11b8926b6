"""Draws what each augmentation makes of a training image, for people to look at."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipe, workdir
from lib import errors
from lib.data import augment, dataset
from lib.report import contact_sheet, progress, style

NAME = "contact_sheet.png"

# (key, [2, H, W, C]: an image and its pair) -> [H, W, C]
Draw = Callable[[jax.Array, jax.Array], jax.Array]


def run(config: Any, workdir_path: str) -> dict[str, np.ndarray]:
    """Writes `contact_sheet.png`; returns its rows, name -> `[seeds, H, W, C]`."""
    at = workdir.find(workdir_path, config)
    sheet = config.sheet
    if sheet.seeds < 1:
        raise errors.UserError(f"sheet.seeds is at least 1, got {sheet.seeds}")
    data = recipe.load_data(config.data)
    drawers = dict(rows(config, data))
    if not 0 <= sheet.example < len(data.train) - 1:
        raise errors.UserError(
            f"sheet.example is from 0 to {len(data.train) - 2}, got {sheet.example}"
        )
    workdir.claim(at, config)
    found = data.train.source.gather(np.array([sheet.example, sheet.example + 1]))
    pair = jnp.asarray(found["input"], jnp.float32)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(
        jnp.arange(sheet.seeds)
    )
    drawn = {}
    for name, draw in drawers.items():
        seeds = jax.jit(jax.vmap(draw, in_axes=(0, None)))(keys, pair)
        drawn[name] = np.asarray(seeds)
    figure = contact_sheet.contact_sheet(drawn, config.colour.white)
    path = pathlib.Path(at) / NAME
    style.save(figure, path)
    progress.say(f"{len(drawn)} rows of {sheet.seeds} images: {path}")
    return drawn


def rows(config: Any, data: dataset.Dataset) -> Iterator[tuple[str, Draw]]:
    """Yields the rows of the sheet: nothing, each augmentation, each operation."""
    names = config.sheet.augment or (*augment.AUGMENTATIONS, *augment.MIXINGS)
    build = functools.partial(
        augment.build, kind=data.inputs.KIND, classes=data.classes
    )
    yield "plain", lambda key, pair: pair[0]
    for name in names:
        yield name, _drawer(build((name,), config))
    for name in augment.OPERATIONS if config.sheet.operations else ():
        settings = {**config.randaugment, "count": 1, "operations": (name,)}
        yield f"· {name}", _drawer(build(("randaugment",), {"randaugment": settings}))


def _drawer(made: augment.Augmentations) -> Draw:
    def draw(key: jax.Array, pair: jax.Array) -> jax.Array:
        if made.images is not None:
            return made.images(key, pair[0])
        # Raw pixels serve as inputs: mixing does not care.
        labels, weight = jnp.zeros(2, jnp.int32), jnp.ones(2)
        batch = {"input": pair, "label": labels, "weight": weight}
        return made.mixing(key, batch, 0)["input"][0]

    return draw

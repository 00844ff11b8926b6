"""From a config's names and settings to functions: networks, techniques, objectives."""

from typing import Any

import optax

from experiments import activations, chains, scoring, teaching
from lib import models, objectives
from lib.data import augment, dataset, inputs, pipeline
from lib.train import optimizer, step, teachers


def load_data(settings: Any, fitted: inputs.Inputs | None = None) -> dataset.Dataset:
    """Returns the data set that `config.data` asks for.

    Args:
      settings: `config.data`, or what the label of an artifact keeps of it.
      fitted: the inputs of that artifact, which are not made anew.
    """
    options = dict(settings)
    name, data_dir = options.pop("name"), options.pop("data_dir") or None
    options.pop("threads"), options.pop("ahead")
    return dataset.load(name, data_dir=data_dir, fitted=fitted, **options)


def build_model(settings: Any, classes: int) -> Any:
    """Returns the Linen module that a stage's `model` settings ask for."""
    return models.build(classes=classes, **settings)


def build_optimizer(stage: Any) -> optax.GradientTransformation:
    """Returns the optimiser of a stage, with its learning rate.

    Raises:
      UserError: an unknown name, or a number out of its range.
    """
    steps = max(stage.steps, 1)
    rate = optimizer.learning_rate(
        peak=stage.learning_rate,
        decay=stage.decay,
        warmup=stage.warmup,
        steps=steps,
        drops=stage.drops,
        factor=stage.drop_factor,
    )
    return optimizer.build(
        stage.optimizer,
        learning_rate=rate,
        weight_decay=stage.weight_decay,
        growing=steps if stage.growing else 0,
        momentum=stage.momentum,
        clip=stage.clip,
    )


def build(
    config: Any,
    stage: Any,
    network: step.Network,
    teacher: teachers.Teacher | None,
    prepares: inputs.Inputs,
    classes: int,
    given: scoring.Given | None = None,
    examples: int | None = None,
) -> tuple[step.Recipe, chains.Chain]:
    """Returns what a stage trains, and how.

    Args:
      config: of the run.
      stage: its part for the stage.
      network: the model that learns.
      teacher: the network that teaches, or None.
      prepares: makes inputs of stored examples.
      classes: labels lie in [0, classes).
      given: as for `chains.build`.
      examples: of the training split; None where no term counts them.
    """
    chain = chains.build(config, stage, given)
    distortions = augment.build(
        stage.augment, config, kind=prepares.KIND, classes=classes
    )
    recipe = step.Recipe(
        network=network,
        transform=chain.transform,
        optimizer=build_optimizer(stage),
        objective=objectives.build(stage.objective, config, examples=examples),
        prepare=pipeline.preparation(prepares, *distortions),
        teacher=teacher,
        mean_teacher=teaching.itself(stage),
        ema=stage.ema,
        rounding=activations.rounding(config, stage),
        freeze_norm=activations.freeze_norm(stage),
    )
    # Before it rounds, a checkpoint is of another network than the result.
    settled = max(chain.settled, recipe.rounding.begin)
    return recipe, chain._replace(settled=settled)

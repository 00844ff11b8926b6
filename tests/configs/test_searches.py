"""What searches name is there in their bases; every proposal is a sound config."""

import optuna
import pytest

from configs import tune_bayes, tune_grid, tune_pareto, tune_random
from experiments import check, tune
from experiments.tuning import space

SEARCHES = {
    "grid": tune_grid.get_config(),
    "heads": tune_grid.get_config("heads"),
    "bayes": tune_bayes.get_config(),
    "images": tune_bayes.get_config("images"),
    "random": tune_random.get_config(),
    "population": tune_random.get_config("population"),
    "pareto": tune_pareto.get_config(),
}


def proposed(config, count=20):
    """Yields configs of draws, or of a whole grid."""
    base, _ = tune.base_of(config.tune)
    rows = space.rows(config.tune.search, base)
    if config.tune.sampler == "grid":
        for params in space.grid(rows):
            yield space.changed(base, space.settings(params, rows))
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        yield space.changed(base, space.suggested(study.ask(), rows))


@pytest.mark.parametrize("name", SEARCHES)
def test_every_proposal_is_a_sound_config(name):
    configs = list(proposed(SEARCHES[name]))
    assert len(configs) >= 9
    for config in configs:
        check.settings(config)


def test_trials_of_the_image_search_see_as_many_images_and_validations():
    seen = {
        (
            config.tuned.batch_size * config.tuned.steps,
            config.tuned.steps / config.save_every,
        )
        for config in proposed(SEARCHES["images"])
    }
    assert seen == {(25_600, 4.0)}


def test_a_student_of_the_text_search_learns_from_the_blocks_it_came_from():
    for config in proposed(SEARCHES["heads"]):
        kept = config.student.layers
        assert len(kept) == config.student.model.layers
        assert config.hidden.pairs == tuple(
            (f"block_{i}", f"block_{kept[i]}") for i in range(len(kept) - 1)
        )

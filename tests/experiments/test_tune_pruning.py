"""What a pruner sees of trials: validations, by how far each has come."""

import optuna
import pytest

from configs import quickstart
from experiments.tuning import trials


def of_steps(teacher, student):
    config = quickstart.get_config()
    config.stages = ("teacher", "student")
    config.teacher.steps, config.student.steps = teacher, student
    return config


def accuracy(value):
    return {"validation_accuracy": value}


@pytest.mark.parametrize(("teacher", "student"), [(10, 200), (10, 1000), (7, 1234)])
def test_validations_are_told_in_thousandths_of_a_stage(teacher, student, tmp_path):
    trial = optuna.create_study(direction="maximize").ask()
    config = of_steps(teacher, student)
    with trials.Watched(tmp_path, trial, config) as writer:
        writer.write("teacher", teacher, accuracy(0.1))
        for part in (1, 2, 4):
            writer.write("student", part * student // 4, accuracy(part / 4))
            writer.write("student", part * student // 4, {"loss": 1.0})
    seen = trial.study.trials[0].intermediate_values
    assert seen == {1000: 0.1, 1250: 0.25, 1500: 0.5, 2000: 1.0}


def test_a_trial_that_goes_on_tells_what_it_had_seen(tmp_path):
    study = optuna.create_study(direction="maximize")
    config = of_steps(10, 40)
    with trials.Watched(tmp_path, study.ask(), config) as writer:
        writer.write("student", 10, accuracy(0.5))
    again = study.ask()
    with trials.Watched(tmp_path, again, config) as writer:
        writer.write("student", 20, accuracy(0.75))
    assert study.trials[again.number].intermediate_values == {1250: 0.5, 1500: 0.75}


def test_trials_of_different_steps_are_compared_where_they_have_come_as_far(tmp_path):
    """Half way, at step 20 of 40, a trial is below what 400 steps had at 200."""
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1)
    )
    first = study.ask()
    with trials.Watched(tmp_path / "long", first, of_steps(0, 400)) as writer:
        writer.write("student", 20, accuracy(0.1))
        writer.write("student", 200, accuracy(0.5))
    study.tell(first, 0.9)
    with trials.Watched(tmp_path / "better", study.ask(), of_steps(0, 40)) as writer:
        writer.write("student", 20, accuracy(0.6))
        assert not writer.prune
    with trials.Watched(tmp_path / "worse", study.ask(), of_steps(0, 40)) as writer:
        writer.write("student", 20, accuracy(0.4))
        assert writer.prune

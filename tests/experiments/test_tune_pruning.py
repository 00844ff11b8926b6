"""What a pruner sees of trials: validations, by how far each has come."""

import optuna
import pytest

from configs import common, quickstart
from experiments.tuning import samplers, trials


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


def test_asha_first_judges_at_a_tenth_of_a_stage_whatever_its_steps(tmp_path):
    tune = common.tune("configs/quickstart.py", (), pruner="asha").tune
    study = optuna.create_study(
        direction="maximize", pruner=samplers.pruner(tune, stages=2)
    )
    with trials.Watched(tmp_path / "long", study.ask(), of_steps(1000, 9)) as writer:
        writer.write("teacher", 100, accuracy(0.9))
        assert not writer.prune
    with trials.Watched(tmp_path / "short", study.ask(), of_steps(40, 9)) as writer:
        writer.write("teacher", 3, accuracy(0.1))
        assert not writer.prune
        writer.write("teacher", 4, accuracy(0.1))
        assert writer.prune


def test_hyperband_knows_how_far_trials_go():
    """By thousandths of all stages: a budget of 1,000 of them makes fewer brackets."""
    tune = common.tune("configs/quickstart.py", (), pruner="hyperband").tune
    tune.hyperband.reduction_factor = 2
    brackets = []
    for stages in (1, 4):
        study = optuna.create_study(pruner=samplers.pruner(tune, stages))
        trial = study.ask()
        trial.report(0.5, 1)
        trial.should_prune()
        brackets.append(len(study.pruner._pruners))
    # floor(log2(1000 / 100)) + 1 and floor(log2(4000 / 100)) + 1, of Li et al. 2018.
    assert brackets == [4, 6]

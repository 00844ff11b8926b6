"""The base of every config: locked, in plain JSON, each key known to the code."""

import importlib.util
import inspect
import json

import pytest

from configs import common
from experiments import activations, scoring
from lib import files, objectives, program
from lib import transforms as T
from lib.data import augment, dataset
from lib.data.table import fit as table_fit
from tests.configs.test_smoke import CONFIGS
from tests.e2e import runs


def load(config, variant=""):
    path = runs.ROOT / config
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


@pytest.mark.parametrize("variant", ["", "smoke"])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_is_locked_and_plain(config, variant):
    made = load(config, variant)
    assert made.is_locked
    plain = files.plain(made.to_dict())
    assert json.loads(json.dumps(plain)) == plain
    with pytest.raises(AttributeError, match="misspelt"):
        made.misspelt = 1


@pytest.mark.parametrize("config", CONFIGS)
def test_smoke_changes_values_only(config):
    """The same keys, so that what holds of the one is tested by the other."""
    assert set(paths(load(config).to_dict())) == set(
        paths(load(config, "smoke").to_dict())
    )


def paths(nested, prefix=""):
    for key, value in nested.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}.")


@pytest.mark.parametrize("config", CONFIGS)
def test_an_unknown_variant_lists_the_valid_ones(config):
    with pytest.raises(LookupError, match="unknown variant 'nonsense'.*valid: .*smoke"):
        load(config, "nonsense")


def test_a_misspelt_key_of_a_stage_is_refused():
    with pytest.raises((AttributeError, KeyError), match="learning_rat"):
        common.stage(learning_rat=1.0)


def options(function, without=()):
    return set(inspect.signature(function).parameters) - set(without)


# What the experiment makes of settings, and what it gives a technique from elsewhere.
SCHEDULE = {"schedule", "initial", "begin", "end"}
MEASURED = {"scores", "grams"}


@pytest.mark.parametrize("name", T.TECHNIQUES)
def test_the_settings_of_a_technique_are_its_arguments(name):
    settings = set(common.base()[name]) - set(scoring.SETTINGS) - {"rules"}
    if "schedule" in settings:
        assert settings >= SCHEDULE
        settings -= SCHEDULE
    assert settings == options(T.TECHNIQUES[name], without={"keep", *MEASURED})


def test_rules_give_an_argument_of_their_technique():
    base = common.base()
    ruled = {name for name in T.TECHNIQUES if "rules" in base[name]}
    assert ruled == set(T.RULED)
    for name, argument in T.RULED.items():
        assert argument in base[name]


@pytest.mark.parametrize("name", objectives.TERMS)
def test_the_settings_of_a_term_are_its_arguments(name):
    taken = options(objectives.TERMS[name], without={objectives.COUNT})
    assert set(common.base()[name]) == taken | {"weight"}


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_the_settings_of_an_augmentation_are_its_arguments(name):
    assert set(common.base()[name]) == options(augment.AUGMENTATIONS[name])


@pytest.mark.parametrize("name", augment.MIXINGS)
def test_the_settings_of_a_mixing_are_its_arguments(name):
    wanted = options(augment.MIXINGS[name], without={"classes"})
    assert set(common.base()[name]) == wanted


@pytest.mark.parametrize("name", program.CALIBRATIONS)
def test_the_settings_of_a_calibration_are_its_arguments(name):
    settings = common.base().fake_quantize
    assert set(activations.CALIBRATED_BY[name]) == options(program.CALIBRATIONS[name])
    assert set(activations.CALIBRATED_BY[name]) <= set(settings)
    settings.calibration = name
    assert isinstance(activations.calibration(settings), program.Calibration)


def test_the_settings_of_a_table_are_the_arguments_of_its_fit():
    settings = set(common.base().data.table) - {"columns", "categorical"}
    assert settings == options(table_fit.fit, {"columns", "stored", "classes"})
    assert settings == options(table_fit.check)


def test_labels_keep_the_settings_of_their_kind_of_data():
    settings = common.base().data.to_dict()
    image = dataset.own(settings)
    assert {"image", "normalisation", "label"} <= set(image) and "table" not in image
    table = dataset.own({**settings, "kind": "table"})
    assert "table" in table and not {"image", "normalisation"} & set(table)
    assert table["label"] == settings["label"]


def test_strengths_are_settings_of_their_techniques():
    base = common.base()
    for name, strength in T.STRENGTHS.items():
        assert strength in base[name]

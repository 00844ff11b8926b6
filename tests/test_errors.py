"""What a user who mistyped a name is told."""

import pytest

from lib import errors

TABLE = {"prune": 1, "quantize": 2, "share": 3}


def test_lookup_finds_the_value():
    assert errors.lookup(TABLE, "quantize", "technique") == 2


def test_unknown_name_is_answered_in_one_line():
    with pytest.raises(errors.UserError) as e:
        errors.lookup(TABLE, "qantise", "technique")
    assert str(e.value) == (
        "unknown technique 'qantise'; did you mean 'quantize'? "
        "valid: prune, quantize, share"
    )


def test_no_guess_for_a_name_like_nothing_there_is():
    with pytest.raises(errors.UserError) as e:
        errors.lookup(TABLE, "xyz", "technique")
    assert str(e.value) == "unknown technique 'xyz'; valid: prune, quantize, share"


def test_empty_table_has_no_valid_name():
    with pytest.raises(errors.UserError, match="unknown model 'mlp'; valid: none"):
        errors.lookup({}, "mlp", "model")


@pytest.mark.parametrize("name", [None, 3, ("prune",)])
def test_a_name_that_is_no_string_is_unknown_too(name):
    with pytest.raises(errors.UserError, match="unknown technique"):
        errors.lookup(TABLE, name, "technique")


def test_nearest_orders_by_similarity_and_counts():
    names = ["kernel", "kernels", "colonel", "bias"]
    assert errors.nearest("kernel", names, 2) == ["kernel", "kernels"]
    assert errors.nearest("kernel", names) == ["kernel", "kernels", "colonel"]
    assert errors.nearest("", names) == []


def test_user_error_is_a_value_error():
    # Code that knows nothing of Pare may catch what it expects from Python.
    assert issubclass(errors.UserError, ValueError)

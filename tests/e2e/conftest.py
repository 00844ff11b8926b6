"""Finished runs that several tests look at."""

import pytest

from tests.e2e import runs


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The workdir of a finished smoke run, and what it printed. Not to be changed."""
    return runs.smoke(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The workdir of a tiny run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    runs.succeed(runs.tiny(workdir))
    return workdir

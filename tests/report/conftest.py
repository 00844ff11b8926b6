"""Fixtures with a small result."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def samples():
    where = Path(__file__).with_name("samples.py")
    spec = importlib.util.spec_from_file_location("report_samples", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""The notebooks run on the small bundle of the tests of the service, and find its parameters as a user's would."""

import os
from collections.abc import Callable

import pytest

from PARAMETERS import Parameters
from tests.widgets.conftest import evaluated

__all__ = ["evaluated"]


@pytest.fixture
def in_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[Parameters], Parameters]:
    """Put parameters into the environment, where `Parameters.load()` in a notebook finds them."""

    def put(parameters: Parameters) -> Parameters:
        defaults = Parameters.load()
        for name, value in parameters.model_dump().items():
            if value != getattr(defaults, name):
                monkeypatch.setenv(f"PARAMETERS_{name}", str(value).strip("(),"))
        for name in list(os.environ):
            if name.startswith(("SERVICE_", "AZURE")):
                monkeypatch.delenv(name)
        return parameters

    return put

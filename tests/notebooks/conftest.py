"""The notebooks run on the small bundle that the tests of the service have."""

from tests.service.conftest import bundle

__all__ = ["bundle"]

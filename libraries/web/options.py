"""How is searched and downloaded, from the parameters."""

from collections.abc import Mapping
from typing import Any

from libraries.web.fetch import Timeouts
from libraries.web.search.client import user_agent


def options_from(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `download` that parameters stand for."""
    return {
        "workers": parameters["download_workers"],
        "timeouts": Timeouts(total=parameters["download_timeout"]),
        "retries": parameters["download_retries"],
        "max_bytes": parameters["download_maxBytes"],
        "max_side": parameters["download_maxSide"],
        "allowed_hosts": parameters["download_allowedHosts"],
        "user_agent": user_agent(parameters["searchContact"]),
        "retry_failed": parameters["download_retryFailed"],
    }


def provider_options_from(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `search.providers.open_provider` that parameters stand for."""
    return {
        "licence": parameters["searchLicence"],
        "url": parameters["searchUrl"],
        "contact": parameters["searchContact"],
        "allowed_hosts": parameters["download_allowedHosts"],
        "timeouts": Timeouts(total=parameters["download_timeout"]),
        "retries": parameters["download_retries"],
    }

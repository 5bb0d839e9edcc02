"""A search service on this machine, and clients that never really wait."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from libraries.web.fetch import Timeouts
from libraries.web.search.providers import Provider, open_provider
from tests.fake_search import KEY, FakeSearch, serving


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSearch]:
    """The server, and its keys in the environment."""
    monkeypatch.setenv("BRAVE_API_KEY", KEY)
    monkeypatch.setenv("SERPAPI_API_KEY", KEY)
    with serving() as server:
        yield server


@pytest.fixture
def waits() -> list[tuple[int, float | None]]:
    """The waits of the clients: the number of the try, and the seconds that the server asked for."""
    return []


@pytest.fixture
def provider(fake: FakeSearch, waits: list[tuple[int, float | None]]) -> Iterator[Callable[..., Provider]]:
    """Open a provider that is answered by the server."""

    def wait(tries: int, retry_after: float | None) -> float | None:
        waits.append((tries, retry_after))
        return None if retry_after is not None and retry_after > 60 else 0.0

    with ExitStack() as stack:

        def call(name: str, **changes: Any) -> Provider:
            options: dict[str, Any] = {
                "url": fake.url,
                "contact": "someone@example.org",
                "allowed_hosts": ["127.0.0.1"],
                "timeouts": Timeouts(connect=5, read=5, total=10),
                "wait": wait,
            }
            return stack.enter_context(open_provider(name, **{**options, **changes}))

        yield call

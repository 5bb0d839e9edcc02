"""An object store on loopback, S3 as moto serves it, which counts what it is asked and misbehaves as configured."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

BUCKET = "pictures"
ROOT = f"s3://{BUCKET}/flowers"
_ACCOUNT = "123456789012"  # moto's


class FakeStore:
    """One bucket.

    Attributes:
        url: where it is served.
        read: the keys that were read, in order.
        listed: how many pages of the list were asked for.
        written: what else was asked: there should be nothing.
        answers: called with each key that is read: the HTTP status and error code to give instead; None for the object.
        body: called with each key that is read, and '' for a list: what to send instead; None for what there is.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self.url = ""
        self.read: list[str] = []
        self.listed = 0
        self.written: list[str] = []
        self.answers: Callable[[str], tuple[int, str] | None] = lambda key: None
        self.body: Callable[[str], Iterable[bytes] | None] = lambda key: None
        self._lock = threading.Lock()

    @property
    def _objects(self) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends[_ACCOUNT]["aws"]

    def put(self, path: str, content: bytes = b"") -> None:
        """Put an object into the folder `ROOT`, under any name."""
        self._objects.put_object(BUCKET, f"flowers/{path}", content)

    def remove(self, path: str) -> None:
        """Remove an object from the folder."""
        self._objects.delete_object(BUCKET, f"flowers/{path}")

    def reset(self) -> None:
        """Empty the bucket, and forget what was asked."""
        from moto.moto_api._internal.models import moto_api_backend

        moto_api_backend.reset()
        self._objects.create_bucket(BUCKET, "us-east-1")
        self.forget()
        self.answers = lambda key: None
        self.body = lambda key: None

    def forget(self) -> None:
        """Forget what was asked."""
        self.read, self.listed, self.written = [], 0, []

    def __call__(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, query = environment["REQUEST_METHOD"], environment.get("QUERY_STRING", "")
        bucket, _, key = environment["PATH_INFO"].encode("latin-1").decode().lstrip("/").partition("/")
        with self._lock:
            if method == "GET" and key:
                self.read.append(key.removeprefix("flowers/"))
            elif method == "GET" and "list-type=2" in query:
                self.listed += 1
            else:
                self.written.append(f"{method} {key} {query}")
        path = key.removeprefix("flowers/") if key else ""
        if (body := self.body(path)) is not None:
            start_response("200 OK", [("Content-Type", "application/xml" if not key else "image/jpeg")])
            return body
        answer = self.answers(path)
        if answer is None:
            return self._application(environment, start_response)
        status, code = answer
        body = f"<Error><Code>{code}</Code><Message>secret-id-0123 for {bucket}</Message></Error>".encode()
        start_response(f"{status} no", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def serving() -> Iterator[FakeStore]:
    """A store that is served meanwhile."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, kind: str, message: str, *details: object) -> None:
            pass

    store = FakeStore(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Quiet)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        store.reset()
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(store: FakeStore) -> dict[str, str]:
    """Where the backend of S3 finds the store, and credentials."""
    return {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # botocore tries again by itself, after seconds
    }


@contextmanager
def used(store: FakeStore) -> Iterator[FakeStore]:
    """This process, and those it starts, use the store."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(store).items():
            patch.setenv(name, value)
        yield store

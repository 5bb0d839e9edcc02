"""Which addresses of stores are accepted, and that none that is refused is repeated."""

import pytest

from libraries.base.errors import ParameterError
from libraries.web.store.address import checked_url
from PARAMETERS import Parameters


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket/folder", "s3://bucket/folder"),
        (" S3://bucket/a/b/ ", "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        ("s3a://bucket/f", "s3://bucket/f"),
        ("gcs://bucket", "gs://bucket"),
        ("az://container/f", "abfs://container/f"),
        ("abfs://container@account.dfs.core.windows.net/f", "abfs://container@account.dfs.core.windows.net/f"),
        ("oci://bucket@namespace/f", "oci://bucket@namespace/f"),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/pictures/f",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/pictures/f",
        ),
        ("s3://bucket/käse & brot/ä", "s3://bucket/käse & brot/ä"),
    ],
)
def test_accepted(given: str, meant: str) -> None:
    assert checked_url(given) == meant
    assert Parameters.load({"imgStoreUrl": given}).imgStoreUrl == meant


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("s3://AKIA123:hunter2@bucket/folder", "user name or password"),
        ("s3://hunter2@bucket", "user name or password"),
        ("s3://AKIA123:hunter2/folder", "user name or password"),
        ("gs://hunter2@bucket/folder", "user name or password"),
        ("abfs://user:hunter2@container@account/f", "user name or password"),
        ("abfs://container:hunter2@account.dfs.core.windows.net/f", "user name or password"),
        ("https://user:hunter2@example.org/pictures", "user name or password"),
        ("abfs://container@account/f?sv=1&sig=hunter2", "'?' or '#'"),
        ("s3://bucket/f#hunter2", "'?' or '#'"),
        ("simplecache::s3://hunter2/f", "kinds of stores are s3, "),
        ("zip://a.zip::s3://hunter2/f", "kinds of stores are s3, "),
        ("reference://hunter2", "kinds of stores are s3, "),
        ("github://org:hunter2@main/f", "user name or password"),
        ("https://example.org/hunter2", "kinds of stores are s3, "),
        ("memory://hunter2", "kinds of stores are s3, "),
        ("file:///home/hunter2", "put their folder, or a link to it, into images/"),
        ("local://hunter2", "put their folder, or a link to it, into images/"),
        ("/home/hunter2", "put their folder, or a link to it, into images/"),
        (r"C:\hunter2", "put their folder, or a link to it, into images/"),
        ("s3://", "names no bucket"),
        ("s3:///hunter2", "names no bucket"),
        ("s3://bucket/a\x00hunter2", "control characters"),
        ("s3://bucket/a/../hunter2", "is empty, '.' or '..'"),
        ("s3://bucket//hunter2", "is empty, '.' or '..'"),
    ],
)
def test_refused(given: str, why: str) -> None:
    for load in (
        lambda: Parameters.load({"imgStoreUrl": given}),
        lambda: Parameters(imgStoreUrl=given),
    ):
        with pytest.raises(ParameterError) as refused:
            load()
        assert why in str(refused.value)
        assert "hunter2" not in repr(refused.value) and refused.value.__cause__ is None

"""Each service: its requests, how its answers are parsed, and when requests end."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from libraries.base.errors import ParameterError, SearchError
from libraries.web.search.providers import MAX_PAGES, SERVICES, first_images, open_provider
from tests import fake_search
from tests.fake_search import KEY, FakeSearch, Reply

Open = Callable[..., Any]
NAMES = tuple(SERVICES)
WORKING: dict[str, Callable[[int], fake_search.Answer]] = {
    "openverse": fake_search.openverse,
    "wikimedia": fake_search.wikimedia,
    "brave": fake_search.brave,
    "serpapi": fake_search.serpapi,
}


def urls(found: list[Any]) -> list[str]:
    return [image.url for image in found]


def test_openverse(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.openverse(1000)]
    found = first_images(provider("openverse"), "striped t-shirt", count=50)
    assert [request.path for request in fake.requests] == ["/v1/images/"] * 3
    assert [request.parameters for request in fake.requests] == [
        {"q": "striped t-shirt", "page": str(page), "page_size": "20"} for page in (1, 2, 3)
    ]
    assert urls(found) == [f"https://images.example/files/striped-t-shirt-{n}.jpg" for n in range(1, 51)]
    assert asdict(found[4]) == {
        "url": "https://images.example/files/striped-t-shirt-5.jpg",
        "page": "https://www.flickr.example/photos/striped-t-shirt-5",
        "title": "Picture 5 of a striped t-shirt",
        "creator": "Photographer 5",
        "licence": "CC BY-SA 2.0",
        "licence_url": "https://creativecommons.org/licenses/1/2.0/",
        "attribution": '"Picture 5" by Photographer 5.',
        "width": 640,
        "height": 480,
        "provider": "openverse",
        "rank": 5,
    }


def test_openverse_gives_few_pages_to_unregistered_programs(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.openverse(10_000)]
    assert len(first_images(provider("openverse"), "cat", count=500)) == 240
    assert len(fake.requests) == 12


def test_wikimedia(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.wikimedia(1000)]
    found = first_images(provider("wikimedia"), "striped t-shirt", count=60)
    assert [request.parameters.pop("gsroffset") for request in fake.requests] == ["0", "50"]
    assert fake.requests[1].path == "/w/api.php"
    assert fake.requests[1].parameters == {
        "action": "query",
        "format": "json",
        "maxlag": "5",
        "generator": "search",
        "gsrsearch": "striped t-shirt filetype:bitmap",
        "gsrnamespace": "6",
        "gsrlimit": "50",
        "prop": "imageinfo",
        "iiprop": "url|size|mime|extmetadata",
        "iiurlwidth": "1200",
    }
    assert fake.requests[0].headers["User-Agent"].endswith("(someone@example.org)")
    assert urls(found) == [f"https://upload.wikimedia.example/commons/thumb/{n}.jpg" for n in range(1, 61)]
    assert asdict(found[6]) == {
        "url": "https://upload.wikimedia.example/commons/thumb/7.jpg",
        "page": "https://commons.wikimedia.example/wiki/File:7.tif",
        "title": "Cat 7.tif",
        "creator": "Ann & Bob 7",
        "licence": "CC BY-SA 4.0",
        "licence_url": "https://creativecommons.example/licenses/by-sa/4.0",
        "attribution": "Ann & Bob 7, Cat 7.tif, CC BY-SA 4.0, via Wikimedia Commons",
        "width": 4000,
        "height": 3000,
        "provider": "wikimedia",
        "rank": 7,
    }


def test_brave(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.brave(1000)]
    found = first_images(provider("brave"), "cat", count=300)
    [request] = fake.requests  # there is one page
    assert request.path == "/res/v1/images/search"
    assert request.parameters == {"q": "cat", "count": "200", "safesearch": "strict"}
    assert request.headers["X-Subscription-Token"] == KEY
    assert urls(found) == [f"https://pages.example/{n}.jpg" for n in range(1, 201)]
    assert (found[2].page, found[2].title, found[2].width, found[2].licence) == (
        "https://pages.example/3",
        "Cat 3",
        900,
        "",
    )


def test_serpapi(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.serpapi(1000)]
    found = first_images(provider("serpapi"), "cat", count=150)
    assert [request.path for request in fake.requests] == ["/search"] * 2
    assert [request.parameters for request in fake.requests] == [
        {"engine": "google_images", "q": "cat", "ijn": page, "api_key": KEY} for page in ("0", "1")
    ]
    assert urls(found) == [f"https://pages.example/{n}.jpg" for n in range(1, 151)]
    assert (found[2].page, found[2].title, found[2].height) == ("https://pages.example/3", "Cat 3", 600)


# The end of the results


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("total", [0, 1, 7, 20, 40, 100])
def test_no_more_than_there_are(fake: FakeSearch, provider: Open, name: str, total: int) -> None:
    fake.answers = [WORKING[name](total)]
    found = first_images(provider(name), "cat", count=100)
    assert [image.rank for image in found] == list(range(1, total + 1))
    assert len(fake.requests) <= total // 20 + 1


@pytest.mark.parametrize("name", ["openverse", "wikimedia", "serpapi"])
def test_pages_that_repeat(fake: FakeSearch, provider: Open, name: str) -> None:
    changes = {"openverse": {"page": "1"}, "wikimedia": {"gsroffset": "0"}, "serpapi": {"ijn": "0"}}[name]

    def answer(request: fake_search.Request) -> Reply:
        request.parameters |= changes
        reply = WORKING[name](1000)(request)
        if name == "wikimedia":
            reply.body["continue"] = {"gsroffset": 50 * len(fake.requests)}
        return reply

    fake.answers = [answer]
    found = first_images(provider(name), "cat", count=500)
    assert len(set(urls(found))) == len(found) == {"openverse": 20, "wikimedia": 50, "serpapi": 100}[name]
    assert len(fake.requests) == 2


def test_pages_without_end_that_bring_one_new_image_each(fake: FakeSearch, provider: Open) -> None:
    def answer(request: fake_search.Request) -> Reply:
        offset = int(request.parameters["gsroffset"])
        page = fake_search.wikimedia_page(offset)
        return Reply({"query": {"pages": {"1": page}}, "continue": {"gsroffset": offset + 1}})

    fake.answers = [answer]
    assert len(first_images(provider("wikimedia"), "cat", count=500)) == len(fake.requests) == MAX_PAGES


@pytest.mark.parametrize("following", [0, -50, "50", None, {}])
def test_wikimedia_that_does_not_advance(fake: FakeSearch, provider: Open, following: Any) -> None:
    pages = {"1": fake_search.wikimedia_page(1)}
    fake.answers = [lambda _: Reply({"query": {"pages": pages}, "continue": {"gsroffset": following}})]
    assert len(first_images(provider("wikimedia"), "cat", count=50)) == 1
    assert len(fake.requests) == 1


# Licences


@pytest.mark.parametrize(
    ("licence", "asked"),
    [("commercial", "commercial"), ("modify", "modification"), ("commercialModify", "commercial,modification")],
)
def test_openverse_filters_licences_and_is_checked(fake: FakeSearch, provider: Open, licence: Any, asked: str) -> None:
    fake.answers = [fake_search.openverse(40)]  # of every fourth CC BY-NC, although that was not wanted
    found = first_images(provider("openverse", licence=licence), "cat", count=20, licence=licence)
    assert {request.parameters["license_type"] for request in fake.requests} == {asked}
    forbidden = 3 if "commercial" in licence else None
    assert [image.rank for image in found] == [n for n in range(1, 41) if n % 4 != forbidden][:20]


def test_wikimedia_is_asked_until_enough_licences_fit(fake: FakeSearch, provider: Open) -> None:
    def answer(request: fake_search.Request) -> Reply:
        reply = fake_search.wikimedia(200)(request)
        for page in reply.body["query"]["pages"].values():
            rare = page["index"] % 10 == 0
            page["imageinfo"][0]["extmetadata"]["LicenseShortName"]["value"] = "CC0" if rare else "Fair use"
        return reply

    fake.answers = [answer]
    found = first_images(provider("wikimedia"), "cat", count=8, licence="commercial")
    assert [image.rank for image in found] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert {image.licence for image in found} == {"CC0"}


@pytest.mark.parametrize("name", ["brave", "serpapi"])
def test_services_that_report_no_licences_cannot_filter(name: str) -> None:
    with (
        pytest.raises(ParameterError, match=rf"searchLicence = modify: {name} does not report .* use openverse"),
        open_provider(name, licence="modify"),
    ):
        pass


# Invalid answers


RUBBISH: list[tuple[Any, str]] = [
    (b"", "not JSON"),
    (b"<html>Just a moment...</html>", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b'{"results": [', "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"1" * 10_000, "not JSON"),
    ([], "found list"),
    (None, "found NoneType"),
    ("results", "found str"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("body", "problem"), RUBBISH)
def test_answers_that_are_not_json(fake: FakeSearch, provider: Open, name: str, body: Any, problem: str) -> None:
    fake.answers = [lambda _: Reply(body)]
    with pytest.raises(SearchError) as raised:
        first_images(provider(name), "cat", count=5)
    message = str(raised.value)
    assert message.startswith(f"{name} gave an answer that is not understood: ") and "\n" not in message
    assert problem in message
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("openverse", {}),
        ("openverse", {"results": "none"}),
        ("openverse", {"results": [["a"]]}),
        ("brave", {"type": "images"}),
        ("brave", {"results": {"0": {}}}),
        ("serpapi", {"search_metadata": {"status": "Success"}}),
        ("serpapi", {"images_results": 5}),
        ("wikimedia", {"query": []}),
        ("wikimedia", {"query": {"pages": [{}]}}),
        ("wikimedia", {"query": {"pages": {"1": "page"}}}),
    ],
)
def test_answers_of_another_shape(fake: FakeSearch, provider: Open, name: str, body: Any) -> None:
    fake.answers = [lambda _: Reply(body)]
    with pytest.raises(SearchError, match=rf"^{name} gave an answer that is not understood: expected a (list|table)"):
        first_images(provider(name), "cat", count=5)


WRONG = [None, -7, "", "no address", [], {}, {"url": 3}, "file:///etc/passwd", "javascript:alert(1)", "\ud800"]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_results_with_wrong_values_are_left_out_or_empty(fake: FakeSearch, provider: Open, wrong: Any) -> None:
    good = fake_search.openverse_image(1)
    odd = {**dict.fromkeys(good, wrong), "url": "https://images.example/odd.jpg"}
    results = [good, good | {"url": wrong}, odd, {}]
    fake.answers = [lambda _: Reply({"results": results, "page_count": 1})]
    found = first_images(provider("openverse"), "cat", count=20)
    assert urls(found) == [good["url"], "https://images.example/odd.jpg"]
    assert (found[1].page, found[1].licence_url, found[1].width) == ("", "", None)

    pages = {"1": fake_search.wikimedia_page(1), "2": {"imageinfo": wrong}, "3": {"imageinfo": [wrong]}}
    pages["4"] = {"index": wrong, "imageinfo": [{"url": "https://images.example/4.jpg", "extmetadata": wrong}]}
    pages["5"] = {"imageinfo": [{"url": "https://images.example/5.jpg", "extmetadata": {"Artist": {"value": wrong}}}]}
    fake.answers = [lambda _: Reply({"query": {"pages": pages}})]
    found = first_images(provider("wikimedia"), "cat", count=20)
    assert sorted(image.title for image in found) == ["", "", "Cat 1.tif"]

    fake.answers = [lambda _: Reply({"results": [{"properties": wrong}, {"properties": {"url": wrong}}, {}]})]
    assert first_images(provider("brave"), "cat", count=20) == []
    fake.answers = [lambda _: Reply({"images_results": [{"original": wrong}, {}], "serpapi_pagination": wrong})]
    assert first_images(provider("serpapi"), "cat", count=20) == []


# Errors of Wikimedia and SerpApi with status 200


@pytest.mark.parametrize("code", ["maxlag", "ratelimited", "readonly"])
def test_a_busy_wikimedia_is_called_again(fake: FakeSearch, provider: Open, waits: list[Any], code: str) -> None:
    busy = Reply({"error": {"code": code, "info": "Waiting for db1: 7 seconds lagged"}}, headers={"Retry-After": "5"})
    fake.answers = [lambda _: busy, lambda _: busy, fake_search.wikimedia(3)]
    assert len(first_images(provider("wikimedia"), "cat", count=5)) == 3
    assert waits == [(1, 5.0), (2, 5.0)]

    fake.answers = [lambda _: busy]
    with pytest.raises(SearchError, match=rf"^wikimedia is busy \({code}\): run the script again later"):
        first_images(provider("wikimedia"), "cat", count=5)


def test_other_errors_of_wikimedia(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [lambda _: Reply({"error": {"code": "badvalue", "info": "Unrecognized\x1b value"}})]
    with pytest.raises(SearchError, match=r"query \('Unrecognized value'\): change"):
        first_images(provider("wikimedia"), "cat", count=5)
    fake.answers = [lambda _: Reply({"error": ["?"]})]
    with pytest.raises(SearchError, match="without a reason"):
        first_images(provider("wikimedia"), "cat", count=5)


def test_other_errors_of_serpapi(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [lambda _: Reply({"error": f"Search with {KEY} failed", "search_metadata": {"status": "Error"}})]
    with pytest.raises(SearchError) as raised:
        first_images(provider("serpapi"), "cat", count=5)
    assert str(raised.value) == "serpapi could not answer ('Search with *** failed'): run the script again later"


# Names


@pytest.mark.parametrize(
    ("name", "words"), [("bing", "11 August 2025"), ("Google", "1 January 2027"), ("ask", "one of")]
)
def test_unknown_services(name: str, words: str) -> None:
    with pytest.raises(ParameterError) as raised, open_provider(name):
        pass
    message = str(raised.value)
    assert message.startswith(f"searchProvider = {name}: ") and words in message and "openverse" in message

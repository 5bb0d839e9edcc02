"""The real service against generated requests: from its own OpenAPI document, and with damaged pictures."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from pillow_heif import from_pillow

from tests.service.conftest import KEY, Live, StartService

TIMEOUT = 60
BATCH = 50
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF", "JPEG2000", "PPM")


def test_requests_made_from_the_document(start_service: StartService, tmp_path: Path) -> None:
    """No 5xx but 503 and 504, and every answer as the document says; `positive_data_acceptance` cannot hold, as not
    all bytes are pictures.
    """
    keys = dict.fromkeys(("SERVICE_KEY", "SERVICE_ADMIN_KEY", "SERVICE_FEEDBACK_KEY"), KEY)
    live = start_service("--serve_maxQueue=1000", f"--serve_keepFolder={tmp_path}", **keys)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{live.url}/openapi.json"]
    options = "--phases=examples,coverage,fuzzing --max-examples=60 --seed=1 --no-color --continue-on-failure "
    options += "--exclude-checks=positive_data_acceptance --generation-database=none --no-shrink --warnings=off"
    done = subprocess.run(
        [*command, *options.split(), "-H", f"Authorization:Bearer {KEY}"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert live.process.poll() is None
    assert live.errors == ""


@pytest.mark.parametrize("part", range(4))
def test_damaged_pictures(live: Live, image_files: list[Path], part: int) -> None:
    """1,000 in all, 50 per request: each gives a prediction or an error, and the service keeps running."""
    generator = np.random.default_rng(part)
    whole = [as_kind(path, KINDS[i % len(KINDS)]) for i, path in enumerate(image_files)]
    for _ in range(5):
        damaged = [mutated(whole, generator) for _ in range(BATCH)]
        files = [("images", (str(i), data)) for i, data in enumerate(damaged)]
        answer = requests.post(live.url + "/predict", files=files, timeout=TIMEOUT)
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        assert [prediction["name"] for prediction in found] == [str(i) for i in range(BATCH)]
        for prediction in found:
            assert ("label" in prediction) != ("error" in prediction)
            assert prediction.get("error", {}).get("status") in (None, 413, 422)
            assert "0x" not in prediction.get("error", {}).get("detail", "").partition("begins with")[0]
        alone = requests.post(live.url + "/explain", data=damaged[0], timeout=TIMEOUT)
        assert alone.status_code in (200, 413, 422)
    assert requests.post(live.url + "/predict", data=whole[0], timeout=TIMEOUT).status_code == 200
    assert live.process.poll() is None
    assert live.errors == ""


def as_kind(path: Path, kind: str) -> bytes:
    """A picture of the small set as a file of this kind."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        if kind == "HEIF":
            from_pillow(image).save(buffer, quality=80)
        else:
            image.save(buffer, kind)
    return buffer.getvalue()


def mutated(whole: list[bytes], generator: np.random.Generator) -> bytes:
    """One of the files with bytes flipped, removed, doubled, or replaced by bytes of another file."""
    data, other = (bytearray(whole[i]) for i in generator.integers(len(whole), size=2))
    for _ in range(generator.integers(1, 4)):
        at, length = int(generator.integers(len(data) or 1)), int(generator.integers(1, 64))
        match generator.integers(6):
            case 0:
                data[at : at + 1] = bytes([generator.integers(256)])
            case 1:
                data[at : at + length] = generator.bytes(length)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length] * 3
            case _:
                data[at:] = other[int(generator.integers(len(other))) :]
    head = int(generator.integers(64))  # where width, height and format are
    if head < len(data) and generator.random() < 0.3:
        data[head] = generator.integers(256)
    return bytes(data)

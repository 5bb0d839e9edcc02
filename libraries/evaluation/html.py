"""Pieces of a page: text made safe, pictures inside the page, a line from 0 to 100%."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A small JPEG of an image uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


def text(value: Any) -> str:
    """Anything as HTML text: escaped, and file names that are not Unicode made so."""
    return escape(str(value).encode("utf-8", "replace").decode())


def name(value: str) -> str:
    """A label or a path, whose writing direction must not disturb what stands around it."""
    return f"<bdi>{text(value)}</bdi>"


def embedded(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def paragraphs(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)


def scale(value: float | None, interval: Sequence[float] | None, mark: float | None = None) -> str:
    """A line from 0 to 100% with the value, its interval, and a mark to compare with."""
    parts = []
    if interval is not None:
        low, high = interval
        parts.append(f'<span class="range" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></span>')
    if mark is not None:
        parts.append(f'<span class="mark" style="left:{100 * mark:.2f}%"></span>')
    if value is not None:
        parts.append(f'<span class="dot" style="left:{100 * value:.2f}%"></span>')
    return f'<div class="scale" aria-hidden="true">{"".join(parts)}</div>'


def cell(value: float | None, form: str) -> str:
    if value is None:
        return '<td data-value="">–</td>'
    return f'<td data-value="{value:.6f}">{form.format(value)}</td>'


def fold(title: str, entries: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{text(key)}</td><td>{_value(value)}</td></tr>" for key, value in entries.items())
    return f'<details><summary>{title}</summary><table class="names"><tbody>{rows}</tbody></table></details>'


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{text(key)}: {text(inner)}" for key, inner in value.items())
    return text(value)

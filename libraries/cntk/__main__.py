"""python -m libraries.cntk MODEL.model OUT.onnx: converts a network of CNTK to ONNX; --describe prints its nodes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from libraries.base.console import prepare_console
from libraries.base.errors import PipelineError
from libraries.cntk.convert import convert, save
from libraries.cntk.describe import describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert or describe a network; returns the exit status: 0 done, 1 the file cannot be read or converted."""
    parser = argparse.ArgumentParser(
        prog="python -m libraries.cntk",
        description="Convert a network of the Cognitive Toolkit (CNTK 2) to ONNX, or print its nodes.",
    )
    parser.add_argument("model", type=Path, help="the network, as CNTK saved it (.model)")
    parser.add_argument("onnx", type=Path, nargs="?", help="the file to write")
    parser.add_argument("--describe", action="store_true", help="print inputs, outputs and nodes")
    parser.add_argument(
        "--output", action="append", metavar="NODE", help="use this node's output instead; may be repeated"
    )
    parser.add_argument("--size", type=_size, metavar="HxW", help="height and width of the images, if not the file's")
    prepare_console()
    given = parser.parse_args(arguments)
    if not given.describe and given.onnx is None:
        parser.error("name the file to write, or --describe")
    try:
        if given.describe:
            print(describe(given.model))  # noqa: T201
        if given.onnx is not None:
            model = convert(given.model, outputs=given.output, image_size=given.size)
            save(model, given.onnx)
            names = [", ".join(value.name for value in values) for values in (model.graph.input, model.graph.output)]
            print(f"Written: {given.onnx} (inputs: {names[0]}; outputs: {names[1]})")  # noqa: T201
    except PipelineError as error:
        print(f"libraries.cntk: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give height and width in pixels, like 224x224")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())

"""Fill DATA_DIR/images/<datasetName>/<label>/ with images.

Reads:  the list of URLs `imgUrlsPath`, or, for the data set 'solarCells', the images in the package elpv-dataset.
Writes: images/<datasetName>/<label>/*, and for a list proc/<datasetName>/downloads.csv, every URL with its outcome.
Skip this script if your images already lie there, one folder per class.
"""

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import progress, table
from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.data import packaged
from PARAMETERS import Parameters


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    with tracking.run("0_downloadData", parameters) as record:
        if parameters.imgUrlsPath is not None:
            download_list(parameters, layout, record)
        elif parameters.datasetName == "solarCells":
            copy_solar_cells(layout, record)
        else:
            raise InputError(
                f"there is no source for the data set '{parameters.datasetName}': "
                f"put one folder of images per class into {layout.images}, or give a list of URLs with --imgUrlsPath"
            )
    print(f"The images are in {layout.images}; next: scripts/1_prepareData.py")


def copy_solar_cells(layout: Layout, record: tracking.Record) -> None:
    print(f"{packaged.SOLAR_CELLS_ABOUT}\nRule: {packaged.SOLAR_CELLS_RULE}")
    copied = packaged.copy_solar_cells(layout.images, progress=lambda pairs: progress(pairs, "Copying"))
    record.metrics["copied"] = copied
    print(f"{copied:,} images copied" if copied else "All images were there already")


def download_list(parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    raise NotImplementedError


if __name__ == "__main__":
    run(main, Parameters)

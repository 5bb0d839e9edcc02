"""Fill DATA_DIR/images/<datasetName>/<label>/ with images.

Reads:  the list of URLs `imgUrlsPath`, or, for the data set 'solarCells', the images in the package elpv-dataset.
Writes: images/<datasetName>/<label>/*, and for a list proc/<datasetName>/downloads.csv, every URL with its outcome.
Skip this script if your images already lie there, one folder per class.
"""

from pathlib import Path

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import ProgressBar, progress, table
from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.data import packaged
from PARAMETERS import Parameters


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    with tracking.run("0_downloadData", parameters) as record:
        if parameters.imgUrlsPath is not None:
            download_list(parameters.imgUrlsPath, parameters, layout, record)
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


def download_list(urls: Path, parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    from libraries.data.web.download import download
    from libraries.data.web.fetch import Timeouts
    from libraries.data.web.outcomes import summary
    from libraries.data.web.urllist import read_url_list

    pairs = read_url_list(urls)
    table_path = layout.proc / "downloads.csv"
    print(f"Downloading the {len(pairs):,} images of {urls}")
    with ProgressBar("Downloading", total=len(pairs), unit="URLs") as bar:
        outcomes = download(
            pairs,
            folder=layout.images,
            outcomes=table_path,
            workers=parameters.download_workers,
            timeouts=Timeouts(total=parameters.download_timeout),
            retries=parameters.download_retries,
            max_bytes=parameters.download_maxBytes,
            max_side=parameters.download_maxSide,
            allowed_hosts=parameters.download_allowedHosts,
            retry_failed=parameters.download_retryFailed,
            progress=lambda done, total, had: bar.show(done),
        )
    reasons = summary(outcomes)
    print(table("What became of the URLs", ["", "URLs"], reasons.items(), footer=["all", len(outcomes)]))
    print(f"Every URL with its outcome: {table_path}")
    record.metrics.update(urls=len(outcomes), downloaded=reasons.get("downloaded", 0))
    record.files.append(table_path)


if __name__ == "__main__":
    run(main, Parameters)

"""Fill DATA_DIR/images/<datasetName>/<label>/ with images: from URLs, a table, a store, a search, or a package.

Skip this script if your images are already there, in one folder per class.
"""

from pathlib import Path

from libraries.base.command import run
from libraries.base.console import ProgressBar, counted, progress, say, table
from libraries.base.errors import InputError, ParameterError
from libraries.base.file_system import on_disk
from libraries.base.layout import Layout
from libraries.data import solar_cells
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import RESOURCES, Parameters

SOURCES = ("imgUrlsPath", "imgLabelsPath", "imgStoreUrl")


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    queries = RESOURCES / on_disk(RESOURCES, f"{parameters.datasetName}Queries.toml")
    with tracking.run("0_downloadData", parameters) as record:
        given = [name for name in SOURCES if getattr(parameters, name)]
        if len(given) > 1:
            raise ParameterError(f"{' and '.join(given)} are {len(given)} sources: give only one of them")
        if parameters.imgStoreUrl is not None:
            take_store(parameters.imgStoreUrl, parameters, layout, record)
        elif parameters.imgLabelsPath is not None:
            take_table(parameters.imgLabelsPath, parameters, layout, record)
        elif parameters.imgUrlsPath is not None:
            download_list(parameters.imgUrlsPath, parameters, layout, record)
        elif queries.exists():
            search_and_download(queries, parameters, layout, record)
        elif parameters.datasetName == "solarCells":
            copy_solar_cells(layout, record)
        else:
            raise InputError(
                f"there is no source for the data set '{parameters.datasetName}': "
                f"put one folder of images per class into {layout.images}, give a table of images and labels with "
                "--imgLabelsPath, a list of URLs with --imgUrlsPath or a folder in an object store with --imgStoreUrl, "
                f"or write words to search for into {queries}"
            )
    print(f"The images are in {layout.images}; next: scripts/1_prepareData.py")


def copy_solar_cells(layout: Layout, record: Record) -> None:
    print(f"{solar_cells.SOLAR_CELLS_ABOUT}\nRule: {solar_cells.SOLAR_CELLS_RULE}")
    copied = solar_cells.copy_solar_cells(layout.images, progress=lambda pairs: progress(pairs, "Copying"))
    record.metrics["copied"] = copied
    print(f"{counted(copied, 'image')} copied" if copied else "All images are already there")


def take_table(path: Path, parameters: Parameters, layout: Layout, record: Record) -> None:
    from libraries.data.exchange import flat_folder, label_table

    labels = label_table.read_label_table(path, columns=parameters.imgLabelsColumns)
    folder = parameters.imgFolder or path.parent
    print(*labels.summary_lines(), f"The images are taken from {folder}", sep="\n")
    with ProgressBar("Placing") as bar:
        placed = flat_folder.place(labels, folder, layout.images, progress=bar.show)
    print(*placed.summary_lines(), sep="\n")
    record.metrics.update(images=placed.count)


def take_store(url: str, parameters: Parameters, layout: Layout, record: Record) -> None:
    from libraries.web.store.store import StoreOptions, copy_store

    table_path = layout.proc / "stored_images.csv"
    options = StoreOptions(
        workers=parameters.download_workers,
        timeout=parameters.download_timeout,
        retries=parameters.download_retries,
        max_bytes=parameters.download_maxBytes,
    )
    print(f"Copying the images of {url}")
    with ProgressBar("Listing", unit="objects") as listing, ProgressBar("Copying") as bar:
        outcome = copy_store(url, layout.images, table_path, options, listed=listing.show, progress=bar.show)
    print(*outcome.summary_lines(), f"What became of every object: {table_path}", sep="\n")
    record.metrics.update({kind: outcome.total(kind) for kind in ("copied", "replaced", "there")})
    record.files.append(table_path)


def search_and_download(queries_path: Path, parameters: Parameters, layout: Layout, record: Record) -> None:
    from libraries.web.fetch import Timeouts
    from libraries.web.search.providers import open_provider
    from libraries.web.search.queries import read_queries
    from libraries.web.search.search import TABLE, URLS, search

    queries = read_queries(queries_path)
    count = len(queries.queries)
    print(f"Searching for {count} queries of {queries_path} with {parameters.searchProvider}")
    with (
        open_provider(
            parameters.searchProvider,
            licence=parameters.searchLicence,
            url=parameters.searchUrl,
            contact=parameters.searchContact,
            allowed_hosts=parameters.download_allowedHosts,
            timeouts=Timeouts(total=parameters.download_timeout),
            retries=parameters.download_retries,
        ) as provider,
        ProgressBar("Searching", total=count, unit="queries") as bar,
    ):
        where, licence = parameters.searchUrl, parameters.searchLicence
        results = search(queries, provider, folder=layout.proc, licence=licence, url=where, progress=bar.show)
    found = len(results.rows)
    print(table("Found", ["label", "queries", "images"], results.per_label(), footer=["all", count, found]))
    if results.elsewhere:
        print(f"Found for several labels, and kept for the first: {counted(results.elsewhere, 'image')}")
    print(f"Sources and licences: {layout.proc / TABLE}")
    record.metrics.update(queries=count, found=found)
    record.files.append(layout.proc / TABLE)
    if not found:
        raise InputError(f"no query of {queries_path} found an image: change the words, or searchLicence")
    download_list(layout.proc / URLS, parameters, layout, record)


def download_list(urls: Path, parameters: Parameters, layout: Layout, record: Record) -> None:
    from libraries.web.download.download import download
    from libraries.web.download.outcomes import summary
    from libraries.web.download.saving import DownloadOptions
    from libraries.web.download.url_list import read_url_list
    from libraries.web.fetch import Timeouts, user_agent
    from libraries.web.search.attribution import write_attribution
    from libraries.web.search.search import TABLE

    table_path = layout.proc / "downloads.csv"
    options = DownloadOptions(
        workers=parameters.download_workers,
        timeouts=Timeouts(total=parameters.download_timeout),
        retries=parameters.download_retries,
        max_bytes=parameters.download_maxBytes,
        max_pixels=layout.max_pixels,
        max_side=parameters.download_maxSide,
        allowed_hosts=parameters.download_allowedHosts,
        user_agent=user_agent(parameters.searchContact),
        retry_failed=parameters.download_retryFailed,
    )
    print(f"Downloading the images of {urls}")
    with ProgressBar("Downloading", unit="URLs") as bar:
        outcomes = download(
            read_url_list(urls),
            folder=layout.images,
            outcomes=table_path,
            options=options,
            cluster=parameters.cluster,
            progress=lambda done, total, had: bar.show(done, total),
            told=say,
        )
    reasons = summary(outcomes)
    count = sum(reasons.values())
    print(table("What became of the URLs", ["", "URLs"], reasons.items(), footer=["all", count]))
    print(f"Every URL with its outcome: {table_path}")
    if listed := write_attribution(layout.images, table=layout.proc / TABLE, outcomes=table_path):
        print(
            f"Sources and licences of {counted(listed, 'image')} found by searching: {layout.images / 'ATTRIBUTION.md'}"
        )
    record.metrics.update(urls=count, downloaded=reasons.get("downloaded", 0))
    record.files.append(table_path)


if __name__ == "__main__":
    run(main, Parameters)

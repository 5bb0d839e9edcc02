"""Serve the trained classifier: a REST service and a web page, on this machine or as an Azure ML scoring script.

It serves http://<host>:<port>/ until Ctrl-C. --insecure: listen beyond this machine without a key. --stage: write a
folder that is ready to be deployed to Azure ML, and serve nothing. --review: serve the viewer of showImages.ipynb
instead, to mend labels in a browser without Jupyter. SIGHUP, or POST /admin/reload with the key SERVICE_ADMIN_KEY,
reloads the bundle and the key files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libraries.base.command import run as run_script
from libraries.base.errors import ParameterError
from libraries.base.layout import Layout
from libraries.service.keys import read_key
from PARAMETERS import RESOURCES, Parameters

if TYPE_CHECKING:
    from libraries.service.keeping import Keep
    from libraries.service.similar import Similar


def main(parameters: Parameters, *, insecure: bool = False, review: bool = False, stage: bool = False) -> None:
    if stage:
        write_stage(parameters)
    elif review:
        serve_review(parameters)
    else:
        serve(parameters, insecure=insecure)


def serve(parameters: Parameters, *, insecure: bool) -> None:
    def read_keys(*, waits: bool = False) -> tuple[str | None, str | None, str | None]:
        key = read_key(parameters.keyFile, "SERVICE_KEY", waits=waits)
        admin_key = read_key(parameters.adminKeyFile, "SERVICE_ADMIN_KEY", waits=waits)
        return key, admin_key, read_key(parameters.feedbackKeyFile, "SERVICE_FEEDBACK_KEY", waits=waits)

    key, admin_key, feedback_key = read_keys(waits=True)

    from libraries.classifier.bundle import find_bundle
    from libraries.classifier.bundle_files import MANIFEST, read_manifest
    from libraries.service.app import create_app
    from libraries.service.gate import OWN_SEGMENTS, Access
    from libraries.service.server import Server
    from libraries.service.service import Limits, Service
    from libraries.service.trusted_headers import Proxies, allowed_hosts
    from libraries.web.addresses import is_loopback

    if key is None and not insecure and not is_loopback(parameters.host):
        raise ParameterError(
            f"host {parameters.host} can be reached from other machines, and there is no key: set SERVICE_KEY or "
            "--keyFile (or insist with --insecure)"
        )
    folder = parameters.bundle or current_bundle(parameters)
    limits = Limits(
        megabytes=parameters.serve_maxMegabytes,
        images=parameters.serve_maxImages,
        megapixels=parameters.serve_maxMegapixels,
        queue=parameters.serve_maxQueue,
        timeout=parameters.serve_timeout,
    )
    access = Access(
        key,
        admin_key,
        feedback_key,
        requests_per_minute=parameters.serve_requestsPerMinute,
        hosts=allowed_hosts(parameters.serve_allowedHosts, listening_on=parameters.host),
        proxies=Proxies(parameters.serve_trustedProxies, root_path=parameters.serve_rootPath, own=OWN_SEGMENTS),
        read_keys=read_keys,
    )
    keep = keep_of(parameters, has_feedback=feedback_key is not None)
    candidate = None if parameters.candidate is None else find_bundle(parameters.candidate)
    if candidate is not None:
        read_manifest(candidate / MANIFEST)  # a wrong folder is told now
    service = Service(
        folder,
        precision=parameters.run_precision,
        limits=limits,
        keep=keep,
        candidate=candidate,
        similar=similar_of(parameters, folder),
    )
    print(f"Serving the bundle {folder}")
    if candidate is not None:
        print(f"Comparing it with the bundle {candidate}, whose answers are not given")
    if keep is not None:
        print(f"Images are kept in {keep.folder} ({keep.which}{', feedback' if feedback_key else ''})")
    app = create_app(service, page=RESOURCES / "webPage", access=access)
    Server(app, service, host=parameters.host, port=parameters.port, announce=print, access=access).run()


def similar_of(parameters: Parameters, folder: Path) -> "Similar | None":
    from libraries.service.similar import find_similar
    from libraries.web.addresses import is_loopback

    is_shown = parameters.serve_similar == "always" or (
        parameters.serve_similar == "local" and is_loopback(parameters.host)
    )
    return find_similar(Layout(parameters, with_annotations=False), folder) if is_shown else None


def keep_of(parameters: Parameters, *, has_feedback: bool) -> "Keep | None":
    from libraries.data.class_folders import pool_of
    from libraries.service.keeping import Keep

    if parameters.serve_keep == "none" and not has_feedback:
        return None
    return Keep(
        parameters.serve_keepFolder or pool_of(Layout(parameters).images),
        parameters.serve_keep,
        below=parameters.serve_keepBelow,
        share=parameters.serve_keepShare,
        most_bytes=parameters.serve_keepMegabytes * 10**6,
        days=parameters.serve_keepDays,
    )


def serve_review(parameters: Parameters) -> None:
    from libraries.service.trusted_headers import allowed_hosts
    from libraries.widgets.images import ImageViewer
    from libraries.widgets.web_page import serve_images

    layout = Layout(parameters)
    ImageViewer.of(layout).close()  # what is wrong with the data set is told now
    print(f"The images in {layout.images}")
    serve_images(
        lambda: ImageViewer.of(Layout(parameters), parameters.run_options(), seed=parameters.randomSeed),
        host=parameters.host,
        port=parameters.port,
        key=read_key(parameters.keyFile, "REVIEW_KEY"),
        hosts=allowed_hosts(parameters.serve_allowedHosts, listening_on=parameters.host),
        announce=print,
    )


def current_bundle(parameters: Parameters) -> Path:
    layout = Layout(parameters, with_annotations=False)  # a label changed by hand does not stop a service
    layout.bundle.check()
    if not Layout(parameters).bundle.is_current():
        print("Note: labels have been changed by hand since this classifier was trained")
    return layout.bundle.folder


def write_stage(parameters: Parameters) -> None:
    from libraries.service.hosts.azure import commands, endpoint_name, stage

    layout = Layout(parameters)
    folder = layout.proc / f"deployment_{layout.classifier}"
    stage(parameters.bundle or current_bundle(parameters), folder, project=Path(__file__).parents[1])
    name = endpoint_name(layout.dataset, layout.classifier)
    print(f"To deploy {folder} to Azure ML, with the Azure CLI and its extension ml:\n\n  cd '{folder}'")
    print("\n".join(f"  {command}" for command in commands(name)))
    print(f"\nwhere {name} can be any name that is free in your region. With what the last two commands show, call it:")
    print("python scripts/6_callWebservice.py --url <scoring URI>, the key in the environment variable SERVICE_KEY")


score: Callable[[str], Any]  # of Azure ML


def init() -> None:
    """Called once by Azure ML."""
    global score
    from libraries.service.hosts.azure import scorer

    parameters = Parameters.load()
    score = scorer(precision=parameters.run_precision, max_pixels=parameters.serve_maxMegapixels * 10**6)


def run(raw: str) -> Any:
    """Called by Azure ML with every request, in the tutorial's form."""
    return score(raw)


if __name__ == "__main__":
    run_script(main, Parameters)

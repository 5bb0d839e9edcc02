"""The service inside an Azure ML online endpoint, where azureml-inference-server-http brings HTTP and keys."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from libraries.base.errors import ParameterError
from libraries.classifier.bundle import find_bundle
from libraries.service import tutorial
from libraries.service.model import load_model
from libraries.service.problems import MEDIA_TYPE, Problem

MODEL_DIR = "AZUREML_MODEL_DIR"


def scorer(*, precision: Literal["f32", "bf16"], max_pixels: int) -> Callable[[str], Any]:
    """What `run()` does with the body of a request, after loading the bundle that is mounted.

    Raises:
        ParameterError: this is no Azure ML.
        StorageError, NetworkError: the bundle is refused.
    """
    if MODEL_DIR not in os.environ:
        raise ParameterError(f"the environment variable {MODEL_DIR} is not set: it names the folder of the model")
    classifier = load_model(find_bundle(Path(os.environ[MODEL_DIR])), precision=precision).classifier

    def score(body: str) -> Any:
        try:
            return tutorial.respond(body, classifier, max_pixels=max_pixels)
        except Problem as problem:
            return _refusal(problem)

    return score


def _refusal(problem: Problem) -> Any:
    """A problem as the server sends it with its own status; an exception would become a 500 without a word.

    Callers see status 424 in the end: Azure ML puts it in place of any other than 200, which it tells in the header
    `ms-azureml-model-error-statuscode`. (learn.microsoft.com: how-to-troubleshoot-online-endpoints, HTTP status codes)
    """
    from azureml_inference_server_http.api.aml_response import AMLResponse

    return AMLResponse(json.dumps(problem.to_json()), problem.status, {"Content-Type": MEDIA_TYPE})

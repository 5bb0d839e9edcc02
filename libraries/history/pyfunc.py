"""The MLflow model of a bundle, as code: MLflow runs this file to load the model (see `mlflow_model`)."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from libraries.classifier.bundle import Classifier
from libraries.service.base64_json import COLUMN, classify_files, from_base64, image_answers


class ImageClassifier(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Images in base64, in the tutorial's column → the tutorial's answer for each, or the image's error."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open and verify the bundle."""
        self._classifier = Classifier(Path(context.artifacts["bundle"]))

    def predict(self, model_input: pd.DataFrame) -> list[dict[str, Any]]:
        """One answer per row, in order, as from POST /score."""
        begun = time.perf_counter()
        results = classify_files(map(from_base64, model_input[COLUMN]), self._classifier)
        return image_answers(results, self._classifier.labels, milliseconds=1000 * (time.perf_counter() - begun))


set_model(ImageClassifier())

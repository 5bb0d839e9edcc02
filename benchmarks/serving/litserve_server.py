"""The bundle behind LitServe. For benchmarks/serve.py.

python benchmarks/serving/litserve_server.py PORT BUNDLE
"""

import sys
from pathlib import Path

import litserve
import numpy as np
from fastapi import Request

from libraries.base.pool import usable_cores
from libraries.classifier.bundle import Classifier, Prediction
from libraries.data.images import load_bytes


class Classify(litserve.LitAPI):
    """POST /predict, a form with the file of an image."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier(Path(sys.argv[2]))

    def decode_request(self, request: Request) -> np.ndarray:
        return load_bytes(request["file"].file.read(), self.classifier.rule)

    def predict(self, image: np.ndarray) -> Prediction:
        return self.classifier.classify(image)

    def encode_response(self, prediction: Prediction) -> dict[str, float]:
        return dict(zip(self.classifier.labels, prediction.probabilities.tolist(), strict=True))


if __name__ == "__main__":
    server = litserve.LitServer(Classify(), accelerator="cpu", workers_per_device=usable_cores(), timeout=False)
    server.run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False)

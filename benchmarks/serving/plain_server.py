"""The service that a competent person writes first: FastAPI, Pillow, PyTorch, scikit-learn. For benchmarks/serve.py.

    python benchmarks/serving/plain_server.py PORT FOLDER

FOLDER: images in a folder per class, to train the classifier on.
The network and its weights are those of the bundle it is compared with; the classifier is one that costs nothing.
"""

import io
import sys

import timm
import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from sklearn.linear_model import LogisticRegression
from timm.data import create_transform, resolve_data_config
from torchvision.datasets import ImageFolder

from libraries.network.backbones import load_pretrained

network = load_pretrained("EfficientNet_Lite0")
model = timm.create_model(network.architecture, num_classes=0).eval()
model.load_state_dict(network.backbone.state_dict())
transform = create_transform(**resolve_data_config({}, model=model))
app = FastAPI()


@torch.inference_mode()
def embed(image: Image.Image) -> torch.Tensor:
    return model(transform(image.convert("RGB")).unsqueeze(0))[0]


@app.get("/health")
async def health() -> str:
    return "ready"


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, float]:
    image = Image.open(io.BytesIO(await file.read()))
    probabilities = classifier.predict_proba(embed(image).numpy()[None])[0]
    return dict(zip(classes, probabilities.tolist(), strict=True))


if __name__ == "__main__":
    images = ImageFolder(sys.argv[2])
    classes = images.classes
    some = range(0, len(images), len(images) // 15)
    embeddings = torch.stack([embed(images[i][0]) for i in some])
    classifier = LogisticRegression().fit(embeddings.numpy(), [images.targets[i] for i in some])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")

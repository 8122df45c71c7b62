"""Flask and PyTorch as in tutorials: one file, one transform, one model, Flask's own server, default threads."""

import io
import os

import torch
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from PIL import Image
from torchvision import models, transforms

app = Flask(__name__)

model = models.resnet18()
model.load_state_dict(torch.load(os.environ["MODEL"], weights_only=True))
model.eval()

transform = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


@app.route("/predict", methods=["POST"])
def predict() -> ResponseReturnValue:
    """Answer with the five most probable classes."""
    image = Image.open(io.BytesIO(request.files["file"].read())).convert("RGB")
    with torch.no_grad():
        outputs = model(transform(image).unsqueeze(0))
    scores, classes = torch.softmax(outputs, dim=1)[0].topk(5)
    pairs = zip(classes.tolist(), scores.tolist(), strict=True)
    return jsonify({"predictions": [{"class_id": class_id, "score": score} for class_id, score in pairs]})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=True)

"""Examples for the OpenAPI document: what one image of the page's is answered by the model of the repository.

A test asks for each of them and compares. Each is one that the routes name: requests that can be sent as they are, and
what they are answered.
"""

import base64
from importlib.resources import files
from typing import Any

from resnet_service import __version__

# The repository's own model serves these, so that anybody can see them answered without a network.
MODEL, VERSION = "resnet18-fashion-mnist-int8", "ccd89f92397b"
# An image that every service has.
PATH = "/web/samples/sneaker.png"
_ENCODED = base64.b64encode((files("resnet_service") / "web" / "samples" / "sneaker.png").read_bytes()).decode()

# A body of nothing but an image's bytes.
BYTES = {"schema": {"type": "string", "format": "binary"}}
RAW = {**BYTES, "examples": {"sneaker": {"summary": "A sneaker", "externalValue": PATH}}}

_IDENTITY = {"name": MODEL, "arch": "resnet18", "version": VERSION}
_IMAGE = {"format": "PNG", "width": 28, "height": 28}
_TIMING = {"decode": 0.526, "preprocess": 0.319, "inference": 4.006, "total": 4.851}
_BEST = {"class_id": 7, "label": "sneaker", "score": 0.9487780105356975}

_PREDICTION = {
    "predictions": [
        _BEST,
        {"class_id": 5, "label": "sandal", "score": 0.007308329734470962},
        {"class_id": 2, "label": "pullover", "score": 0.006204645538740117},
    ],
    "model": _IDENTITY,
    "image": _IMAGE,
    "timing_ms": _TIMING,
}

_BATCH = {
    "results": [
        {"filename": "sneaker.png", "predictions": [_BEST], "image": _IMAGE, "timing_ms": _TIMING},
        {
            "filename": "notes.txt",
            "error": {
                "type": "about:blank",
                "title": "Unsupported Media Type",
                "status": 415,
                "code": "not_an_image",
                "detail": "These bytes are not an image in an accepted format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF).",
            },
        },
    ],
    "model": _IDENTITY,
}

_EXPLANATION = {
    **_BEST,
    "map": [[4.194931983947754, 5.280948162078857], [3.756639003753662, 5.382538795471191]],
    "region": {"left": 0.0, "top": 0.0, "width": 28.0, "height": 28.0},
    "image": _IMAGE,
    "model": _IDENTITY,
    "timing_ms": _TIMING,
}

_EMBEDDING = {
    "embedding": [0.0, 0.22630535066127777, 0.03319144994020462],
    "dimensions": 512,
    "normalized": False,
    "image": _IMAGE,
    "model": _IDENTITY,
    "timing_ms": _TIMING,
}

_METADATA = {
    "model": _IDENTITY,
    "runtime": "openvino",
    "precision": "int8",
    "service_version": __version__,
    "outputs": {"embedding": 512, "feature_map": [512, 2, 2]},
    "serving_since": "2026-01-31T09:30:00Z",
    "languages": ["en", "zh"],
    "limits": {"max_body_bytes": 10485760, "max_pixels": 50000000},
    "metadata": {
        "format_version": 1,
        "arch": "resnet18",
        "num_classes": 10,
        "input_size": 64,
        "resize_size": 64,
        "interpolation": "bilinear",
        "mean": [0.286, 0.286, 0.286],
        "std": [0.353, 0.353, 0.353],
        "labels": {
            "name": "fashion-mnist",
            "sha256": "ce617b3468a568ec01ec20cfd86c738cfe3d2c359acc740f42ddc82888d878a0",
        },
        "provenance": {
            "source": "examples/fashion_mnist/train.py --seed 0 --bf16",
            "url": None,
            "sha256": None,
            "licence": "Apache-2.0; trained on Fashion-MNIST (MIT)",
            "published_accuracy": None,
        },
        "evaluations": [
            {
                "dataset": "fashion-mnist",
                "sha256": "9f1ec356a747bfe4ebab3cfb722d3694c9ca737e2570f6f90cf31d7b6fd689d4",
                "pictures": 10000,
                "top1": 94.07,
                "top5": 99.97,
                "calibration_error": 0.039614,
            }
        ],
        "packing": {
            "checkpoint_sha256": "23837cb5b818ea4cd88823c965e58dd55fa7622be4bd6381cbbe456d1a0a59c6",
            "graph_sha256": "69ccdf13f87a978380e7a8b6c46269cad82a56f76b03e25f1fa7ecb7a50d4fe3",
            "precision": "int8",
            "calibration": {
                "dataset": "fashion-mnist",
                "sha256": "16d82e2b505296aa2b78bd5ea0992634f30419a4c97def7c907d154a35ac6157",
                "pictures": 300,
            },
            "agreement": {"pictures": 1000, "top1_agreement": 99.4, "top1_loss": 0.2, "max_logit_difference": 0.893523},
            "outputs": {"embedding": 512, "feature_map": [512, 2, 2]},
        },
        "library_versions": {
            "python": "3.11.7",
            "torch": "2.14.1+cu130",
            "torchvision": "0.29.1+cu130",
            "onnx": "1.23.2",
            "nncf": "3.4.0",
            "openvino": "2026.4.1",
        },
    },
}

_CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_LABEL_SET = {
    "name": "fashion-mnist",
    "classes": [
        {"index": index, "id": name.lower().replace("/", "-").replace(" ", "-"), "name": name}
        for index, name in enumerate(_CLASSES)
    ],
}

_METRICS = """\
# HELP resnet_service_requests_total Requests answered; status 499 if the client disconnected first.
# TYPE resnet_service_requests_total counter
resnet_service_requests_total{method="POST",route="/predict",status="200"} 2.0
"""

_OK = {"status": "ok"}

# The Open Inference Protocol's.
_SERVER = {
    "name": "resnet-service",
    "version": __version__,
    "extensions": ["binary_tensor_data", "classification"],
}
_LIVE = {"live": True}
_READY = {"ready": True}
_MODEL_READY = {"ready": True, "name": MODEL}
_SERVED_MODEL = {
    "name": MODEL,
    "versions": [VERSION],
    "platform": "openvino",
    "inputs": [
        {
            "name": "image",
            "datatype": "BYTES",
            "shape": [-1],
            "parameters": {"content": "encoded images; base64 in JSON"},
        },
        {
            "name": "pixels",
            "datatype": "UINT8",
            "shape": [-1, 64, 64, 3],
            "parameters": {"content": "RGB, x in 0 to 255"},
        },
        {
            "name": "normalized",
            "datatype": "FP32",
            "shape": [-1, 3, 64, 64],
            "parameters": {
                "content": "RGB, (x / 255 - mean) / std, mean [0.286, 0.286, 0.286], std [0.353, 0.353, 0.353]; "
                "x is rounded to a whole number"
            },
        },
    ],
    "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10], "parameters": {}},
        {"name": "logits", "datatype": "FP32", "shape": [-1, 10], "parameters": {}},
    ],
}
INFERENCE_REQUEST: dict[str, Any] = {
    "id": "1",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [_ENCODED]}],
    "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}],
}
_INFERENCE = {
    "id": "1",
    "model_name": MODEL,
    "model_version": VERSION,
    "outputs": [
        {
            "name": "probabilities",
            "datatype": "BYTES",
            "shape": [1, 3],
            "data": ["0.948778:7:sneaker", "0.007308:5:sandal", "0.006205:2:pullover"],
        }
    ],
}

# Hugging Face's.
HUB_REQUEST: dict[str, Any] = {"inputs": _ENCODED, "parameters": {"top_k": 2}}
_HUB = [{"label": "sneaker", "score": 0.9487780105356975}, {"label": "sandal", "score": 0.007308329734470962}]

# Answers by the names that the document has for them. A test asks for each.
ANSWERS: dict[str, dict[str, Any]] = {
    "prediction": {"summary": "A sneaker", "value": _PREDICTION},
    "batch": {"summary": "One of two is no image", "value": _BATCH},
    "explanation": {"summary": "A sneaker", "value": _EXPLANATION},
    "embedding": {"summary": "A sneaker; 3 of its 512 numbers", "value": _EMBEDDING},
    "metadata": {"summary": "The repository's model", "value": _METADATA},
    "labels": {"summary": "The repository's model", "value": _LABEL_SET},
    "metrics": {"summary": "The first of them", "value": _METRICS},
    "ok": {"summary": "Well", "value": _OK},
    "v2_server": {"summary": "This one", "value": _SERVER},
    "v2_live": {"summary": "Alive", "value": _LIVE},
    "v2_ready": {"summary": "Ready", "value": _READY},
    "v2_model_ready": {"summary": "Ready", "value": _MODEL_READY},
    "v2_model": {"summary": "The repository's model", "value": _SERVED_MODEL},
    "v2_inference": {"summary": "The three best classes of a sneaker", "value": _INFERENCE},
    "hub": {"summary": "A sneaker", "value": _HUB},
}

"""Fail the image build if a label is wrong or the model cannot be served.

Run as ``python check.py VERSION MODEL_VERSION MODEL`` with the environment that will serve.
"""

import sys
from pathlib import Path

from resnet_service import __version__
from resnet_service.errors import ServiceError
from resnet_service.inference.classifier import Classifier


def main() -> None:
    """Compare the versions in the labels with the actual ones, and classify a trial image."""
    version, model_version, model = sys.argv[1:]
    try:
        classifier = Classifier.open(Path(model))
        classifier.warm_up()
    except ServiceError as error:
        sys.exit(f"error: {error}")
    for argument, named, true in (
        ("VERSION", version, __version__),
        ("MODEL_VERSION", model_version, classifier.model.version),
    ):
        if named != true:
            sys.exit(f"error: the image's label would say {named!r}: build with --build-arg {argument}={true}.")
    print(f"{model} {true}: {classifier.model.runtime}, {classifier.model.precision}")


if __name__ == "__main__":
    main()

"""Write the first images of each class of Fashion-MNIST's test set as PNG files, in folders named for their classes.

The test sample of this repository was made by:

    python examples/fashion_mnist/sample.py --output tests/data/fashion-mnist
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from train import DATA, LABELS

from resnet_service.evaluation.datasets import read_idx
from resnet_service.models.labels import read_label_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--each", type=int, default=20, help="images of each class")
    args = parser.parse_args()
    images = read_idx(args.data / "t10k-images-idx3-ubyte.gz")
    classes = read_idx(args.data / "t10k-labels-idx1-ubyte.gz")
    labels, _ = read_label_set(LABELS)
    for label in labels.classes:
        folder = args.output / str(label.id)
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(classes == label.index)[: args.each]:
            Image.fromarray(images[index]).save(folder / f"{index:05}.png", optimize=True)


if __name__ == "__main__":
    main()

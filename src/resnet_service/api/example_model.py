"""The model of the examples in documentation: the repository's own, which everybody can serve without a network."""

NAME, VERSION = "resnet18-fashion-mnist-int8", "ccd89f92397b"

"""An image classification service that loads one validated checkpoint and answers over HTTP."""

__version__ = "0.2.0"

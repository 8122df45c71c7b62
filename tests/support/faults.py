"""Faults of a server, as code that its process runs first."""

# An inference of a PNG file never comes back.
STUCK = """
import threading
from resnet_service.inference.classifier import Classifier
classify = Classifier.classify
def stuck(self, data, top_k=None):
    if data[:4] == b"\\x89PNG":
        threading.Event().wait()
    return classify(self, data, top_k)
Classifier.classify = stuck
"""

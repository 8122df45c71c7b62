"""The libraries that compute a network, behind one protocol: OpenVINO and PyTorch."""

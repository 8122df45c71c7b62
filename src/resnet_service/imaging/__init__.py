"""Decoding of untrusted images, preprocessing for the network, and drawing of heat maps."""

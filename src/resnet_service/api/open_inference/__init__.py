"""The tensors of the Open Inference Protocol."""

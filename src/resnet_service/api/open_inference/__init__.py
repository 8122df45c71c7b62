"""The Open Inference Protocol: bodies to tensors, and answers to bodies."""

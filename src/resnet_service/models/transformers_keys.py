"""The keys of ResNets in Hugging Face's transformers, which are torchvision's networks under other names."""


def transformers_key(key: str) -> str:
    """Return transformers' key of the tensor that torchvision's ResNets have under ``key``."""
    parts = key.split(".")
    last = parts[-1]
    if parts[0] in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{last}"
    if parts[0] == "fc":
        return f"classifier.1.{last}"
    block = f"resnet.encoder.stages.{int(parts[0].removeprefix('layer')) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{block}.shortcut.{'convolution' if parts[3] == '0' else 'normalization'}.{last}"
    kind, number = ("convolution", parts[2][4:]) if parts[2].startswith("conv") else ("normalization", parts[2][2:])
    return f"{block}.layer.{int(number) - 1}.{kind}.{last}"

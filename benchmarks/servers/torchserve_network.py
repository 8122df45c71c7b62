"""The network's class, as TorchServe's archive wants it: alone in its file, and built without arguments."""

from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):
    """torchvision's ``resnet18``."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])

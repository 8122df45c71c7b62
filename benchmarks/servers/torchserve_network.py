"""The network's class for TorchServe's archive: the only class of its file, without constructor arguments."""

from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):
    """torchvision's ``resnet18``."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])

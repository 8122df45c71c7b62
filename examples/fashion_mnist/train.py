"""Train torchvision's ResNet-18 on Fashion-MNIST, on a CPU, and save a checkpoint that resnet-service serves.

Progressive resizing saves time: most epochs use small images, the last ones the size at which the model is served. An
interrupted run continues after its last epoch.

    python examples/fashion_mnist/train.py --output checkpoints/resnet18-fashion-mnist.safetensors
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from resnet_service.evaluation.datasets import read_idx
from resnet_service.models.checkpoint.checkpoint import save_checkpoint
from resnet_service.models.labels import read_label_set
from resnet_service.models.metadata import ModelMetadata, Provenance

DATA = Path("/usr/share/datasets/fashion-mnist")  # the folder of Debian's package dataset-fashion-mnist
LABELS = Path(__file__).parents[2] / "labels" / "fashion-mnist.json"

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images
SERVED_SIZE = 64
SCHEDULE = [32] * 14 + [48] * 4 + [SERVED_SIZE] * 12  # image side, epoch by epoch
BATCH = 256
PEAK_LR, MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING = 0.2, 0.9, 5e-4, 0.05


def augment(images: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Flip, shift by up to 10 %, zoom by up to 10 %, erase a patch: uint8 [N,28,28] -> normalised float32 [N,3,S,S]."""
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=rng)

    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    zoom = uniform(0.9, 1.1)
    theta[:, 0, 0], theta[:, 0, 2] = flip * zoom, uniform(-0.2, 0.2)
    theta[:, 1, 1], theta[:, 1, 2] = zoom, uniform(-0.2, 0.2)
    grid = functional.affine_grid(theta, [n, 1, size, size], align_corners=False)
    x = functional.grid_sample(images[:, None].float() / 255, grid, align_corners=False)
    x = (x - MEAN) / STD
    x = x.masked_fill(patches(n, size, uniform)[:, None], 0.0)
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def patches(n: int, size: int, uniform: Callable[[float, float], Tensor]) -> Tensor:
    """Choose the patches to erase (Zhong et al. 2020): bool [N,S,S], in every second image 10 to 50 % of each side."""
    position = torch.arange(size) / size
    inside = torch.ones(n, size, size, dtype=torch.bool)
    for axis in ((slice(None), slice(None), None), (slice(None), None, slice(None))):
        centre, half = uniform(0, 1)[:, None], uniform(0.05, 0.25)[:, None]
        inside &= ((position - centre).abs() < half)[axis]
    return inside & (uniform(0, 1) < 0.5)[:, None, None]


def train(images: Tensor, labels: Tensor, state_file: Path, seed: int, bf16: bool) -> nn.Module:
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model: nn.Module = resnet18(num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), PEAK_LR, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    steps = len(images) // BATCH
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps * len(SCHEDULE), pct_start=0.2)
    first = 0
    if state_file.exists():  # continue an interrupted run
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        rng.set_state(state["rng"])
        first = state["epoch"]

    counts = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}"), *counts) as progress:
        bar = progress.add_task("", total=steps * len(SCHEDULE), completed=steps * first)
        for epoch, size in list(enumerate(SCHEDULE, 1))[first:]:
            model.train()
            order = torch.randperm(len(images), generator=rng)[: steps * BATCH]
            loss_sum = 0.0
            for batch in torch.split(order, BATCH):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    logits = model(augment(images[batch], size, rng))
                loss = functional.cross_entropy(logits.float(), labels[batch], label_smoothing=LABEL_SMOOTHING)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                scheduler.step()
                loss_sum += loss.item()
                progress.update(bar, advance=1, description=f"epoch {epoch}/{len(SCHEDULE)} at {size}px")
            progress.print(f"epoch {epoch:2}  {size}px  training loss {loss_sum / steps:.4f}")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state | {"scheduler": scheduler.state_dict(), "rng": rng.get_state()}, f"{state_file}.new")
            os.replace(f"{state_file}.new", state_file)
    recompute_statistics(model, images)
    return model.eval()


@torch.no_grad()
def recompute_statistics(model: nn.Module, images: Tensor) -> None:
    """Recompute the batch norms' statistics over images that are preprocessed as in the service.

    The statistics of training are those of shifted, zoomed and partly erased images.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    for batch in torch.split(images, BATCH):
        x = functional.interpolate(batch[:, None].float() / 255, SERVED_SIZE, mode="bilinear")
        model(((x - MEAN) / STD).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
    for norm in norms:
        norm.momentum = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="twice as fast at 64 pixels if the CPU has AMX")
    args = parser.parse_args()
    images = torch.from_numpy(read_idx(args.data / "train-images-idx3-ubyte.gz").copy())
    labels = torch.from_numpy(read_idx(args.data / "train-labels-idx1-ubyte.gz").copy()).long()
    model = train(images, labels, args.output.with_suffix(".training"), args.seed, args.bf16)

    metadata = ModelMetadata(
        arch="resnet18",
        num_classes=10,
        input_size=SERVED_SIZE,
        resize_size=SERVED_SIZE,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        labels=read_label_set(LABELS)[1],
        provenance=Provenance(
            source=f"examples/fashion_mnist/train.py --seed {args.seed}" + " --bf16" * args.bf16,
            licence="Apache-2.0; trained on Fashion-MNIST (MIT)",
        ),
    )
    save_checkpoint(model, args.output, metadata, dtype=torch.float16)


if __name__ == "__main__":
    main()

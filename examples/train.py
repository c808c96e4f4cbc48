"""The same loop with ckptfmt: killed at any moment and started again, it ends as if never interrupted."""
# mypy: disable-error-code="no-untyped-call"
# (torch.Tensor.backward has no annotations)

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ckptfmt.torch import Checkpointer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--train_url", type=Path, required=True, help="directory of the checkpoints")
parser.add_argument("--epochs", type=int, default=6)
args = parser.parse_args()
args.train_url.mkdir(parents=True, exist_ok=True)


class LossLog:
    """A component of one's own: a file with a line per step. What a dead run wrote too much is cut off again."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.nbytes = 0

    def write(self, line: str) -> None:
        self.file.truncate(self.nbytes)
        self.nbytes += self.file.write(f"{line}\n".encode())

    def state_dict(self) -> dict[str, int]:
        return {"nbytes": self.nbytes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.nbytes = state["nbytes"]


random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
digits = load_digits()  # 1797 handwritten digits, 8 x 8 pixels of 0 to 16
data = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(digits.target)
train_loader = DataLoader(TensorDataset(*(part[:1437] for part in data)), batch_size=64, shuffle=True)
test_images, test_labels = (part[1437:] for part in data)

net = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
    *(nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
log = LossLog(args.train_url / "loss.log")

ckpt = Checkpointer(
    args.train_url, {"net": net, "optimizer": optimizer, "scheduler": scheduler, "log": log}, save_interval_steps=10
)
ckpt.resume()

for epoch in ckpt.epochs(args.epochs):
    net.train()
    for images, labels in ckpt.batches(train_loader):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        log.write(f"{epoch} {loss.item()!r}")
        ckpt.step(loss=loss)
    scheduler.step()
    net.eval()
    with torch.no_grad():
        accuracy = (net(test_images).argmax(1) == test_labels).float().mean().item()
    print(f"epoch {epoch}  test accuracy {accuracy:.4f}", flush=True)
    ckpt.end_epoch(accuracy=accuracy)

"""The plain PyTorch loop: one checkpoint per epoch, the newest picked by its name."""
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

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--train_url", type=Path, required=True, help="directory of the checkpoints")
parser.add_argument("--epochs", type=int, default=6)
args = parser.parse_args()
args.train_url.mkdir(parents=True, exist_ok=True)

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

first_epoch = 0
checkpoints = sorted(args.train_url.glob("*.pth"))
if checkpoints:
    checkpoint = torch.load(checkpoints[-1])
    net.load_state_dict(checkpoint["net"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    first_epoch = checkpoint["epoch"] + 1

for epoch in range(first_epoch, args.epochs):
    net.train()
    for images, labels in train_loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    scheduler.step()
    net.eval()
    with torch.no_grad():
        accuracy = (net(test_images).argmax(1) == test_labels).float().mean().item()
    print(f"epoch {epoch}  test accuracy {accuracy:.4f}", flush=True)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save(state, args.train_url / f"ckpt_best_{epoch}.pth")

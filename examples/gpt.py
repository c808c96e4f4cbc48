"""A small GPT that learns Python from Python's own standard library; alone, or with several processes by torchrun.

python examples/gpt.py --train_url runs/gpt
torchrun --nproc-per-node 2 --max-restarts 100 examples/gpt.py --train_url runs/gpt
python examples/gpt.py --train_url runs/more --init_from runs/gpt/ckpt-00000100-e0002.ckptfmt
"""
# mypy: disable-error-code="no-untyped-call"
# (torch.Tensor.backward has no annotations)

import argparse
import os
import random
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ckptfmt.torch import Checkpointer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--train_url", type=Path, required=True, help="directory of the checkpoints")
parser.add_argument("--init_from", type=Path, help="begin with the weights of this checkpoint")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--steps", type=int, default=50, help="steps per epoch")
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--width", type=int, default=128)
parser.add_argument("--context", type=int, default=128, help="bytes that the model sees")
parser.add_argument("--batch", type=int, default=16, help="sequences per step and process")
parser.add_argument("--save_interval_steps", type=int, default=10)
args = parser.parse_args()


class Windows(Dataset[Tensor]):
    """Pieces of the sources, as bytes, each at a random place of its own."""

    def __init__(self, pieces: int, length: int) -> None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        text = b"".join(file.read_bytes() for file in files)
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.pieces, self.length = pieces, length

    def __len__(self) -> int:
        return self.pieces

    def __getitem__(self, index: int) -> Tensor:
        start = random.Random(index).randrange(len(self.text) - self.length)
        return self.text[start : start + self.length].long()


class Block(nn.Module):
    """Attention to what came before, then a small net on each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, 32)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class GPT(nn.Module):
    """Predicts the next byte. The embedding and the head are one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(256, args.width), nn.Embedding(args.context, args.width)
        self.h = nn.Sequential(*(Block(args.width) for _ in range(args.layers)))
        self.norm, self.head = nn.LayerNorm(args.width), nn.Linear(args.width, 256, bias=False)
        self.head.weight = self.wte.weight
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.h(self.wte(x) + self.wpe.weight[: x.shape[1]])))
        return logits


parallel = "RANK" in os.environ  # torchrun says so
if parallel:
    torch.distributed.init_process_group("gloo")
random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)

net: nn.Module = DistributedDataParallel(GPT()) if parallel else GPT()
ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99))
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=args.epochs * args.steps)
processes = torch.distributed.get_world_size() if parallel else 1
data = Windows(args.steps * args.batch * processes, args.context + 1)
sampler: DistributedSampler[Tensor] | None = DistributedSampler(data) if parallel else None
loader = DataLoader(data, args.batch, sampler=sampler, shuffle=sampler is None)
unseen = torch.stack([data[len(data) + number] for number in range(32)])


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


ckpt = Checkpointer(
    args.train_url,
    {"net": net, "ema": ema, "optimizer": optimizer, "scheduler": scheduler},
    save_interval_steps=args.save_interval_steps,
    keep_last=3,
    keep_best=("val_loss", "min"),
    hang_timeout=600,
)
if not ckpt.resume().resumed and args.init_from is not None:
    ckpt.warm_start(args.init_from)

for epoch in ckpt.epochs(args.epochs):
    if sampler is not None:
        sampler.set_epoch(epoch)
    for batch in ckpt.batches(loader):
        optimizer.zero_grad()
        loss = loss_of(net, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        ema.update_parameters(net)
        ckpt.step(loss=loss)
    ema.eval()
    with torch.no_grad():
        val_loss = loss_of(ema, unseen).item()
    print(f"epoch {epoch}  validation loss {val_loss:.4f}", flush=True)
    ckpt.end_epoch(val_loss=val_loss)
if parallel:
    torch.distributed.destroy_process_group()

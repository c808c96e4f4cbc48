"""A small GPT that learns the bytes of Python's standard library, in a loop that counts steps: it has no epochs.

python examples/steps.py --train_url runs/steps
python examples/steps.py --train_url runs/steps --max_steps 200    # 100 steps more
"""
# mypy: disable-error-code="no-untyped-call"
# (torch.Tensor.backward has no annotations)

import argparse
import math
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

from ckptfmt.torch import Checkpointer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--train_url", type=Path, required=True, help="directory of the checkpoints")
parser.add_argument("--max_steps", type=int, default=100)
parser.add_argument("--eval_interval", type=int, default=20)
parser.add_argument("--save_interval_steps", type=int, default=10)
args = parser.parse_args()

CONTEXT, WIDTH, BATCH = 64, 64, 16
torch.manual_seed(0)
torch.set_num_threads(1)

text = b"".join(file.read_bytes() for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")))
data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
train_data, val_data = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]


def get_batch(source: Tensor) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(source) - CONTEXT - 1, (BATCH,)).tolist()
    pieces = torch.stack([source[start : start + CONTEXT + 1].long() for start in starts])
    return pieces[:, :-1], pieces[:, 1:]


class GPT(nn.Module):
    """Predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, activation="gelu", batch_first=True, norm_first=True)
        self.h = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        logits = self.head(self.h(self.wte(x) + self.wpe.weight, mask, is_causal=True))
        return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())


net = GPT()
optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.95))


def learning_rate(step: int) -> float:
    return 1e-3 * min((step + 1) / 10, 0.5 + 0.5 * math.cos(math.pi * step / 1000))


@torch.no_grad()
def evaluate() -> float:
    net.eval()
    losses = torch.stack([net(*get_batch(val_data)) for _ in range(4)])
    net.train()
    return losses.mean().item()


ckpt = Checkpointer(
    args.train_url, {"net": net, "optimizer": optimizer}, save_interval_steps=args.save_interval_steps, keep_last=3
)
ckpt.resume()

for step in ckpt.steps(args.max_steps):
    if step % args.eval_interval == 0:
        print(f"step {step}  validation loss {evaluate():.4f}", flush=True)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step)
    optimizer.zero_grad()
    loss = net(*get_batch(train_data))
    loss.backward()
    optimizer.step()
    ckpt.step(loss=loss)

"""The states that are saved and restored: real shapes, and values that do not compress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["WORKLOADS", "Training", "Workload"]


@dataclass(eq=False)
class Training:
    """A model and an optimizer that has done its first step, as a training loop holds them.

    Attributes:
        model: The model.
        optimizer: An AdamW with both moments of each parameter.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    _moments: dict[nn.Parameter, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        states = self.optimizer.state.items()
        self._moments = {key: dict(state) for key, state in states if isinstance(key, nn.Parameter)}

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor of the state, each once."""
        yield from self.model.state_dict().values()
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    @property
    def nbytes(self) -> int:
        """Length of all data in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def reset(self) -> None:
        """Give the optimizer its own moments back and set everything to zero: what is not restored would show."""
        for parameter, state in self._moments.items():
            self.optimizer.state[parameter] = dict(state)
        with torch.no_grad():
            for tensor in self.tensors():
                tensor.zero_()

    def touch(self) -> None:
        """Change each page of the moments in place, as the next step of the optimizer does.

        A lazy map has only promised the data so far; it pays here.
        """
        with torch.no_grad():
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor) and value.numel():
                        value.view(-1)[:: 4096 // value.element_size()].add_(0)

    def same_as(self, other: Training) -> bool:
        """Say whether all values, and the dtypes of the moments, are those of `other`."""
        nets = zip(self.model.state_dict().values(), other.model.state_dict().values(), strict=True)
        moments = (
            (mine[key], theirs[key])
            for here, there in zip(self.model.parameters(), other.model.parameters(), strict=True)
            for mine, theirs in [(self.optimizer.state[here], other.optimizer.state[there])]
            for key in theirs
        )
        return all(a.dtype == b.dtype and torch.equal(a, b) for pairs in (nets, moments) for a, b in pairs)


@dataclass(frozen=True)
class Workload:
    """A state to be measured.

    Attributes:
        name: What the command line calls it.
        title: What it is.
        make_model: Makes the model; the values are of no importance.
        dtype: Of the parameters; the moments are float32.
    """

    name: str
    title: str
    make_model: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32

    def make(self, seed: int, *, moments: bool = True) -> Training:
        """Return the state with random values; without moments, the optimizer is one that has not stepped yet."""
        with torch.device("meta"):
            model = self.make_model()
        model = model.to(self.dtype).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.02, generator=generator)
                if moments:
                    optimizer.state[parameter] = {
                        "step": torch.tensor(1000.0),
                        "exp_avg": torch.empty(parameter.shape).normal_(0, 1e-4, generator=generator),
                        "exp_avg_sq": torch.empty(parameter.shape).normal_(1e-8, 1e-9, generator=generator),
                    }
        return Training(model, optimizer)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(self.ln_1(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(seen.transpose(1, 2).flatten(2))
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class GPT(nn.Module):
    """GPT-2's shapes: the small one has 124 million parameters. The head is the token embedding."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, tokens: int = 50257) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(tokens, width), nn.Embedding(1024, width)
        self.h = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of shape (batch, length, tokens)."""
        x = self.ln_f(self.h(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]))
        return nn.functional.linear(x, self.wte.weight)


def _many(count: int) -> nn.Module:
    return nn.ParameterDict({f"p{number:05d}": nn.Parameter(torch.empty(256)) for number in range(count)})


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("gpt2", "GPT-2 small: 124 million parameters and both Adam moments, float32", GPT),
        Workload("many", "30,000 tensors of 1 KiB: 10,000 parameters and both Adam moments", lambda: _many(10_000)),
        Workload("bf16", "GPT-2 small: bfloat16 parameters, float32 moments", GPT, torch.bfloat16),
        Workload("tiny", "a GPT of 2 layers, to try the harness", lambda: GPT(2, 64, 2, 512)),
        Workload("few", "300 tensors of 1 KiB, to try the harness", lambda: _many(100)),
    )
}
"""By name. The last two are for the harness itself."""

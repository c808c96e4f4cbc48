"""What the names of metrics tell: which way is better, and which one people look at first."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ckptfmt._core.runs.retention import Mode

__all__ = ["main_metric", "mode_of"]

_LESS = re.compile(
    "loss|losses|err|error|errors|mae|mse|rmse|nll|ppl|perplexity|bpb|bpc|bpd|wer|cer|ter|eer|fid|kid|lpips|elbo"
)
_MORE = re.compile(
    "acc|accuracy|f1|auc|auroc|auprc|map|ap|iou|miou|dice|bleu|rouge|chrf|meteor|psnr|ssim|precision|recall|score"
    "|reward|return|r2|top1|top5|correct|hits|mrr|ndcg"
)
_HELD_OUT = frozenset({"val", "valid", "validation", "dev", "eval", "test"})
_WORD = re.compile(r"[a-z]+[0-9]*")


def mode_of(metric: str) -> Mode | None:
    """Return which way a metric is better, as far as its name tells: `min` for a loss, `max` for an accuracy."""
    words = _words(metric)
    for word in reversed(words):  # the last word says what it is: `score_loss`, `error_recall`
        if _LESS.fullmatch(word):
            return "min"
        if _MORE.fullmatch(word):
            return "max"
    return None


def main_metric(names: Iterable[str]) -> str | None:
    """Return the metric that people look at first: on held-out data if there is one, and of a known direction."""
    every = list(dict.fromkeys(names))
    ranked = sorted(every, key=lambda name: (mode_of(name) is None, not _HELD_OUT & set(_words(name))))
    return ranked[0] if ranked else None


def _words(metric: str) -> list[str]:
    return _WORD.findall(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", metric).lower())

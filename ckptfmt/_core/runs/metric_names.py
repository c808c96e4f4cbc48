"""What the names of metrics tell: which way is better, and which one people look at first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ckptfmt._core.format.index import Metadata
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


def main_metric(training: Sequence[Metadata]) -> str | None:
    """Return the metric that people look at first.

    It is one measured at the ends of epochs rather than at single steps, of a known direction, and on held-out data,
    in this order, as far as there is one.

    Args:
        training: Metadata of the checkpoints of a run, the oldest first.
    """
    every = dict.fromkeys(name for facts in training for name in facts.metrics or ())
    of_steps = _measured_within_epochs(training)
    ranked = sorted(
        every, key=lambda name: (name in of_steps, mode_of(name) is None, not _HELD_OUT & set(_words(name)))
    )
    return ranked[0] if ranked else None


def _measured_within_epochs(training: Sequence[Metadata]) -> set[str]:
    """Return the metrics of checkpoints within an epoch.

    The first one with a number of finished epochs is at its end, unless the epoch after it ends with the same step.
    """
    within = [after for before, after in pairwise(training) if before.epoch == after.epoch]
    within += [before for before, after in pairwise(training) if before.step == after.step is not None]
    within += [facts for facts in training if not facts.epoch]
    return {name for facts in within for name in facts.metrics or ()}


def _words(metric: str) -> list[str]:
    return _WORD.findall(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", metric).lower())

"""Weighted max-min fairness: nobody gets more than it can use while somebody with a claim gets less.

Source: Bertsekas and Gallager, Data Networks, section 6.5.2 (progressive filling).
"""

from __future__ import annotations

from collections.abc import Sequence


def max_min(total: float, weights: Sequence[float], demands: Sequence[float]) -> list[float]:
    """Split `total` over claims with positive `weights` and `demands` >= 0 (inf = all it can get).

    Returns the shares in the same order and unit; they add up to min(total, sum of demands).
    """
    shares = [0.0] * len(weights)
    left = max(0.0, total)
    open_claims = sorted(range(len(weights)), key=lambda i: demands[i] / weights[i])
    weight = sum(weights)
    for position, i in enumerate(open_claims):
        fair = left * weights[i] / weight
        if demands[i] > fair:  # every later claim wants more than its fair share, too
            for j in open_claims[position:]:
                shares[j] = left * weights[j] / weight
            return shares
        shares[i] = demands[i]
        left -= demands[i]
        weight -= weights[i]
        if weight <= 0.0:
            break
    return shares

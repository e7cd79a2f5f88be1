"""Turns by weight: who is next."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Shares"]


class Shares:
    """Gives turns by weight, spread evenly: of any hundred in a row, each name gets its percent.

    Azure draws lots; a test is better served by what always comes out the same.
    """

    def __init__(self) -> None:
        self._credit: dict[str, int] = {}

    def next(self, weights: Mapping[str, int]) -> str | None:
        """Whose turn it is; ``None``: nobody has a weight above 0. The weights may be others each time."""
        shares = {name: weight for name, weight in weights.items() if weight > 0}
        if not shares:
            return None
        credit = {name: self._credit.get(name, 0) + weight for name, weight in shares.items()}
        chosen = max(credit, key=lambda name: credit[name])
        credit[chosen] -= sum(shares.values())
        self._credit = credit
        return chosen

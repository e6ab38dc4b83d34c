"""Episodes of interference in a journal, as recorded: each once, at its end or where its run ends."""

from __future__ import annotations

from nodeagent.model.decision import Tick
from nodeagent.model.interference import Episode
from nodeagent.model.interference_changes import closed, episodes
from nodeagent.replay.answer import LISTED


class Troubles:
    """Counts them and lists the first."""

    def __init__(self) -> None:
        self.count = 0
        self.listed: list[Episode] = []
        self._last: Tick | None = None

    def tick(self, tick: Tick, gap_s: float | None) -> None:
        """Take one tick in; `gap_s` is None when it does not follow the one before."""
        if gap_s is None:
            self.end()
        for ended in closed(self._last, tick):
            self._note(ended)
        self._last = tick

    def end(self) -> None:
        """No tick follows the last one: what is open then stays open."""
        for each in episodes(self._last).values():
            if each.cleared_unix is None:
                self._note(each)
        self._last = None

    def _note(self, episode: Episode) -> None:
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(episode)

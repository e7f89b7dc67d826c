"""What came of asking specialists, kept over restarts: `Outcomes`, and their file.

Knows the file and both clocks; must not know how outcomes become trust.
"""

import logging

from coordinator.reputation import Outcomes
from node.swarms.folder import SwarmFolder
from protocols.errors import ConfigError, ProtocolError
from protocols.ports import Clock

_log = logging.getLogger(__name__)


class OutcomeBook:
    """Outcomes that a restart does not lose. Read from the folder when made.

    Unless `is_kept` no file is read or written, and a restart loses them.
    """

    def __init__(self, folder: SwarmFolder, clock: Clock, *, is_kept: bool = True) -> None:
        """A damaged file is as good as none: nothing is known for or against any card then."""
        self._folder = folder
        self._clock = clock
        self._is_kept = is_kept
        self.outcomes = self._load() if is_kept else Outcomes()
        self._saved = self.outcomes.reports

    def save(self) -> bool:
        """Write it down if there is news; whether there was. `ConfigError` as of the folder."""
        reports = self.outcomes.reports
        if not self._is_kept or reports == self._saved:
            return False
        self._folder.save_outcomes(self.outcomes.dump(self._clock.monotonic(), self._clock.now()))
        self._saved = reports
        return True

    def _load(self) -> Outcomes:
        try:
            data = self._folder.outcomes()
            if data:
                return Outcomes.load(data, self._clock.monotonic(), self._clock.now())
        except (ConfigError, ProtocolError) as error:
            _log.warning(
                "all cards in %s begin as newcomers: their outcomes cannot be read (%s)",
                self._folder.name,
                error,
            )
        return Outcomes()

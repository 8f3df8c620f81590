"""Rules of a whole fleet: what happens to instances, how old readings are, and whom the gateway turns away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infermix.errors import InputError
from infermix.sim.state import DRAIN, EVENT, FAIL, GATE, START

WHATS = {"fail": FAIL, "start": START, "drain": DRAIN}


@dataclass(frozen=True)
class FleetRules:
    """See ``docs/design/simulator.md``; columns over classes may be left out.

    Attributes
    ----------
    events
        (time [s], number of the instance in the fleet, "fail" | "start" | "drain"), in order of time.
    resume
        Whether requests that a failure sends back keep the tokens that they have.
    stale_s
        Time between two readings of the counters [s]; 0: always fresh.
    ration_per_s, ration_burst, shed_above, max_wait_s
        By class: see "Admission at the gateway"; inf: no limit.
    """

    events: tuple[tuple[float, int, str], ...] = ()
    resume: bool = False
    stale_s: float = 0.0
    ration_per_s: tuple[float, ...] | None = None
    ration_burst: tuple[float, ...] | None = None
    shed_above: tuple[float, ...] | None = None
    max_wait_s: tuple[float, ...] | None = None

    def event_rows(self, instances: int) -> npt.NDArray[np.void]:
        """Events for the kernel.

        Raises
        ------
        InputError
            An unknown instance or word, or times that descend.
        """
        rows = np.zeros(len(self.events), dtype=EVENT)
        last = -np.inf
        for k, (time_s, instance, what) in enumerate(self.events):
            where = f"events[{k}]"
            if what not in WHATS:
                raise InputError("unknown event", where=where, value=what, allowed=", ".join(WHATS))
            if not 0 <= instance < instances:
                raise InputError("no such instance", where=where, value=instance, allowed=f"0 to {instances - 1}")
            if not time_s >= last:
                raise InputError("times of events descend", where=where, value=time_s, mend="sort them")
            rows[k] = (time_s, instance, WHATS[what])
            last = time_s
        return rows

    def gate_rows(self, classes: int) -> npt.NDArray[np.void]:
        """Limits of the gateway by class; no rows when there are none."""
        columns = {
            name: getattr(self, name)
            for name in ("ration_per_s", "ration_burst", "shed_above", "max_wait_s")
            if getattr(self, name) is not None
        }
        if not any(np.isfinite(values).any() for values in columns.values()):
            return np.zeros(0, dtype=GATE)
        rows = np.zeros(classes, dtype=GATE)
        for name in ("ration_per_s", "ration_burst", "shed_above", "max_wait_s"):
            rows[name] = columns.get(name, np.inf)
        rows["left"] = rows["ration_burst"]
        return rows

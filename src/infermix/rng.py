"""Counter-based random numbers: ``u01(seed, stream, index)`` is a pure function.

Two policies, or two fleets, are thus compared on the same luck. The generator is the output
function of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014, figure 17), applied to a mix of the three counters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-52


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_A
    z = (z ^ (z >> np.uint64(27))) * _MIX_B
    return z ^ (z >> np.uint64(31))


def u01(seed: int, stream: int, index: int | npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Uniform numbers in the open interval (0, 1), one for each index.

    Parameters
    ----------
    seed, stream
        Any integers; different streams of one seed are independent.
    index
        Counter, or array of counters.

    >>> bool(u01(1, 2, 3) == u01(1, 2, np.array([3]))[0])
    True
    """
    counters = np.atleast_1d(np.asarray(index)).astype(np.uint64)
    with np.errstate(over="ignore"):
        key = _mix(np.array([np.uint64(seed & 0xFFFFFFFFFFFFFFFF)]) + _GOLDEN)
        key = _mix(key ^ (np.uint64(stream & 0xFFFFFFFFFFFFFFFF) * _GOLDEN))
        bits = _mix(key + (counters + np.uint64(1)) * _GOLDEN)
    unit = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * _TO_UNIT
    return unit if np.ndim(index) else unit[0]


def uniforms(seed: int, stream: int, n: int) -> npt.NDArray[np.float64]:
    """The first ``n`` numbers of a stream."""
    return u01(seed, stream, np.arange(n, dtype=np.uint64))

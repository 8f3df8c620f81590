"""Names of policies and what each does, known without loading the compiler; users' own join when they register."""

from __future__ import annotations

from infermix.errors import InputError, near_miss

AUTO = "auto"
"""No policy, but that a plan is to choose one."""
BASE = "pool_split"
"""What routes until one is chosen, and where nothing is planned."""

POLICIES: dict[str, str] = {
    "round_robin": "eligible instances in turn",
    "least_inflight": "fewest requests in flight",
    "least_wait": "least modelled wait",
    "power_of_two": "less wait of two drawn by lot",
    "session_affinity": "the session's own instance while its wait bears it",
    "prefix_affinity": "the instance of the prompt's first blocks while its wait bears it",
    "pool_split": "the plan's shares, least wait inside the pool",
    "pool_split_spill": "the plan's shares, another pool where that one would break the promise",
    "cheapest_meeting_slo": "least price among instances predicted to keep the promise",
    "slo_headroom": "largest margin to the promise",
    "price_of_delay": "least price of request and user's time together",
    "deadline": "soonest done; refuses what is late where the class says so",
}


def split_file(name: str) -> tuple[str, str] | None:
    """(file, function) of ``FILE.py:FUNCTION``; None for a plain name.

    >>> split_file("mine/routing.py:emptiest")
    ('mine/routing.py', 'emptiest')
    """
    file, colon, function = name.rpartition(":")
    return (file, function) if colon and file.endswith(".py") else None


def check_policy(name: str, where: str, also: tuple[str, ...] = ()) -> None:
    """InputError with the near miss unless the policy is known, stands in ``also``, or is a function in a file."""
    if name in POLICIES or name in also or split_file(name):
        return
    allowed = f"{', '.join([*POLICIES, *also])}, FILE.py:FUNCTION"
    mend = "" if ":" in name else near_miss(name, [*POLICIES, *also])
    raise InputError("unknown policy", where=where, value=name, allowed=allowed, mend=mend)

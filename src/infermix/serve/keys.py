"""API keys and budgets: keys are known by their SHA-256 alone, compared in constant time; budgets refill steadily."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from math import ceil

from infermix.errors import InputError
from infermix.serve.config import Budget, GatewayFile
from infermix.serve.openai import ApiError


def hash_key(key: str) -> str:
    """What is stored of a key.

    >>> hash_key("sk-example")[:16]
    'f2d4b279b82ad928'
    """
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: GatewayFile, environment: Mapping[str, str] = os.environ) -> dict[str, bytes]:
    """ID → hash of each key; empty where everybody is let in. Raises InputError, which never shows a value."""
    name = file.gateway.keys_env
    if name is None:
        return {}
    where = f"{file.path}: gateway.keys_env"
    text = environment.get(name, "")
    found = {}
    for entry in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        id_, colon, digest = entry.rpartition(":")
        if not (colon and id_ and len(digest) == 64 and all(c in "0123456789abcdef" for c in digest)):
            raise InputError(
                f"{name} holds an entry that is not ID:SHA256", where=where, mend="infermix serve --hash-key makes one"
            )
        found[id_] = bytes.fromhex(digest)
    if not found:
        raise InputError(f"{name} is empty", where=where, allowed="ID:SHA256,ID:SHA256", mend="set it, or leave it out")
    return found


class Bucket:
    """So much a minute, a minute's worth at once."""

    __slots__ = ("_filled_s", "left", "per_min")

    def __init__(self, per_min: float) -> None:
        self.per_min, self.left, self._filled_s = per_min, per_min, 0.0

    def refill(self, now_s: float) -> None:
        """What has come since."""
        self.left = min(self.per_min, self.left + (now_s - self._filled_s) * self.per_min / 60.0)
        self._filled_s = now_s

    def wait_s(self, amount: float) -> float:
        """Until so much is there [s]."""
        return max(0.0, (min(amount, self.per_min) - self.left) * 60.0 / self.per_min)


class Holder:
    """Who holds a key, and what is left of the budget."""

    __slots__ = ("budget", "id", "requests", "tokens")

    def __init__(self, id: str, budget: Budget) -> None:
        self.id, self.budget = id, budget
        self.requests = None if budget.requests_per_min is None else Bucket(budget.requests_per_min)
        self.tokens = None if budget.tokens_per_min is None else Bucket(budget.tokens_per_min)

    def charge(self, tokens: float, now_s: float) -> None:
        """Take a request of so many tokens, as far as can be told, from the budget; ApiError 429 if it is not there."""
        for bucket, amount, what in ((self.requests, 1.0, "requests"), (self.tokens, tokens, "tokens")):
            if bucket is None:
                continue
            bucket.refill(now_s)
            if bucket.left < min(amount, bucket.per_min):
                wait_s = bucket.wait_s(amount)
                raise ApiError(
                    429,
                    f"the budget of {bucket.per_min:g} {what} a minute is used up; try again in {wait_s:.1f} s",
                    code="rate_limit_exceeded",
                    headers=((b"retry-after", b"%d" % max(1, ceil(wait_s))), *self.headers(now_s)),
                )
        for bucket, amount in ((self.requests, 1.0), (self.tokens, tokens)):
            if bucket is not None:
                bucket.left -= amount

    def settle(self, charged: float, used: float) -> None:
        """What was charged is put right once the usage is known."""
        if self.tokens is not None:
            self.tokens.left += charged - used

    def headers(self, now_s: float) -> list[tuple[bytes, bytes]]:
        """What is left, in the usual spelling."""
        lines = []
        for bucket, name in ((self.requests, b"requests"), (self.tokens, b"tokens")):
            if bucket is not None:
                bucket.refill(now_s)
                full_s = (bucket.per_min - bucket.left) * 60.0 / bucket.per_min
                lines += [
                    (b"x-ratelimit-limit-" + name, b"%d" % bucket.per_min),
                    (b"x-ratelimit-remaining-" + name, b"%d" % max(0, int(bucket.left))),
                    (b"x-ratelimit-reset-" + name, f"{max(0.0, full_s):.3f}s".encode()),
                ]
        return lines


class Door:
    """Who is let in."""

    def __init__(self, file: GatewayFile, keys: dict[str, bytes]) -> None:
        self._keys = list(keys.items())
        self._holders = {id_: Holder(id_, file.keys.get(id_, Budget())) for id_ in keys}
        self._anybody = Holder("", Budget())

    def holder(self, authorization: bytes) -> Holder:
        """Who holds the key of an ``Authorization`` header; ApiError 401 if nobody does."""
        if not self._keys:
            return self._anybody
        kind, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        found = ""
        for id_, known in self._keys:
            if hmac.compare_digest(digest, known):
                found = id_
        if kind.lower() != b"bearer" or not found:
            what = "no API key was given" if not authorization else "the API key is not known here"
            raise ApiError(401, what, code="invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))
        return self._holders[found]

    def take_over(self, other: Door) -> None:
        """Go on with the budgets of the door before a reload."""
        for id_, holder in self._holders.items():
            before = other._holders.get(id_)
            if before is not None and before.budget == holder.budget:
                holder.requests, holder.tokens = before.requests, before.tokens

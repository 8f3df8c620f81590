"""The prefix cache: which segments of the tree of paths are in which KV memory, and in which order they give way.

A *store* is one KV memory: the HBM of an instance, its host tier, or the remote tier of a pool. An *entry* says how
many blocks of a segment a store holds; those are always the first ones, and then all blocks of the segments before it
are there, too (unless they are too old to be found). So a few numbers stand for thousands of blocks. An entry with pins
belongs to sequences that run: it is protected. The others with blocks lie in the list of their store in order of
release, and give way from its head, the last block of a segment first. Blocks that nobody will ask for lie in the same
list as entries without a segment (*garbage*).

All kernels take paths by their last segment (-1: nothing is shared), and blocks that are full: those of the first L
tokens are ``L // block_tokens``. None of them allocates: ``free_entries`` must cover what is to come
(``entries_needed``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from infermix import jit
from infermix.jit import inline, kernel, part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infermix.sim.paths import Paths

NONE = -1

FREE_HEAD, FREE_LEFT = 0, 1
"""Places in ``Cache.counts``: the first entry of the free list, and how many it has."""

STORE = np.dtype(
    [
        ("capacity", "i8"), ("resident", "i8"),  # blocks that it can hold for the cache alone; that it holds
        ("protected", "i8"),                      # resident blocks of entries with pins
        ("evicted", "i8"),                        # blocks that gave way so far
        ("retention_s", "f8"), ("block_tokens", "i8"),
        ("head", "i4"), ("tail", "i4"),          # entries without pins, in order of release
    ],
    align=True,
)  # fmt: skip

ENTRY = np.dtype(
    [
        ("released_s", "f8"),
        ("segment", "i4"), ("store", "i4"),  # -1: garbage
        ("before", "i4"), ("full", "i4"),    # blocks of a path before the segment; of the segment itself
        ("have", "i4"), ("pins", "i4"),      # blocks that are there; sequences that protect them
        ("previous", "i4"), ("next", "i4"),  # in the list of the store
        ("chain", "i4"),                      # next in its bucket, or in the free list
    ],
    align=True,
)  # fmt: skip


class Cache(NamedTuple):
    """All stores of a run."""

    segments: npt.NDArray[np.void]
    stores: npt.NDArray[np.void]
    entries: npt.NDArray[np.void]
    buckets: npt.NDArray[np.int32]
    """Hash table of (segment, store): the first entry of each bucket."""
    counts: npt.NDArray[np.int64]


class StoreSpec(NamedTuple):
    """A store before the run: its blocks, tokens in each, and how long blocks are found after their release [s]."""

    blocks: int
    block_tokens: int
    retention_s: float = np.inf


def make_cache(paths: Paths, store_specs: Sequence[StoreSpec], entries_wanted: int) -> Cache:
    """Empty stores, with so many entries to use."""
    stores = np.zeros(len(store_specs), STORE)
    stores["capacity"] = [spec.blocks for spec in store_specs]
    stores["block_tokens"] = [spec.block_tokens for spec in store_specs]
    stores["retention_s"] = [spec.retention_s for spec in store_specs]
    stores["head"] = stores["tail"] = NONE
    empty = Cache(
        segments=_for_kernel(paths.segments),
        stores=_for_kernel(stores),
        entries=_for_kernel(np.zeros(0, ENTRY)),
        buckets=np.zeros(0, np.int32),
        counts=np.array([NONE, 0]),
    )
    return grow(empty, entries_wanted)


def grow(cache: Cache, entries: int) -> Cache:
    """The same cache with so many free entries more; the arrays of the stores and counts are the same ones."""
    before = len(cache.entries)
    rows = np.zeros(before + entries, ENTRY)
    rows[:before] = cache.entries
    if entries:
        rows["chain"][before:] = np.arange(before + 1, len(rows) + 1)
        rows["chain"][-1] = cache.counts[FREE_HEAD]
        cache.counts[FREE_HEAD] = before
        cache.counts[FREE_LEFT] += entries
    wanted = 1 << max(len(rows) - 1, 1).bit_length()
    grown = cache._replace(entries=_for_kernel(rows))
    if wanted > len(cache.buckets):
        grown = grown._replace(buckets=np.full(wanted, NONE, np.int32))
        _enter_again(grown, cache.buckets)
    return grown


def free_entries(cache: Cache) -> int:
    """Entries that are free."""
    return int(cache.counts[FREE_LEFT])


def entries_needed(paths: Paths, requests_count: int, stores_per_request: int) -> int:
    """Entries that so many requests take at most, if each comes to so many stores.

    Each takes those of its path and one for what it does not share.
    """
    deepest = int(paths.segments["depth"].max(initial=0))
    return requests_count * stores_per_request * (1 + deepest)


def _for_kernel(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Rows whose fields are attributes: Numba gives that to any record array, plain Python needs a view."""
    return rows if jit.ENABLED else rows.view(np.recarray)


@part
def found_blocks(cache: Cache, store: int, segment: int, tokens: int, now_s: float) -> int:
    """Leading blocks of the path, within its first ``tokens`` tokens, that the store has and that are not too old."""
    space: Any = cache.stores[store]
    at = segment
    while at != NONE:
        e = _entry(cache, store, at)
        if e != NONE:
            entry: Any = cache.entries[e]
            if entry.have > 0 and (entry.pins > 0 or now_s - entry.released_s <= space.retention_s):
                blocks: int = min(entry.before + entry.have, tokens // space.block_tokens)
                return blocks
        at = cache.segments[at].parent
    return 0


@part
def unprotected_blocks(cache: Cache, store: int, segment: int, now_s: float) -> int:
    """How many blocks ``protect`` would protect that nobody does now."""
    space: Any = cache.stores[store]
    more = 0
    at = segment
    while at != NONE:
        e = _entry(cache, store, at)
        if e != NONE:
            entry: Any = cache.entries[e]
            if entry.pins == 0 and now_s - entry.released_s <= space.retention_s:
                more += entry.have
        at = cache.segments[at].parent
    return more


@part
def protect(cache: Cache, store: int, segment: int, now_s: float) -> int:
    """A sequence with this path runs: its blocks do not give way, and those too old are dropped.

    Returns how many blocks are protected that were not.
    """
    space: Any = cache.stores[store]
    more = 0
    at = segment
    while at != NONE:
        e = _entry(cache, store, at)
        if e == NONE:
            e = _create(cache, store, at)
        entry: Any = cache.entries[e]
        if entry.pins == 0 and entry.have > 0:
            _unlink(cache, store, e)
            if now_s - entry.released_s > space.retention_s:
                space.resident -= entry.have
                space.evicted += entry.have
                entry.have = 0
            more += entry.have
        entry.pins += 1
        at = cache.segments[at].parent
    space.protected += more
    return more


@part
def join(cache: Cache, store: int, segment: int, tokens: int) -> int:
    """The first ``tokens`` tokens of a path that is protected are in its sequence's blocks: they are cached now.

    Returns how many blocks the cache did not have; those are the cache's from now on.
    """
    space: Any = cache.stores[store]
    blocks = tokens // space.block_tokens
    more = 0
    at = segment
    while at != NONE:
        entry: Any = cache.entries[_entry(cache, store, at)]
        have = min(blocks - entry.before, entry.full)
        if have > entry.have:
            more += have - entry.have
            entry.have = have
        at = cache.segments[at].parent
    space.resident += more
    space.protected += more
    return more


@part
def release(cache: Cache, store: int, segment: int, own_unshared_blocks: int, now_s: float) -> int:
    """A sequence with this path runs no more; so many full blocks that it does not share stay as garbage.

    What no other sequence protects becomes the youngest, the deepest first: it gives way first. Returns how many
    blocks are protected no more.
    """
    space: Any = cache.stores[store]
    if own_unshared_blocks > 0:
        _append_garbage(cache, store, own_unshared_blocks)
    less = 0
    at = segment
    while at != NONE:
        e = _entry(cache, store, at)
        entry: Any = cache.entries[e]
        entry.pins -= 1
        if entry.pins == 0:
            if entry.have > 0:
                less += entry.have
                entry.released_s = now_s
                _append(cache, store, e)
            else:
                _free(cache, e)
        at = cache.segments[at].parent
    space.protected -= less
    return less


@part
def make_room(cache: Cache, store: int, unprotected_allowed: int) -> None:
    """Blocks give way until at most so many are left that nobody protects."""
    space: Any = cache.stores[store]
    surplus = space.resident - space.protected - unprotected_allowed
    while surplus > 0 and space.head != NONE:
        e = space.head
        entry: Any = cache.entries[e]
        gone = min(surplus, entry.have)
        surplus -= gone
        space.resident -= gone
        space.evicted += gone
        entry.have -= gone
        if entry.have == 0:
            _unlink(cache, store, e)
            _free(cache, e)


@part
def copy_down(cache: Cache, store: int, segment: int, tokens: int, unshared_blocks: int, now_s: float) -> None:
    """Copy the first ``tokens`` tokens of a path, and blocks that it does not share, into a tier (it has no pins).

    They become the youngest, those not shared before the others and the deepest before those above; what is too
    much for the tier gives way.
    """
    space: Any = cache.stores[store]
    if unshared_blocks > 0:
        _append_garbage(cache, store, unshared_blocks)
    blocks = tokens // space.block_tokens
    at = segment
    while at != NONE:
        e = _entry(cache, store, at)
        if e != NONE:
            _unlink(cache, store, e)
        else:
            e = _create(cache, store, at)
        entry: Any = cache.entries[e]
        have = max(min(blocks - entry.before, entry.full), entry.have)
        space.resident += have - entry.have
        entry.have = have
        if have > 0:
            entry.released_s = now_s
            _append(cache, store, e)
        else:
            _free(cache, e)
        at = cache.segments[at].parent
    make_room(cache, store, space.capacity)


@part
def clear(cache: Cache, store: int) -> None:
    """Everything goes that no sequence protects: release the paths of a failed instance's sequences first."""
    space: Any = cache.stores[store]
    e = space.head
    while e != NONE:
        entry: Any = cache.entries[e]
        behind = entry.next
        space.resident -= entry.have
        entry.have = 0
        _free(cache, e)
        e = behind
    space.head = NONE
    space.tail = NONE


@inline
def _bucket(cache: Cache, store: int, segment: int) -> int:
    mixed = int(segment) * 0x9E3779B1 + int(store) * 0x85EBCA77
    return (mixed ^ mixed >> 29) & (len(cache.buckets) - 1)


@part
def _entry(cache: Cache, store: int, segment: int) -> int:
    """The entry of a segment in a store; -1: there is none."""
    e = int(cache.buckets[_bucket(cache, store, segment)])
    while e != NONE and (cache.entries[e].segment != segment or cache.entries[e].store != store):
        e = int(cache.entries[e].chain)
    return e


@part
def _create(cache: Cache, store: int, segment: int) -> int:
    """An entry without blocks or pins, not in the list."""
    e = _take(cache, store, segment)
    entry: Any = cache.entries[e]
    part: Any = cache.segments[segment]
    block_tokens = cache.stores[store].block_tokens
    entry.before = part.from_tokens // block_tokens
    entry.full = part.to_tokens // block_tokens - entry.before
    bucket = _bucket(cache, store, segment)
    entry.chain = cache.buckets[bucket]
    cache.buckets[bucket] = e
    return e


@part
def _take(cache: Cache, store: int, segment: int) -> int:
    e = int(cache.counts[FREE_HEAD])
    entry: Any = cache.entries[e]
    cache.counts[FREE_HEAD] = entry.chain
    cache.counts[FREE_LEFT] -= 1
    entry.segment = segment
    entry.store = store
    entry.have = 0
    entry.pins = 0
    return e


@part
def _free(cache: Cache, e: int) -> None:
    """Give back an entry that is not in the list."""
    entry: Any = cache.entries[e]
    if entry.segment != NONE:
        bucket = _bucket(cache, entry.store, entry.segment)
        before = cache.buckets[bucket]
        if before == e:
            cache.buckets[bucket] = entry.chain
        else:
            while cache.entries[before].chain != e:
                before = cache.entries[before].chain
            cache.entries[before].chain = entry.chain
    entry.chain = cache.counts[FREE_HEAD]
    cache.counts[FREE_HEAD] = e
    cache.counts[FREE_LEFT] += 1


@part
def _append(cache: Cache, store: int, e: int) -> None:
    """The entry becomes the youngest of its store's list."""
    space: Any = cache.stores[store]
    entry: Any = cache.entries[e]
    entry.previous = space.tail
    entry.next = NONE
    if space.tail == NONE:
        space.head = e
    else:
        cache.entries[space.tail].next = e
    space.tail = e


@part
def _unlink(cache: Cache, store: int, e: int) -> None:
    """Take an entry out of its store's list."""
    space: Any = cache.stores[store]
    entry: Any = cache.entries[e]
    if entry.previous == NONE:
        space.head = entry.next
    else:
        cache.entries[entry.previous].next = entry.next
    if entry.next == NONE:
        space.tail = entry.previous
    else:
        cache.entries[entry.next].previous = entry.previous


@part
def _append_garbage(cache: Cache, store: int, blocks: int) -> None:
    """Blocks that nobody will ask for become the youngest; garbage upon garbage is one entry."""
    space: Any = cache.stores[store]
    if space.tail == NONE or cache.entries[space.tail].segment != NONE:
        _append(cache, store, _take(cache, store, NONE))
    cache.entries[space.tail].have += blocks
    space.resident += blocks


@kernel
def _enter_again(cache: Cache, old_buckets: npt.NDArray[np.int32]) -> None:
    """Enter all entries of the old buckets into the new ones, which are empty."""
    for old in range(len(old_buckets)):
        e = int(old_buckets[old])
        while e != NONE:
            entry: Any = cache.entries[e]
            behind = int(entry.chain)
            bucket = _bucket(cache, entry.store, entry.segment)
            entry.chain = cache.buckets[bucket]
            cache.buckets[bucket] = e
            e = behind

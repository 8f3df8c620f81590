"""Which requests begin alike: the path of a request, token by token, as a walk down a tree.

The path of a request is its prompt and its answer without the last token. Every token is told apart by what stands
before it and by itself, so two requests share exactly the nodes at which their walks have not parted.
"""

from __future__ import annotations

from dataclasses import dataclass

from infermix.workload.requests import Requests

Name = tuple[object, ...]
"""What a token is called: equal names after equal beginnings are the same token."""


@dataclass(frozen=True)
class Path:
    """One walk."""

    nodes: list[int]
    """The node of each token: equal numbers, equal beginnings up to and with this token."""
    shared: int
    """How many tokens, from the first, some other request has, too."""

    def keys(self, block_tokens: int) -> list[int]:
        """The keys of the shared blocks, from the first: the node of the last token of each."""
        return [self.nodes[(b + 1) * block_tokens - 1] for b in range(self.shared // block_tokens)]


def paths_of(requests: Requests) -> list[Path]:
    """The path of every row."""
    tree: dict[tuple[int, Name], int] = {}
    visitors: list[int] = []
    walks: list[list[int]] = []
    for names in names_of(requests):
        node, walk = -1, []
        for name in names:
            node = tree.setdefault((node, name), len(tree))
            if node == len(visitors):
                visitors.append(0)
            visitors[node] += 1
            walk.append(node)
        walks.append(walk)
    return [Path(walk, sum(visitors[node] > 1 for node in walk)) for walk in walks]


def names_of(requests: Requests) -> list[list[Name]]:
    """The tokens of every row by name."""
    names: list[list[Name]] = []
    for row in range(len(requests)):
        length = int(requests.input_tokens[row]) + int(requests.output_tokens[row]) - 1
        begin = beginning_by_ids(requests, row) if requests.block_ids else beginning_by_session(requests, row, names)
        own: list[Name] = [("own", row, token) for token in range(length)]
        names.append(begin + own[len(begin) :])
    return names


def beginning_by_ids(requests: Requests, row: int) -> list[Name]:
    """One name for each token of the whole id blocks of the prompt."""
    size = int(getattr(requests, "block_id_tokens", 512))
    starts, ids = requests.block_start[0], requests.block_ids[0]
    mine = [int(number) for number in ids[int(starts[row]) : int(starts[row + 1])]]
    whole = int(requests.input_tokens[row]) // size
    return [("id", number, token) for number in mine[:whole] for token in range(size)]


def beginning_by_session(requests: Requests, row: int, names: list[list[Name]]) -> list[Name]:
    """What is shared with the parent, else with the row before in the session; without a session, with the class."""
    cached, session = int(requests.cached_tokens[row]), int(requests.session[row])
    if session < 0:
        return [("class", int(requests.class_id[row]), token) for token in range(rounded_down(cached))]
    parent = int(requests.parent[row])
    if parent >= 0 and int(requests.session[parent]) == session:
        return names[parent][:cached]
    earlier = [other for other in range(row) if int(requests.session[other]) == session]
    return names[earlier[-1]][:cached] if earlier else []


def rounded_down(tokens: int) -> int:
    """To a power of two times 1, 1.25, 1.5 or 1.75, in whole tokens."""
    steps = {int(2**power * part) for power in range(32) for part in (1.0, 1.25, 1.5, 1.75)}
    return max((step for step in steps if step <= tokens), default=0)

"""Circles among edges. Pure."""

from collections.abc import Mapping, Sequence


def find_cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """The nodes of one circle, the first one again at the end; empty where there is none.

    ``edges``: for each node those it waits for; names that are no node are passed over. Nothing recurses.
    """
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        trail: list[str] = [start]
        on_trail = {start}
        todo = [iter(edges[start])]
        while todo:
            following = next(todo[-1], None)
            if following is None:
                todo.pop()
                node = trail.pop()
                on_trail.discard(node)
                done.add(node)
            elif following in on_trail:
                return [*trail[trail.index(following) :], following]
            elif following in edges and following not in done:
                trail.append(following)
                on_trail.add(following)
                todo.append(iter(edges[following]))
    return []

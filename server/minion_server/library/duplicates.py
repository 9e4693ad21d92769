"""Finds hashes that differ in few bits, without comparing every pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from itertools import combinations
from typing import Final, TypeVar

BITS: Final = 128
MAX_THRESHOLD: Final = 31
"""Beyond this unrelated images are alike, and every pair would be compared."""

K = TypeVar("K", bound=Hashable)


def group_similar(hashes: Mapping[K, int], threshold: int) -> list[list[K]]:
    """Return the groups of keys that are connected by hashes within a Hamming distance.

    Two hashes of 128 bits that differ in at most `threshold` bits are equal in one of
    `threshold + 1` parts: only those that share a part are compared.

    Args:
        hashes: The hash of each key.
        threshold: Bits that may differ, 0 to 31.

    Returns:
        Groups of two and more keys, in the order of the mapping.
    """
    keys: dict[int, list[K]] = defaultdict(list)
    for key, value in hashes.items():
        keys[value].append(key)
    values = list(keys)
    parents = list(range(len(values)))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for one, other in _candidates(values, threshold):
        if root(one) != root(other) and (values[one] ^ values[other]).bit_count() <= threshold:
            parents[max(root(one), root(other))] = min(root(one), root(other))
    groups: dict[int, list[K]] = defaultdict(list)
    for item, value in enumerate(values):
        groups[root(item)] += keys[value]
    order = {key: place for place, key in enumerate(hashes)}
    return [sorted(group, key=order.__getitem__) for group in groups.values() if len(group) > 1]


def _candidates(values: list[int], threshold: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions whose values share a part."""
    parts = threshold + 1
    for part in range(parts):
        low, high = BITS * part // parts, BITS * (part + 1) // parts
        mask = (1 << high - low) - 1
        sharing: dict[int, list[int]] = defaultdict(list)
        for place, value in enumerate(values):
            sharing[value >> low & mask].append(place)
        for places in sharing.values():
            yield from combinations(places, 2)

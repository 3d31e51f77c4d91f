"""Longest-prefix lookup by authz's table and by what a Python user would take from PyPI."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from authz_ext.prefixes import PrefixTable
from authz_ext.prefixes import build as build_table

#: Returns the value of the longest prefix of a number.
Find = Callable[[str], int]
#: Country codes below which the made-up prefixes lie, as a wholesale deck has them.
_ROOTS: Final = ("1", "44", "49", "33", "61", "52", "55", "7", "91", "86", "234", "880", "995")
_LENGTH_MAX: Final = 11


def make_prefixes(count: int, rng: random.Random) -> list[str]:
    """Return that many distinct prefixes: few short ones, most of seven digits and more."""
    prefixes = set(_ROOTS[:count])
    length_min = 4 if count < 100_000 else 7
    while len(prefixes) < count:
        root = rng.choice(_ROOTS)
        length = rng.randint(length_min, _LENGTH_MAX) - len(root)
        prefixes.add(root + "".join(rng.choices("0123456789", k=max(length, 1))))
    return sorted(prefixes)


def make_numbers(prefixes: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Return that many full numbers with `+`, each below one of the prefixes."""
    return [
        "+" + (prefix + "".join(rng.choices("0123456789", k=15)))[:15]
        for prefix in rng.choices(prefixes, k=count)
    ]


def authz_table(prefixes: Sequence[str]) -> Find:
    """Return authz's lookup."""
    return PrefixTable(build_table(prefixes)).find


def _dictionary(prefixes: Sequence[str]) -> Find:
    values = {prefix: value for value, prefix in enumerate(prefixes)}

    def find(number: str) -> int:
        for length in range(min(len(number), _LENGTH_MAX + 1), 1, -1):
            value = values.get(number[1:length])
            if value is not None:
                return value
        return -1

    return find


def _marisa(module: Any, prefixes: Sequence[str]) -> Find:
    trie = module.Trie(prefixes)
    # The trie numbers its keys as it likes.
    values = {trie[prefix]: value for value, prefix in enumerate(prefixes)}

    def find(number: str) -> int:
        found = trie.prefixes(number[1:])
        return values[trie[found[-1]]] if found else -1

    return find


def _datrie(module: Any, prefixes: Sequence[str]) -> Find:
    trie = module.Trie("0123456789")
    for value, prefix in enumerate(prefixes):
        trie[prefix] = value
    return lambda number: trie.longest_prefix_value(number[1:], -1)


def _pytrie(module: Any, prefixes: Sequence[str]) -> Find:
    trie = module.StringTrie({prefix: value for value, prefix in enumerate(prefixes)})
    return lambda number: trie.longest_prefix_value(number[1:], -1)


def _pygtrie(module: Any, prefixes: Sequence[str]) -> Find:
    trie = module.CharTrie((prefix, value) for value, prefix in enumerate(prefixes))
    return lambda number: trie.longest_prefix(number[1:]).value


_PACKAGES: Final = {
    "marisa_trie": _marisa,
    "datrie": _datrie,
    "pytrie": _pytrie,
    "pygtrie": _pygtrie,
}


#: More prefixes than this take the package minutes to build.
_PREFIXES_MAX: Final = {"datrie": 100_000}


def makers(count: int = 0) -> dict[str, Callable[[Sequence[str]], Find]]:
    """Return how to make each lookup that is installed and can take `count`, authz's first."""
    found: dict[str, Callable[[Sequence[str]], Find]] = {
        "authz": authz_table,
        "dict of slices": _dictionary,
    }
    for name, make in _PACKAGES.items():
        is_able = count <= _PREFIXES_MAX.get(name, count)
        if is_able and importlib.util.find_spec(name) is not None:
            module = importlib.import_module(name)
            found[name] = lambda prefixes, make=make, module=module: make(module, prefixes)
    return found

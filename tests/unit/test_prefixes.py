"""The prefix table against a plain dictionary of prefixes, and against damaged buffers."""

from __future__ import annotations

import mmap
import random
import zlib
from pathlib import Path

import pytest

from authz_ext.prefixes import PREFIX_LENGTH_MAX, PrefixTable, build

HEADER_BYTES = 32


def longest(prefixes: dict[str, int], number: str) -> list[tuple[int, int]]:
    """The rule in plain Python: what `matches` must say."""
    digits = number.removeprefix("+")
    if not number.startswith(("+", "*", "#")):
        return [(len(digits), prefixes[digits])] if digits in prefixes else []
    lengths = range(min(len(digits), PREFIX_LENGTH_MAX), 0, -1)
    return [
        (length, prefixes[digits[:length]]) for length in lengths if digits[:length] in prefixes
    ]


@pytest.mark.parametrize("count", [1, 50, 3_000, 25_000])
def test_agrees_with_a_dictionary(count: int) -> None:
    generator = random.Random(count)
    prefixes: dict[str, int] = {}
    while len(prefixes) < count:
        length = generator.choice([1, 2, 3, 4, 5, 6, 7, 8, 11, 16])
        symbols = "0123456789" if generator.random() < 0.95 else "0123*#"
        prefixes.setdefault("".join(generator.choices(symbols, k=length)), len(prefixes))
    table = PrefixTable(build(list(prefixes)))
    assert len(table) == count
    known = list(prefixes)
    for _ in range(2_000):
        number = generator.choice(known)[: generator.randint(1, 16)]
        number += "".join(generator.choices("0123456789", k=generator.randint(0, 9)))
        number = generator.choice(["+", "+", "", "*"]) + number
        expected = longest(prefixes, number)
        assert table.matches(number) == expected
        assert table.find(number) == (expected[0][1] if expected else -1)


def test_a_number_that_is_not_e164_matches_only_as_a_whole() -> None:
    table = PrefixTable(build(["91", "411", "*72", "*7", "#"]))
    assert table.find("911") == -1
    assert table.find("91") == 0
    assert table.find("411") == 1
    assert table.find("4115") == -1
    assert table.find("+919876543210") == 0
    assert table.find("*7214155550100") == 2
    assert table.find("#31#") == 4


@pytest.mark.parametrize("number", ["", "+", "x", "+x91", "ü", "+9\u0661", "\x00", "++91", "*"])
def test_what_is_no_number_matches_nothing(number: str) -> None:
    assert PrefixTable(build(["91", "*72"])).find(number) == -1
    assert PrefixTable(build(["91", "*72"])).matches(number) == []


def test_symbols_behind_a_foreign_character_do_not_count() -> None:
    table = PrefixTable(build(["44", "447"]))
    assert table.matches("+44 7") == [(2, 0)]


def test_values_may_be_named() -> None:
    table = PrefixTable(build(["1", "12"], [4_294_967_295, 7]))
    assert table.matches("+123") == [(2, 7), (1, 4_294_967_295)]


def test_an_empty_table_matches_nothing() -> None:
    assert PrefixTable(build([])).find("+1") == -1


@pytest.mark.parametrize("prefix", ["", "1" * 17, "12a", "+1", "1 2", "\u0661", "é"])
def test_malformed_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        build(["1", prefix])


def test_repeated_prefixes_are_refused() -> None:
    with pytest.raises(ValueError, match="'44' is repeated"):
        build(["44", "1", "44"])


def test_reads_a_mapped_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(build(["44", "4420"]))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table = PrefixTable(mapped)
    assert table.nbytes == path.stat().st_size
    assert table.find("+442071234567") == 1


def test_every_torn_table_is_refused() -> None:
    whole = build(["44", "4420", "1"])
    for length in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, 1_000, len(whole) - 1]:
        with pytest.raises(ValueError, match="prefix table"):
            PrefixTable(whole[:length])
    with pytest.raises(ValueError, match="prefix table"):
        PrefixTable(whole + b"\0")


def test_every_flipped_bit_of_the_header_is_refused() -> None:
    whole = build(["44", "4420", "1"])
    for position in range(HEADER_BYTES - 4):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="prefix table"):
            PrefixTable(damaged)


def test_a_flipped_bit_behind_the_header_is_refused() -> None:
    whole = bytearray(build(["44", "4420", "1"]))
    for position in (HEADER_BYTES, len(whole) // 2, len(whole) - 1):
        whole[position] ^= 1
        with pytest.raises(ValueError, match="checksum"):
            PrefixTable(whole)
        whole[position] ^= 1


def test_a_full_table_with_a_right_checksum_cannot_trap_a_search() -> None:
    whole = bytearray(build(["44"]))
    whole[HEADER_BYTES:] = b"\xff" * (len(whole) - HEADER_BYTES)
    whole[16:20] = zlib.crc32(whole[HEADER_BYTES:]).to_bytes(4, "little")
    with pytest.raises(ValueError, match="last slot"):
        PrefixTable(whole)


def test_a_misaligned_buffer_is_refused() -> None:
    shifted = memoryview(b"\0" + build(["44"]))[1:]
    with pytest.raises(ValueError, match="multiple of 4"):
        PrefixTable(shifted)

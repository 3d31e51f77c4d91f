"""What is packed in C against the plain ways to say the same."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.store.connection import pack_command
from authz.store.scripts import Script
from authz_ext.packing import PreparedCall, pack_script_call, pack_strings, unpack_integers

SHA1 = "0123456789abcdef0123456789abcdef01234567"
parts = st.lists(st.binary(max_size=300), max_size=24)


@given(keys=parts, arguments=st.lists(st.binary(max_size=300) | st.integers() | st.text()))
def test_a_script_call_is_packed_as_any_command(
    keys: list[bytes], arguments: list[bytes | int | str]
) -> None:
    expected = pack_command(("EVALSHA", SHA1, len(keys), *keys, *arguments))
    assert pack_script_call(SHA1, keys, arguments) == expected


@pytest.mark.parametrize(
    ("keys", "arguments"), [(["key"], []), ([], [None]), ([1], []), ([], [b"", 0.5])]
)
def test_parts_of_other_types_are_refused(keys: list[bytes], arguments: list[bytes]) -> None:
    with pytest.raises(TypeError):
        pack_script_call(SHA1, keys, arguments)


@given(
    prefix=st.binary(max_size=60),
    call_id=st.text(max_size=200),
    keys=parts,
    arguments=st.lists(st.binary(max_size=1200)),
)
def test_a_prepared_call_is_packed_as_any_other(
    prefix: bytes, call_id: str, keys: list[bytes], arguments: list[bytes]
) -> None:
    prepared = PreparedCall(Script("name", 1 + len(keys), "", SHA1), prefix, keys)
    assert prepared.keys(call_id) == [prefix + call_id.encode(), *keys]
    expected = pack_script_call(SHA1, prepared.keys(call_id), arguments)
    assert prepared.pack(call_id, arguments) == expected


def test_of_a_prepared_call_all_parts_are_bytes() -> None:
    script = Script("name", 2, "", SHA1)
    for keys in ([None], ["key"], [1]):
        with pytest.raises(TypeError):
            PreparedCall(script, b"", keys)  # type: ignore[arg-type]
    prepared = PreparedCall(script, b"", [b"key"])
    for arguments in ([None], ["text"], [1], [b"", bytearray()], None, (b"",)):
        with pytest.raises(TypeError):
            prepared.pack("c1", arguments)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        prepared.pack("\ud800", [])


def test_integers_are_those_that_were_packed() -> None:
    for count in range(1, 18):
        numbers = [2**63 - 1, -(2**63), 0, -1, 255, 256][:count] + [7] * (count - 6)
        assert unpack_integers(struct.pack(f">{count}q", *numbers)) == numbers
    for size in (0, 1, 7, 9, 144, 1600):
        with pytest.raises(ValueError, match="integers"):
            unpack_integers(bytes(size))


@given(texts=st.lists(st.text()))
def test_each_text_is_led_by_its_length_and_cut_at_a_whole_character(texts: list[str]) -> None:
    packed = pack_strings(texts)
    for text in texts:
        length = packed[0]
        kept = packed[1 : 1 + length].decode()
        assert text.startswith(kept)
        assert kept == text or 255 - 4 < length <= 255
        packed = packed[1 + length :]
    assert packed == b""

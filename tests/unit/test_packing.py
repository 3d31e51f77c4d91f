"""What is packed in C against the plain ways to say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.store.connection import pack_command
from authz_ext.packing import pack_script_call, pack_strings

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

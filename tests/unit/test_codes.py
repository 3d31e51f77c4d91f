"""Numbers that compiled code compares are those of authz.reasons."""

from __future__ import annotations

import re
from pathlib import Path

from authz.reasons import Billing, CallClass, Direction

CODES = Path(__file__).parents[2] / "ext/authz_ext/codes.pxd"


def test_codes_are_those_of_the_reasons() -> None:
    codes = dict(re.findall(r"^    ([A-Z_]+) = (\d+)$", CODES.read_text(), re.MULTILINE))
    assert int(codes.pop("CLASSES")) == len(CallClass)
    families = {"CLASS": CallClass, "DIRECTION": Direction, "BILLING": Billing}
    for name, code in codes.items():
        family, _, member = name.partition("_")
        assert families[family][member] == int(code), name
    assert codes

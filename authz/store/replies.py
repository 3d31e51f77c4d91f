"""What the store's replies mean: integers of a script, certainly not executed, or an error."""

from __future__ import annotations

import re
from struct import Struct
from typing import Any, Final

from authz.errors import InvariantError, NotExecuted, StoreReplyError

#: First words of the replies of a server that refused a command before it changed anything.
NOT_EXECUTED_CODES: Final = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    }
)
#: Redis 6.2 wraps what refused a script's write: "ERR Error running script (call to f_<sha1>):
#: @user_script:1: @user_script: 1: -OOM command not allowed ...". Later servers do not.
_WRAPPED: Final = re.compile(r"^ERR Error running script .*@user_script: ?\d+: -([A-Z]+) ")

#: Most integers that a script answers: five about the call and three for each of four legs.
_INTEGERS_MAX: Final = 17
_INTEGERS: Final = {8 * count: Struct(f">{count}q") for count in range(1, _INTEGERS_MAX + 1)}


def read_answer(answer: Any) -> Any:
    """Return what a script with a shortcut has answered, its integers as a list.

    The shortcuts put them into one string, eight bytes each, see `shortcuts.py`.
    """
    if type(answer) is not bytes:
        return answer
    integers = _INTEGERS.get(len(answer))
    if integers is None:
        raise InvariantError(f"a script has answered {len(answer)} bytes, which are no integers")
    return list(integers.unpack(answer))


def reply_error(text: str) -> NotExecuted | StoreReplyError:
    """Return the exception for an error reply.

    A script's first write may be refused (memory, disk, role), a later one not: whatever refuses
    is checked once per script. So such a refusal means not executed for scripts too.
    """
    code = text.partition(" ")[0]
    if code == "ERR" and (match := _WRAPPED.match(text)):
        code = match[1]
    if code in NOT_EXECUTED_CODES:
        return NotExecuted(text, code)
    return StoreReplyError(code, text)

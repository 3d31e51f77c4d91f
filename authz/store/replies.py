"""What the store's replies mean: integers of a script, certainly not executed, or an error."""

from __future__ import annotations

import re
from typing import Any, Final

from authz.errors import InvariantError, NotExecuted, StoreReplyError
from authz_ext.packing import unpack_integers

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


def read_answer(answer: Any) -> Any:
    """Return what a script with a shortcut has answered, its integers as a list.

    The shortcuts put them into one string, eight bytes each, see `shortcuts.py`.
    """
    if type(answer) is not bytes:
        return answer
    try:
        return unpack_integers(answer)
    except ValueError:
        length = len(answer)
        raise InvariantError(
            f"a script has answered {length} bytes, which are no integers"
        ) from None


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

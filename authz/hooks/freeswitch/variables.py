"""Channel variables by which authz and a FreeSWITCH speak of a call, in one place.

The switch keeps them with the leg and hands them back in every event and in the CDR, so that a call
can be told apart, continued and settled by whoever finds it.
"""

from __future__ import annotations

from typing import Final

# Set by the operator (directory or dialplan) before the call is decided.

#: Who pays. Set again with the account that was found, so that it stands in the CDR.
ACCOUNT: Final = "authz_account"
#: `inbound` for a call to the account's user; set again like the account.
DIRECTION: Final = "authz_direction"
#: Where to release the call to instead of the dialled number: an extension, then perhaps its
#: dialplan and its context (`1001 XML default`).
DESTINATION: Final = "authz_destination"
#: A ported number's routing number, by which the call is rated.
RATE_NUMBER: Final = "authz_rate_number"
#: `true` marks a parked call as waiting for us, whatever `freeswitch.contexts` says.
PARK: Final = "authz_park"

# Set by authz on a leg that it has decided.

#: The call's id, on the charged leg only: its uuid, or `<uuid>#2`, … after a transfer.
CALL: Final = "authz_call"
#: The number that was authorized.
TO: Final = "authz_to"
#: `ok`, or why the call was refused.
REASON: Final = "authz_reason"
#: From when the call is charged, in µs since the epoch, where that is not the leg's answer.
STARTED_US: Final = "authz_started_us"
#: The leg's Caller-Destination-Number while it is charged under CALL; another one is another call.
CHARGED_EXTENSION: Final = "authz_charged_extension"
#: The leg's own uuid, where CALL names the call of another leg that has left it behind.
LEG: Final = "authz_leg"

# Set by the dialplan on a callee's leg that it calls for a charged one.

#: CALL, ACCOUNT, DIRECTION and TO of the leg that pays for it, in this order, with blanks between:
#: by this it is charged on if the leg leaves it behind while nobody looks.
PAID_BY: Final = "authz_paid_by"

"""Every branch of the decision order as a row: who has what, who asks, what is answered and paid.

Sections 1.2 to 1.6 and the table of section 1.11 of the contract, with the defects of section 6
done right as `docs/kazoo.md` says. Charges are in micros and reckoned by hand from `RATES`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from msgspec import Struct

#: As Kazoo's task rates/export writes it.
RATES: Final = """\
prefix,direction,rate_cost,rate_minimum,rate_increment,rate_surcharge,internal_rate_cost,\
internal_rate_surcharge,description
1,,0.02,60,60,0,0.011,0,North America
1800,inbound,0.03,6,6,0,0.0125,0,Toll-free
1833,inbound,0.03,6,6,0,0.0125,0,Toll-free
1900,,1.5,60,60,0,1.2,0,Premium
1876,,0.25,60,60,0,0.2,0,Jamaica
44,,0.06,30,6,0.01,0.03,0.002,United Kingdom
"""
US: Final = "+14155550100"
UK: Final = "+442071838750"
FRANCE: Final = "+33142685300"
JAMAICA: Final = "+18765550100"
PREMIUM: Final = "+19005550100"
TOLLFREE: Final = "+18005551212"
TOLLFREE_833: Final = "+18335551212"
RESERVED_822: Final = "+18225551212"

#: What a minute and a second cost the account and its reseller; 66 s of the toll-free rate, 72 s
#: of the British one and its surcharge.
PAID_US: Final = (40_000, 22_000)
PAID_TOLLFREE: Final = (33_000, 13_750)
PAID_UK: Final = (82_000, 38_000)
#: A leg that costs nothing leaves an entry all the same; one that was refused does not.
FOR_FREE: Final = (0, 0)
NOTHING: Final = (None, None)

FREE: Final = (True, "limits_disabled", "limits_disabled")
PER_MINUTE: Final = (True, "per_minute", "per_minute")
REFUSED: Final = (False, "limits_enforced", "limits_enforced")
HARD: Final = (False, "hard_limit", "limits_enforced")
HARD_ABOVE: Final = (False, "limits_enforced", "hard_limit")
TRUNK: Final = (True, "flat_rate", "per_minute")
BURST: Final = (True, "flat_rate_burst", "per_minute")

Words = tuple[bool, str, str]


class Call(Struct, frozen=True, kw_only=True):
    """One question, its answer, and what both legs pay for 61 s, 67 s to London."""

    to: str = US
    direction: str = "outbound"
    answer: Words = PER_MINUTE
    soft: bool = False
    #: Trunk-usage strings of account and reseller; "": not looked at.
    usage: tuple[str, str] = ("", "")
    #: By account and reseller; None: no entry, as where the call was refused.
    paid: tuple[int | None, int | None] = PAID_US
    #: Custom-Channel-Vars beside those that all have.
    variables: dict[str, str] = {}

    @property
    def passes(self) -> bool:
        """Whether ecallmgr lets it through."""
        return self.answer[0] or self.soft

    @property
    def seconds(self) -> int:
        """For how long they talk, if they can."""
        return (67 if self.to == UK else 61) if self.passes else 0


class Case(Struct, frozen=True, kw_only=True):
    """An account and its reseller, each by its limits document, and calls at one time."""

    name: str
    calls: tuple[Call, ...]
    account: dict[str, Any] = {}
    reseller: dict[str, Any] = {}
    #: Of the account's own document.
    profile: dict[str, Any] = {}
    credit: str = "10"
    reseller_credit: str = "100"
    is_own_reseller: bool = False
    #: Whether authz has been told of the account.
    is_known: bool = True

    @property
    def account_id(self) -> str:
        """A fresh one, of Kazoo's form."""
        return _id(f"account of {self.name}")

    @property
    def reseller_id(self) -> str:
        """The reseller's, which may be the account's own."""
        return self.account_id if self.is_own_reseller else _id(f"reseller of {self.name}")

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What Kazoo's database has of them."""
        if not self.is_known:
            return []
        account = {
            "_id": self.account_id, "pvt_type": "account", "pvt_reseller_id": self.reseller_id,
            **self.profile,
        }  # fmt: skip
        limits = {"_id": "limits", "pvt_type": "limits"}
        found = [account, {**limits, "pvt_account_id": self.account_id, **self.account}]
        if not self.is_own_reseller:
            found += [
                {"_id": self.reseller_id, "pvt_type": "account"},
                {**limits, "pvt_account_id": self.reseller_id, **self.reseller},
            ]
        return found

    def call_id(self, number: int) -> str:
        """Return a call's; Kazoo's are UUIDs or come from SIP."""
        return f"{_id(self.name)[:8]}.{number}@192.0.2.7:5060"

    def charges(self, leg: int) -> dict[str, list[int]]:
        """Return what the account, leg 0, or the reseller, leg 1, is charged for each call."""
        paid = {self.call_id(number): call.paid[leg] for number, call in enumerate(self.calls)}
        return {call_id: [micros] for call_id, micros in paid.items() if micros is not None}


def _id(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _refused(words: Words = REFUSED, **more: Any) -> Call:
    return Call(answer=words, paid=NOTHING, **more)


def _free(to: str, **more: Any) -> Call:
    return Call(to=to, answer=FREE, paid=FOR_FREE, **more)


def _trunk(words: Words = TRUNK, **more: Any) -> Call:
    return Call(answer=words, paid=(0, 22_000), **more)


def _inbound(call: Call) -> Call:
    return Call(to=call.to, direction="inbound", answer=call.answer, soft=call.soft,
                usage=call.usage, paid=call.paid, variables=call.variables)  # fmt: skip


#: The table of section 1.11: what passes without anything, with trunks alone, with credit.
_DESTINATIONS: Final = {
    "poor": (
        _free(TOLLFREE), _free("+18885551212"), _free(TOLLFREE_833),
        _inbound(_refused(to=TOLLFREE)), _inbound(_refused(to=TOLLFREE_833)),
        _inbound(_refused(to=RESERVED_822)), _free("911"), _free("112"), _free("988"),
        _free("999"), _free("933"), _free("711"), _refused(to="811"), _refused(to="922"),
        _inbound(_refused(to="911")),
        _refused(to="411"), _refused(), _inbound(_refused()), _refused(to=UK),
        _refused(to=PREMIUM), _refused(to=JAMAICA),
    ),
    "trunks": (
        _free(TOLLFREE), _inbound(_refused(to=TOLLFREE)), _inbound(_refused(to=TOLLFREE_833)),
        _inbound(_refused(to=RESERVED_822)), _refused(to=RESERVED_822), _free("911"), _free("988"),
        _refused(to="411"), _trunk(), _inbound(_trunk()), _refused(), _refused(to=UK),
        _refused(to=PREMIUM), _refused(to=JAMAICA),
    ),
    "credit": (
        _free(TOLLFREE), _inbound(Call(to=TOLLFREE, paid=PAID_TOLLFREE)),
        _inbound(Call(to=TOLLFREE_833, paid=PAID_TOLLFREE)), _inbound(Call(to=RESERVED_822)),
        _free("911"), _free("112"), Call(), _inbound(Call()), Call(to=UK, paid=PAID_UK),
        Call(to=PREMIUM, paid=(3_000_000, 2_400_000)),
        Call(to=JAMAICA, paid=(500_000, 400_000)), _refused(to=FRANCE),
    ),
}  # fmt: skip

DESTINATIONS: Final = (
    Case(name="1.11 neither credit nor trunks", credit="0", calls=_DESTINATIONS["poor"]),
    Case(name="1.11 trunks without credit", credit="0", account={"twoway_trunks": 2},
         calls=_DESTINATIONS["trunks"]),
    Case(name="1.11 credit", calls=_DESTINATIONS["credit"]),
    Case(name="1.11 the reseller has nothing", reseller_credit="0",
         calls=(_refused(), _inbound(_refused()), _refused(to=UK), _free(TOLLFREE), _free("911"))),
)  # fmt: skip

_ALONE = (True, "per_minute", "limits_disabled")
WHO: Final = (
    Case(name="1.2 its own reseller", is_own_reseller=True, account={"outbound_trunks": 1},
         calls=(Call(answer=(True, "flat_rate", "limits_disabled"), paid=FOR_FREE,
                     usage=("0/1/0/0/0/0", "")),
                Call(answer=_ALONE, paid=(40_000, 0), usage=("0/1/0/0/0/1", "")))),
    Case(name="1.2 its own reseller without credit", is_own_reseller=True, credit="0",
         calls=(_refused(), _free(TOLLFREE), _free("911"))),
    Case(name="1.1 an account that nobody knows", is_known=False,
         calls=(_refused(), _refused(to=TOLLFREE), _inbound(_refused()), _free("911"))),
    Case(name="1.2 a disabled account", profile={"enabled": False},
         account={"twoway_trunks": 1, "pvt_soft_limit_outbound": True},
         calls=(_refused(), _inbound(_refused()), _refused(to=TOLLFREE), _free("911"))),
    Case(name="1.1 a reseller that is another account's",
         calls=(Call(variables={"Reseller-ID": _id("somebody else")}),
                Call(variables={"Reseller-ID": ""}), Call(variables={"Reseller-ID": "../x"}))),
)  # fmt: skip

#: What a channel bears when it is asked about is no answer: a leg that was transferred, say.
_TOLD: Final = {"Account-Billing": "hard_limit", "Reseller-Billing": "limits_disabled"}
ECHOES: Final = (
    Case(name="1.1 words of the question", credit="0.02",
         calls=(Call(variables={**_TOLD, "Reseller-ID": ""}),
                _refused(variables={"Account-Billing": "per_minute",
                                    "Reseller-Billing": "per_minute"}))),
)  # fmt: skip

#: A number as devices and carriers write it: one of the rates' prefixes all the same.
NUMBERS: Final = (
    Case(name="1.1 spellings", calls=(
        Call(to="4155550100"), Call(to="14155550100"),
        Call(to="011442071838750", paid=(76_000, 35_000)),
        Call(to="00442071838750", paid=(76_000, 35_000)), _free("18005551212"))),
)  # fmt: skip

HARD_LIMITS: Final = (
    Case(name="1.3 calls 0", account={"calls": 0},
         calls=(_refused(HARD), _inbound(_refused(HARD)), _refused(HARD, to=TOLLFREE),
                _free("911"))),
    Case(name="1.3 calls N", account={"calls": 2},
         calls=(Call(), _inbound(Call()), _refused(HARD), _free("911"))),
    Case(name="1.3 calls -1", account={"calls": -1}, calls=(Call(), Call(), Call())),
    Case(name="1.3 resource-consuming 1 of 5", account={"resource_consuming_calls": 1, "calls": 5},
         calls=(Call(), _refused(HARD))),
    Case(name="1.3 resource-consuming 0", account={"resource_consuming_calls": 0},
         calls=(_refused(HARD),)),
    Case(name="1.3 calls 1 of the reseller", reseller={"calls": 1},
         calls=(Call(), _refused(HARD_ABOVE), _free("911"))),
    Case(name="1.3 a private limit is the smaller one", account={"calls": 5, "pvt_calls": 1},
         calls=(Call(), _refused(HARD))),
    Case(name="1.3 denied calls count nowhere", account={"calls": 1}, credit="0.02",
         calls=(_refused(to=UK), Call(), _refused(HARD))),
    Case(name="1.3 numbers", account={"pvt_inbound_channels_per_did_rules":
                                      {r"^\+?1?415": 1, r"^\+1416": 0, r"^\+1417": -1}},
         calls=(_inbound(Call()), _inbound(_refused(HARD)), Call(), Call(),
                _inbound(_refused(HARD, to="4155550100")), Call(to="4155550100"),
                _inbound(Call(to="+14155550101")), _inbound(_refused(HARD, to="+14165550100")),
                Call(to="+14165550100"), _inbound(Call(to="+14175550100")),
                _inbound(Call(to="+14175550100")))),
    Case(name="1.3 numbers of the reseller",
         reseller={"pvt_inbound_channels_per_did_rules": {r"^\+1415": 1}},
         calls=(_inbound(Call()), _inbound(_refused(HARD_ABOVE)))),
)  # fmt: skip

TRUNKS: Final = (
    Case(name="1.5 twoway 2", credit="0", account={"twoway_trunks": 2},
         calls=(_trunk(usage=("0/0/2/0/0/0", "0/0/0/0/0/0")),
                _inbound(_trunk(usage=("0/0/2/0/0/1", ""))), _refused(usage=("0/0/2/0/1/1", "")))),
    Case(name="1.5 inbound 1", credit="0", account={"inbound_trunks": 1},
         calls=(_refused(), _inbound(_trunk()), _inbound(_refused(usage=("1/0/0/0/1/0", ""))))),
    Case(name="1.5 outbound 1", credit="0", account={"outbound_trunks": 1},
         calls=(_inbound(_refused()), _trunk(), _refused(usage=("0/1/0/0/0/1", "")))),
    Case(name="1.5 burst is used last", credit="0",
         account={"outbound_trunks": 1, "twoway_trunks": 1, "burst_trunks": 1},
         calls=(_trunk(), _inbound(_trunk()), _trunk(BURST), _refused(usage=("0/1/1/1/1/2", "")))),
    Case(name="1.5 burst -1", credit="0", account={"burst_trunks": -1},
         calls=(_trunk(BURST, usage=("0/0/0/-1/0/0", "")), _inbound(_trunk(BURST)), _trunk(BURST))),
    Case(name="1.5 twoway -1", credit="0", account={"twoway_trunks": -1},
         calls=(_trunk(usage=("0/0/-1/0/0/0", "")), _inbound(_trunk()),
                _trunk(usage=("0/0/-1/0/1/1", "")))),
    Case(name="1.5 inbound -1", credit="0", account={"inbound_trunks": -1},
         calls=(_refused(usage=("-1/0/0/0/0/0", "")), _inbound(_trunk()), _inbound(_trunk()))),
    Case(name="1.5 outbound -1", credit="0", account={"outbound_trunks": -1},
         calls=(_inbound(_refused()), _trunk(), _trunk(usage=("0/-1/0/0/0/1", "")))),
    Case(name="1.5 private 0 takes trunks away", credit="0",
         account={"twoway_trunks": 5, "pvt_twoway_trunks": 0}, calls=(_refused(),)),
    Case(name="1.5 a mobile device's", account={"twoway_trunks": 1},
         calls=(_trunk(variables={"Authorizing-Type": "mobile"}),
                Call(variables={"Authorizing-Type": "mobile"}))),
    Case(name="1.5 exhausted and then by the minute", account={"twoway_trunks": 1},
         calls=(_trunk(), Call(usage=("0/0/1/0/0/1", "")))),
    Case(name="1.5 trunks of both", credit="0", reseller_credit="0",
         account={"twoway_trunks": 3}, reseller={"outbound_trunks": 1, "burst_trunks": 1},
         calls=(Call(answer=(True, "flat_rate", "flat_rate"), paid=FOR_FREE,
                     usage=("0/0/3/0/0/0", "0/1/0/1/0/0")),
                Call(answer=(True, "flat_rate", "flat_rate_burst"), paid=FOR_FREE,
                     usage=("0/0/3/0/0/1", "0/1/0/1/0/1")),
                _refused(usage=("0/0/3/0/0/2", "0/1/0/1/0/2")))),
    Case(name="1.5 trunks of the reseller alone", reseller_credit="0",
         reseller={"twoway_trunks": 1},
         calls=(Call(answer=(True, "per_minute", "flat_rate"), paid=(40_000, 0)), _refused())),
)  # fmt: skip

CREDIT: Final = (
    Case(name="1.6 prepay, exactly a minute", credit="0.02", calls=(Call(), _refused())),
    Case(name="1.6 prepay, a micro less", credit="0.019999", calls=(_refused(),)),
    Case(name="1.6 prepay 0", credit="0", calls=(_refused(), _inbound(_refused()))),
    Case(name="1.6 each call holds its own", credit="0.06",
         calls=(Call(), _inbound(Call()), Call(), _refused())),
    Case(name="1.6 no prepay", account={"allow_prepay": False}, calls=(_refused(),)),
    Case(name="1.6 no prepay, but trunks", account={"allow_prepay": False, "twoway_trunks": 1},
         calls=(_trunk(), _refused())),
    Case(name="1.6 private no prepay", account={"allow_prepay": True, "pvt_allow_prepay": False},
         calls=(_refused(),)),
    Case(name="1.6 postpay", credit="0",
         account={"allow_prepay": False, "pvt_allow_postpay": True, "pvt_max_postpay_amount": 400},
         calls=(Call(), Call(), _refused())),
    Case(name="1.6 postpay, a micro less", credit="0",
         account={"pvt_allow_postpay": True, "pvt_max_postpay_amount": 199}, calls=(_refused(),)),
    Case(name="1.6 postpay of 0", credit="0",
         account={"pvt_allow_postpay": True, "pvt_max_postpay_amount": 0}, calls=(_refused(),)),
    Case(name="1.6 a postpay amount that is not allowed", credit="0",
         account={"pvt_max_postpay_amount": 10_000}, calls=(_refused(),)),
    Case(name="1.6 postpay of the reseller", reseller_credit="0",
         reseller={"pvt_allow_postpay": True, "pvt_max_postpay_amount": 110},
         calls=(Call(), _refused())),
    Case(name="1.6 below the reserve amount", credit="0.3", account={"pvt_reserve_amount": 5000},
         calls=(Call(), Call(to=UK, paid=PAID_UK))),
    Case(name="1.6 no rate", calls=(_refused(to=FRANCE), _inbound(_refused(to=FRANCE)))),
    Case(name="1.6 no rate, but trunks", account={"twoway_trunks": 5},
         calls=(_refused(to=FRANCE),)),
)  # fmt: skip

_SOFT = {"pvt_soft_limit_outbound": True}
_SOFT_IN = {"pvt_soft_limit_inbound": True}
_ABOVE = (False, "limits_enforced", "per_minute")
_HARD_SOFT = (False, "hard_limit", "per_minute")
_BELOW = (False, "per_minute", "limits_enforced")
SOFT_LIMITS: Final = (
    Case(name="1.2 soft outbound", credit="0", account=_SOFT,
         calls=(Call(answer=_ABOVE, soft=True, paid=(0, 22_000)), _inbound(_refused()))),
    Case(name="1.2 soft inbound", credit="0", account=_SOFT_IN,
         calls=(_inbound(Call(answer=_ABOVE, soft=True, paid=(0, 22_000))), _refused())),
    Case(name="1.2 soft, but there is credit", account=_SOFT, calls=(Call(), _inbound(Call()))),
    Case(name="1.2 soft beyond a hard limit", account={**_SOFT, "calls": 0},
         calls=(Call(answer=_HARD_SOFT, soft=True, paid=(0, 22_000)), _inbound(_refused(HARD)))),
    Case(name="1.2 soft beyond trunks", credit="0", account={**_SOFT, "twoway_trunks": 1},
         calls=(_trunk(), Call(answer=_ABOVE, soft=True, paid=(0, 22_000)))),
    Case(name="1.2 soft, but the reseller refuses", credit="0", account=_SOFT, reseller_credit="0",
         calls=(_refused(),)),
    Case(name="1.2 soft, but the reseller refuses what the account may", account=_SOFT,
         reseller={"calls": 0}, calls=(_refused(HARD_ABOVE),)),
    Case(name="1.2 soft reseller", reseller=_SOFT, reseller_credit="0",
         calls=(Call(answer=_BELOW, soft=True, paid=(40_000, 0)), _inbound(_refused()))),
    Case(name="1.2 soft reseller, but the account refuses", reseller=_SOFT, credit="0",
         calls=(_refused(),)),
    Case(name="1.2 soft account and reseller", account=_SOFT, reseller=_SOFT, credit="0",
         reseller_credit="0", calls=(Call(answer=REFUSED, soft=True, paid=FOR_FREE),)),
)  # fmt: skip

_OFF = {"pvt_enabled": False}
_SMS = {"authz_resource_types": ["sms"]}
_AS_SMS = {"Resource-Type": "sms"}
_EXCUSED = (True, "limits_disabled", "per_minute")
_ABOVE_ALONE = (False, "limits_disabled", "limits_enforced")
_EXCUSED_ABOVE = (True, "per_minute", "limits_disabled")
EXCUSED: Final = (
    Case(name="1.2 limits off for the account", credit="0", account={**_OFF, "calls": 0},
         calls=(Call(answer=_EXCUSED, paid=(0, 22_000)), _refused(_ABOVE_ALONE, to=FRANCE),
                _inbound(Call(answer=_EXCUSED, paid=(0, 22_000))), _free("911"), _free(TOLLFREE))),
    Case(name="1.2 limits off for the reseller", reseller_credit="0", reseller={**_OFF, "calls": 0},
         calls=(Call(answer=_EXCUSED_ABOVE, paid=(40_000, 0)),
                _inbound(Call(to=TOLLFREE, answer=_EXCUSED_ABOVE, paid=(33_000, 0))))),
    Case(name="1.2 limits off for both", credit="0", reseller_credit="0", account=_OFF,
         reseller=_OFF, calls=(Call(answer=FREE, paid=FOR_FREE), _free(JAMAICA))),
    Case(name="1.2 limits off, but not the account's", credit="0", reseller=_OFF,
         calls=(_refused(), _inbound(_refused()))),
    Case(name="1.2 limits off, but the reseller has nothing", reseller_credit="0", account=_OFF,
         calls=(_refused(_ABOVE_ALONE),)),
    Case(name="1.2 resource types of the account", credit="0", account=_SMS,
         calls=(Call(answer=_EXCUSED, paid=(0, 22_000), variables=_AS_SMS), _refused())),
    Case(name="1.2 resource types of the reseller", reseller_credit="0", reseller=_SMS,
         calls=(Call(answer=_EXCUSED_ABOVE, paid=(40_000, 0), variables=_AS_SMS), _refused())),
    Case(name="1.2 resource types of both", credit="0", reseller_credit="0", account=_SMS,
         reseller=_SMS, calls=(Call(answer=FREE, paid=FOR_FREE, variables=_AS_SMS), _refused())),
    Case(name="1.2 resource types under a hard limit", account={**_SMS, "calls": 1},
         calls=(Call(answer=_EXCUSED, paid=(0, 22_000), variables=_AS_SMS),
                _refused(HARD, variables=_AS_SMS))),
)  # fmt: skip

#: Walked by tests of their own, step by step.
ASKED_AGAIN: Final = Case(name="asked again", account={"calls": 1},
                          calls=(Call(), Call(to=UK, paid=PAID_UK)))  # fmt: skip
FREED: Final = Case(
    name="a freed trunk", credit="0", account={"twoway_trunks": 1},
    calls=(_trunk(), _inbound(_refused()), _inbound(_trunk()), _trunk()),
)  # fmt: skip
FORMS: Final = Case(name="forms of messages", calls=(Call(to=UK, paid=PAID_UK),))
RATED: Final = Case(name="rates and balances", credit="0", calls=())
TOPPED_UP: Final = Case(
    name="topped up", credit="6", reseller_credit="1000",
    profile={"topup": {"threshold": 5, "amount": 25.5},
             "notifications": {"low_balance": {"threshold": 4, "enabled": True}}},
    calls=(Call(to=PREMIUM, paid=(3_000_000, 2_400_000)),),
)  # fmt: skip
STEPS: Final = (ASKED_AGAIN, FREED, FORMS, RATED, TOPPED_UP)

CASES: Final = (
    *DESTINATIONS, *WHO, *ECHOES, *NUMBERS, *HARD_LIMITS, *TRUNKS, *CREDIT, *SOFT_LIMITS, *EXCUSED,
)  # fmt: skip

__all__ = [
    "ASKED_AGAIN", "CASES", "FORMS", "FRANCE", "FREED", "RATED", "RATES", "STEPS", "TOLLFREE",
    "TOPPED_UP", "UK", "US", "Call", "Case",
]  # fmt: skip

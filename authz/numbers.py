"""What kind of number was dialled: the tables of classes, and rules made from settings.

Applying them is `authz_ext.numbers`, which costs a fraction of a microsecond. The order:

1. A dialled string is cleaned: a `sip:` or `tel:` before it, `;parameters` or `@host` behind
   it, and spaces, dashes, dots and brackets within it are dropped. None of them changes who is
   called, so `911;phone-context=+1` is an emergency.
2. If the whole of it is an emergency string, it is `emergency`. Nothing else ever is: not
   `+911`, not a longer number that begins like one, and not a number that only normalises to one.
3. The first of `numbers.rules` that fits makes it E.164. A rule that would make an impossible +1
   number (area code and exchange begin with 2 to 9) does not fit.
4. A +1 number is classed by its area code, any other by its first three digits. A prefix in
   `numbers.classes` goes before these where it is as long or longer. What is not E.164 (too
   short, too long, not possible) is `unknown`.

Every +1 area code that is not listed below is `national`, also one that is not assigned yet:
the United States and Canada open several a year, and a customer's call to a new one must not
wait for a release. Not geographic, and therefore `unknown`, are N11, the area codes kept for
longer numbers (N9X, 37X, 96X), the 5XX set aside for numbers without a place, and those of
carriers and governments (456, 600, 622 and its like, 700, 710).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from authz.config.sections import NumberSettings
from authz.errors import ConfigError
from authz.reasons import CLASSES, CallClass
from authz_ext.numbers import NumberRules

EMERGENCY: Final = ("911", "112", "933", "999", "988", "711")

_TOLLFREE: Final = (800, 833, 844, 855, 866, 877, 888)
_TOLLFREE_RESERVED: Final = (822, *range(880, 888), 889)
_PREMIUM: Final = (900,)
#: The +1 countries and territories that the United States and Canada dial like home but pay like
#: abroad: the list that Kazoo classifies by, and Jamaica's second code, 658.
_CARIBBEAN: Final = (
    242, 246, 264, 268, 284, 340, 345, 441, 473, 649, 658, 664, 670, 671, 684, 721, 758, 767,
    784, 787, 809, 829, 849, 868, 869, 876, 939,
)  # fmt: skip
_N11: Final = tuple(range(211, 1000, 100))
_KEPT_FOR_LONGER_NUMBERS: Final = (
    *(area for hundred in range(200, 1000, 100) for area in range(hundred + 90, hundred + 100)),
    *range(370, 380),
    *range(960, 970),
)
_WITHOUT_A_PLACE: Final = (
    500, *range(521, 530), 532, 533, 535, 538, *range(542, 548), 549, 550,
    *range(552, 557), 558, 566, 569, 577, 578, 588, 589,
)  # fmt: skip
_CARRIERS_AND_GOVERNMENTS: Final = (456, 600, 622, 633, 644, 655, 677, 688, 700, 710)

_SATELLITE_COUNTRIES: Final = (870, 881, 882, 883)
_PREMIUM_COUNTRIES: Final = (979,)


def _table(default: CallClass, *exceptions: tuple[CallClass, Iterable[int]]) -> bytes:
    """Return a class for each three digits."""
    table = bytearray([default]) * 1000
    for call_class, codes in exceptions:
        for code in codes:
            table[code] = call_class
    return bytes(table)


#: The class of each +1 area code.
AREA_CLASSES: Final = _table(
    CallClass.NATIONAL,
    (CallClass.UNKNOWN, range(200)),
    (CallClass.UNKNOWN, _N11),
    (CallClass.UNKNOWN, _KEPT_FOR_LONGER_NUMBERS),
    (CallClass.UNKNOWN, _WITHOUT_A_PLACE),
    (CallClass.UNKNOWN, _CARRIERS_AND_GOVERNMENTS),
    (CallClass.UNKNOWN, _TOLLFREE_RESERVED),
    (CallClass.TOLLFREE, _TOLLFREE),
    (CallClass.PREMIUM, _PREMIUM),
    (CallClass.CARIBBEAN, _CARIBBEAN),
)
#: The class of every other number, by its first three digits.
COUNTRY_CLASSES: Final = _table(
    CallClass.INTERNATIONAL,
    (CallClass.SATELLITE, _SATELLITE_COUNTRIES),
    (CallClass.PREMIUM, _PREMIUM_COUNTRIES),
)


def rules_from_settings(settings: NumberSettings) -> NumberRules:
    """Return the rules that the `[numbers]` settings describe; ConfigError if they cannot be."""
    classes: dict[str, int] = {}
    for rule in settings.classes:
        if classes.setdefault(rule.prefix, CLASSES[rule.class_]) != CLASSES[rule.class_]:
            raise ConfigError(f"numbers.classes: {rule.prefix} has two classes; leave one")
    try:
        return NumberRules(
            rules=[
                (rule.prefix, rule.replace, rule.digits_min, rule.digits_max)
                for rule in settings.rules
            ],
            emergency=(*EMERGENCY, *settings.emergency),
            area_classes=AREA_CLASSES,
            country_classes=COUNTRY_CLASSES,
            class_by_prefix=classes,
        )
    except ValueError as error:
        raise ConfigError(f"numbers: {error}") from error


def default_rules() -> NumberRules:
    """Return the rules of settings that say nothing about numbers: North American dialling."""
    return rules_from_settings(NumberSettings())

"""Normalising and classing dialled strings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.config.sections import NORTH_AMERICAN_RULES, ClassRule, NumberRule, NumberSettings
from authz.errors import ConfigError
from authz.numbers import AREA_CLASSES, COUNTRY_CLASSES, default_rules, rules_from_settings
from authz.reasons import CallClass
from authz_ext.numbers import NumberRules

RULES = default_rules()


@pytest.mark.parametrize(
    ("dialled", "number"),
    [
        ("4155550100", "+14155550100"),
        ("14155550100", "+14155550100"),
        ("+14155550100", "+14155550100"),
        ("01114155550100", "+14155550100"),
        ("0114930123456", "+4930123456"),
        ("004930123456", "+4930123456"),
        ("+4930123456", "+4930123456"),
        (" +1 (415) 555-01.00 ", "+14155550100"),
        ("[415]\t5550100", "+14155550100"),
        ("4155550100;phone-context=+1;user=phone", "+14155550100"),
        ("sip:4155550100@example.org", "+14155550100"),
        ("SIPS:+14155550100;user=phone@example.org:5061", "+14155550100"),
        ("tel:+1-415-555-0100", "+14155550100"),
        ("911", "911"),
        ("*72", "*72"),
        ("*724155550100", "*724155550100"),
        ("#31#4155550100", "#31#4155550100"),
        ("1003", "1003"),
        ("5550100", "5550100"),
        # Neither the area code nor the exchange may begin with 0 or 1.
        ("1155550100", "1155550100"),
        ("4151550100", "4151550100"),
        ("11155550100", "11155550100"),
        ("44155550100", "44155550100"),
        ("01149301", "01149301"),
        ("00123456789012345678", "00123456789012345678"),
        ("415+5550100", "415+5550100"),
        ("++14155550100", "++14155550100"),
        ("1-800-FLOWERS", "1800FLOWERS"),
        ("alice", "alice"),
        ("sip\x1a4155550100", "sip\x1a4155550100"),
        ("sip:", ""),
        ("", ""),
    ],
)
def test_normalize(dialled: str, number: str) -> None:
    assert RULES.normalize(dialled) == number
    assert RULES.classify(dialled)[0] == number


@pytest.mark.parametrize(
    ("dialled", "call_class"),
    [
        *((dialled, CallClass.EMERGENCY) for dialled in ("911", "112", "933", "999", "988", "711")),
        ("9-1-1", CallClass.EMERGENCY),
        (" 911 ", CallClass.EMERGENCY),
        ("911;phone-context=+1", CallClass.EMERGENCY),
        ("sip:911@example.org", CallClass.EMERGENCY),
        *((f"{area}5550100", CallClass.TOLLFREE) for area in (800, 833, 844, 855, 866, 877, 888)),
        ("9005550100", CallClass.PREMIUM),
        ("+979123456789", CallClass.PREMIUM),
        ("8765550100", CallClass.CARIBBEAN),
        ("6585550100", CallClass.CARIBBEAN),
        ("7875550100", CallClass.CARIBBEAN),
        ("6715550100", CallClass.CARIBBEAN),
        ("2125550100", CallClass.NATIONAL),
        ("6045550100", CallClass.NATIONAL),
        ("8675550100", CallClass.NATIONAL),
        # Not assigned yet: the next area code works on its first day.
        ("2335550100", CallClass.NATIONAL),
        ("+442079460958", CallClass.INTERNATIONAL),
        ("+6834000", CallClass.INTERNATIONAL),
        ("+80012345678", CallClass.INTERNATIONAL),
        ("+870773111632", CallClass.SATELLITE),
        ("+881612345678", CallClass.SATELLITE),
        ("+882161234567", CallClass.SATELLITE),
        ("+883510012345", CallClass.SATELLITE),
    ],
)
def test_classes(dialled: str, call_class: CallClass) -> None:
    assert CallClass(RULES.classify(dialled)[1]) is call_class


@pytest.mark.parametrize(
    "dialled",
    [
        # Emergency is never a prefix, a suffix, or what a number normalises to.
        "9110", "9119", "1911", "+911", "+112", "0911", "911911", "911#", "*911", "011911",
        "411", "211", "811", "611", "1411", "*72", "1003", "5550100", "",
        *(f"{area}5550100" for area in (822, 880, 881, 882, 883, 884, 885, 886, 887, 889)),
        *(f"{area}5550100" for area in (411, 911, 290, 999, 370, 969, 456, 500, 533, 600, 710)),
        # Toll-free and a digit more, or fewer; toll-free with an impossible exchange.
        "180055501000", "+180055501000", "+1800555010", "+18001550100",
        "+1", "+", "+0123456789", "+4420", "+123456789012345", "+4412345678901234",
        "+44207946095a", "٩١١", "９１１", "+１4155550100", "\ud800", "911\x00", "alice",
    ],
)  # fmt: skip
def test_unknown(dialled: str) -> None:
    assert CallClass(RULES.classify(dialled)[1]) is CallClass.UNKNOWN


def test_what_is_not_ascii_or_too_long_comes_back_as_it_is() -> None:
    for dialled in ("９ １ １", "4155550100\u200b", "1" * 129, " " * 129):
        assert RULES.classify(dialled) == (dialled, CallClass.UNKNOWN)
        assert RULES.normalize(dialled) == dialled
    assert RULES.normalize(" " * 118 + "4155550100") == "+14155550100"


def test_the_compiled_class_numbers_are_those_of_the_table() -> None:
    assert RULES.classify("911")[1] == CallClass.EMERGENCY
    assert RULES.classify("+")[1] == CallClass.UNKNOWN
    # `numbers.classes` goes before these two even where its prefix has one digit.
    overridden = with_classes(ClassRule(prefix="+1", class_="premium"))
    assert overridden.classify("2125550100")[1] == CallClass.PREMIUM
    overridden = with_classes(ClassRule(prefix="+4", class_="premium"))
    assert overridden.classify("+4930123456")[1] == CallClass.PREMIUM


# --- settings --------------------------------------------------------------------------------


def with_classes(*classes: ClassRule) -> NumberRules:
    """Return the rules of settings with these classes."""
    return rules_from_settings(NumberSettings(classes=classes))


def test_more_emergency_strings() -> None:
    rules = rules_from_settings(NumberSettings(emergency=("9911", "*911", "110")))
    for dialled in ("9911", "99-11", "*911", "110", "911"):
        assert CallClass(rules.classify(dialled)[1]) is CallClass.EMERGENCY
    assert CallClass(RULES.classify("9911")[1]) is CallClass.UNKNOWN
    for dialled in ("99110", "1101", "+110"):
        assert CallClass(rules.classify(dialled)[1]) is CallClass.UNKNOWN


def test_emergency_goes_before_a_rule() -> None:
    rule = NumberRule(prefix="9", replace="+1212555", digits_min=3, digits_max=8)
    rules = rules_from_settings(NumberSettings(rules=(rule,)))
    assert rules.classify("911") == ("911", CallClass.EMERGENCY)
    assert rules.classify("90100") == ("+12125550100", CallClass.NATIONAL)


def test_rules_of_another_country() -> None:
    german = (
        NumberRule(prefix="+", replace="+"),
        NumberRule(prefix="00", replace="+"),
        NumberRule(prefix="0", replace="+49", digits_min=5, digits_max=14),
    )
    rules = rules_from_settings(
        NumberSettings(
            rules=german,
            classes=(
                ClassRule(prefix="+49", class_="national"),
                ClassRule(prefix="+49800", class_="tollfree"),
                ClassRule(prefix="+49900", class_="premium"),
            ),
        )
    )
    expected = {
        "030 123456": ("+4930123456", CallClass.NATIONAL),
        "0800 1234567": ("+498001234567", CallClass.TOLLFREE),
        "0900 1234567": ("+499001234567", CallClass.PREMIUM),
        "0044 20 79460958": ("+442079460958", CallClass.INTERNATIONAL),
        "4155550100": ("4155550100", CallClass.UNKNOWN),
        "0" + "9" * 15: ("0" + "9" * 15, CallClass.UNKNOWN),
    }
    assert {dialled: rules.classify(dialled) for dialled in expected} == expected


def test_the_first_rule_that_fits_is_used() -> None:
    rules = rules_from_settings(
        NumberSettings(
            rules=(
                NumberRule(prefix="", replace="+1604", digits_min=7, digits_max=7),
                NumberRule(prefix="9", replace="+1", digits_min=11, digits_max=11),
                NumberRule(prefix="*67", replace="+1", digits_min=13, digits_max=13),
                *NORTH_AMERICAN_RULES,
            )
        )
    )
    expected = {
        "5550100": "+16045550100",
        "1550100": "1550100",
        "94155550100": "+14155550100",
        "*674155550100": "+14155550100",
        "4155550100": "+14155550100",
    }
    assert {dialled: rules.normalize(dialled) for dialled in expected} == expected


def test_the_longer_prefix_decides_between_settings_and_tables() -> None:
    rules = with_classes(
        ClassRule(prefix="+1", class_="unknown"),
        ClassRule(prefix="+1212", class_="premium"),
        ClassRule(prefix="+1900", class_="national"),
        ClassRule(prefix="+18005", class_="premium"),
        ClassRule(prefix="+88", class_="national"),
        ClassRule(prefix="+8823", class_="national"),
    )
    expected = {
        "4155550100": CallClass.UNKNOWN,
        "2125550100": CallClass.PREMIUM,
        "9005550100": CallClass.NATIONAL,
        "8765550100": CallClass.CARIBBEAN,
        "8005550100": CallClass.PREMIUM,
        "8002550100": CallClass.TOLLFREE,
        "+88612345678": CallClass.NATIONAL,
        "+88212345678": CallClass.SATELLITE,
        "+88232345678": CallClass.NATIONAL,
    }
    assert {dialled: CallClass(rules.classify(dialled)[1]) for dialled in expected} == expected


def test_settings_that_contradict_themselves_are_named() -> None:
    with pytest.raises(ConfigError, match=r"\+44 has two classes"):
        with_classes(
            ClassRule(prefix="+44", class_="national"), ClassRule(prefix="+44", class_="premium")
        )
    for rule in (
        NumberRule(prefix="1" * 33, replace="+"),
        NumberRule(prefix="", replace="1"),
        NumberRule(prefix="", replace="+4x"),
        NumberRule(prefix="é", replace="+"),
    ):
        with pytest.raises(ConfigError, match="numbers: "):
            rules_from_settings(NumberSettings(rules=(rule,)))
    for emergency in ("", "()", "１１０"):
        with pytest.raises(ConfigError, match="emergency"):
            rules_from_settings(NumberSettings(emergency=(emergency,)))


def test_tables_of_the_wrong_size_are_refused() -> None:
    with pytest.raises(ValueError, match="1000 bytes"):
        NumberRules(
            rules=(), emergency=(), area_classes=b"", country_classes=b"", class_by_prefix={}
        )


# --- a twin in regular expressions ------------------------------------------------------------

_NORTH_AMERICAN = re.compile(r"\+1([2-9][0-9]{2})[2-9][0-9]{6}")
_DIALLED = (
    (re.compile(r"\+([0-9]{7,15})"), "+"),
    (re.compile(r"011([0-9]{7,15})"), "+"),
    (re.compile(r"00([0-9]{7,15})"), "+"),
    (re.compile(r"1([2-9][0-9]{2}[2-9][0-9]{6})"), "+1"),
    (re.compile(r"([2-9][0-9]{2}[2-9][0-9]{6})"), "+1"),
)


def twin(dialled: str) -> tuple[str, CallClass]:
    """Normalise and class as the default settings say, by regular expressions."""
    if not dialled.isascii():
        return dialled, CallClass.UNKNOWN
    plain = re.sub(r"[;@].*", "", re.sub(r"^(?i:sips?:|tel:)", "", dialled), flags=re.DOTALL)
    plain = re.sub(r"[ \t\-.()\[\]]", "", plain)
    if plain in ("911", "112", "933", "999", "988", "711"):
        return plain, CallClass.EMERGENCY
    found = ((pattern.fullmatch(plain), sign) for pattern, sign in _DIALLED)
    number = next((sign + match[1] for match, sign in found if match), plain)
    if match := _NORTH_AMERICAN.fullmatch(number):
        return number, CallClass(AREA_CLASSES[int(match[1])])
    if re.fullmatch(r"\+[2-9][0-9]{6,14}", number):
        return number, CallClass(COUNTRY_CLASSES[int(number[1:4])])
    return number, CallClass.UNKNOWN


likely = st.lists(
    st.sampled_from(
        ("+", "1", "011", "00", "800", "900", "911", "112", "2", "415", "876", "5550100", "0", "8",
         "881", "9", "*", "#", "-", " ", "(", ")", ".", ";", "@", "sip:", "TEL:", "a", "é")
    ),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=1_000, deadline=None)
@given(
    st.one_of(
        likely,
        st.from_regex(r"\A(\+|\+1|1|011|00|)[0-9]{2,16}\Z"),
        st.text(max_size=128),
        st.text(alphabet="+0123456789-.() ;@", max_size=128),
    )
)
def test_default_rules_are_the_twins(dialled: str) -> None:
    assert RULES.classify(dialled) == twin(dialled)
    assert RULES.normalize(dialled) == twin(dialled)[0]

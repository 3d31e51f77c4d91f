"""The demonstration deck: what it covers, and that it shows what a deck can say."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from authz.money import parse_amount
from authz.rating.canonical import HEADER, write_canonical
from authz.rating.importer import ImportOptions, import_deck

DECK = files("authz.demo") / "world_deck.csv"
#: Country codes in use after ITU-T E.164; +800, +808, +870 and so on are codes of services.
COUNTRY_CODES = """
1 7 20 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236
237 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261
262 263 264 265 266 267 268 269 27 290 291 297 298 299 30 31 32 33 34 350 351 352 353 354 355
356 357 358 359 36 370 371 372 373 374 375 376 377 378 380 381 382 383 385 386 387 389 39 40 41
420 421 423 43 44 45 46 47 48 49 500 501 502 503 504 505 506 507 508 509 51 52 53 54 55 56 57 58
590 591 592 593 594 595 596 597 598 599 60 61 62 63 64 65 66 670 672 673 674 675 676 677 678 679
680 681 682 683 685 686 687 688 689 690 691 692 800 808 81 82 84 850 852 853 855 856 86 870 878
880 881 882 883 886 90 91 92 93 94 95 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975
976 977 979 98 992 993 994 995 996 998
"""
CARIBBEAN = """
684 264 268 242 246 441 284 345 767 809 829 849 473 671 876 664 670 787 939 869 758 784 721 868
649 340 658
"""
TOLL_FREE = "800 833 844 855 866 877 888"


def deck_rows() -> list[dict[str, str]]:
    """Return the rows of the deck as cells."""
    with DECK.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_it_imports_without_an_issue_and_exports_unchanged() -> None:
    imported = import_deck(DECK.read_bytes(), ImportOptions())
    assert imported.report.issues == ()
    assert write_canonical(imported.rows) == DECK.read_bytes().decode()


def test_every_country_and_every_range_of_north_america_is_covered() -> None:
    prefixes = {row["prefix"] for row in deck_rows()}
    wanted = COUNTRY_CODES.split() + [f"1{code}" for code in f"{CARIBBEAN} {TOLL_FREE} 900".split()]
    assert [prefix for prefix in wanted if prefix not in prefixes] == []
    assert len(prefixes) >= 250


def test_toll_free_is_free_to_the_caller_and_charged_to_the_called() -> None:
    prices = {
        (row["prefix"], row["direction"]): parse_amount(row["price"])
        for row in deck_rows()
        if row["prefix"].startswith("18")
    }
    for code in TOLL_FREE.split():
        assert prices[f"1{code}", "outbound"] == 0
        assert prices[f"1{code}", "inbound"] > 0


def test_premium_numbers_are_blocked() -> None:
    blocked = {row["prefix"] for row in deck_rows() if row["blocked"]}
    assert {"1900", "979", "449"} <= blocked


@pytest.mark.parametrize(
    "column", [name for name in HEADER if name not in {"effective", "expires"}]
)
def test_the_deck_shows_what_a_column_is_for(column: str) -> None:
    assert any(row[column] for row in deck_rows())


def test_all_usual_increments_occur() -> None:
    assert {"", "1", "6", "30/6", "60/1"} <= {row["increment"] for row in deck_rows()}

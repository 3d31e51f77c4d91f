"""The legs of answers: what each account of a chain holds, has left, or has paid.

The scripts answer three integers a leg: its billing, and two amounts in micros.
"""

from __future__ import annotations

cimport cython
from libc.stdint cimport int64_t

from authz_ext.amounts cimport amount_text
from authz_ext.codes cimport BILLING_PER_MINUTE
from authz_ext.rating cimport Rate

cdef enum:
    INTEGERS_A_LEG = 3


cdef inline Py_ssize_t count_legs(list reply, Py_ssize_t first) noexcept:
    return max(0, len(reply) - first) // INTEGERS_A_LEG if first >= 0 else 0


@cython.final
cdef class LegWriter:
    """Makes the legs of grants and settlements, of the types that it is given.

    `labels` are the words for billings by their number; `discount_text` says a rate's discount.
    """

    def __cinit__(self, *, grant_leg not None, settled_leg not None, labels, discount_text not None):
        self._grant_leg = grant_leg
        self._settled_leg = settled_leg
        self._labels = tuple(labels)
        self._discount_text = discount_text

    cdef object label(self, int64_t billing):
        if not 0 <= billing < len(self._labels):
            raise ValueError(f"no leg of a call pays in the way {billing}")
        return self._labels[billing]

    def granted(
        self, tuple accounts not None, tuple are_unlimited not None, tuple rates not None,
        list reply not None, Py_ssize_t first, int64_t at,
    ):
        """Return the legs of a grant from billing, held and credit left of each account.

        They stand in the reply from place `first` on. The rates are told as they are at Unix
        second `at`; an unlimited account has no credit to tell.
        """
        cdef list legs = []
        cdef Py_ssize_t leg
        cdef int64_t billing, held, credit
        cdef Rate rate
        cdef Py_ssize_t known = min(len(accounts), min(len(are_unlimited), len(rates)))
        for leg in range(min(known, count_legs(reply, first))):
            billing = reply[first]
            held = reply[first + 1]
            credit = reply[first + 2]
            first += INTEGERS_A_LEG
            text, discount = "0", None
            if billing == BILLING_PER_MINUTE and rates[leg] is not None:
                rate = <Rate?>rates[leg]
                text = rate.per_minute_text(at)
                if rate._discount_basis_points:
                    discount = self._discount_text(rate)
            legs.append(self._grant_leg(
                accounts[leg],
                self.label(billing),
                text,
                amount_text(held),
                None if are_unlimited[leg] else amount_text(credit),
                discount,
            ))
        return tuple(legs)

    def settled(self, tuple accounts not None, list reply not None, Py_ssize_t first):
        """Return the legs of a settlement from billing, charge and balance of each account.

        A call that was booked before may have had fewer legs than its chain has now.
        """
        cdef list legs = []
        cdef Py_ssize_t leg
        cdef int64_t billing, charged, balance
        for leg in range(min(len(accounts), count_legs(reply, first))):
            billing = reply[first]
            charged = reply[first + 1]
            balance = reply[first + 2]
            first += INTEGERS_A_LEG
            legs.append(self._settled_leg(
                accounts[leg], self.label(billing), amount_text(charged), amount_text(balance)
            ))
        return tuple(legs)

"""Numbers of authz.reasons that compiled code compares; tests/unit/test_codes.py holds both."""

cdef enum:
    CLASSES = 8
    CLASS_EMERGENCY = 0
    CLASS_UNKNOWN = 7
    DIRECTION_OUTBOUND = 0
    BILLING_TRUNK = 1
    BILLING_BURST = 2
    BILLING_PER_MINUTE = 3

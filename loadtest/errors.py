"""What can go wrong with a load test, apart from what it measures."""

from __future__ import annotations

from authz.errors import AuthzError


class LoadTestError(AuthzError):
    """The load test cannot be run as asked, or could not be finished."""

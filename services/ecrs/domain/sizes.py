"""Sizes of requests and candidate lists, shared by the services and the offline evaluation."""

DEFAULT_ITEMS = 100
"""Items of a request that gives no `request_num`, as in the original."""

MAX_ITEMS = 1000
"""Most items that one request may ask for or carry."""

CANDIDATES = 200
"""Candidates that the gateway has ranked per request by default, and that the evaluation has ranked per user.

More than DEFAULT_ITEMS, so that ranking selects. docs/reference/quality.md has quality and cost by number.
"""

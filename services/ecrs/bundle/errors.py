"""Errors of bundles."""


class BundleError(Exception):
    """A bundle or one of its files is missing or invalid, or cannot be written; the text names the file."""


class UntrustedBundle(BundleError):
    """The bundle is not signed, or not by a key that is trusted; the text says how to trust it."""

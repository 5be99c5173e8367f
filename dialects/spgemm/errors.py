"""Errors about sparse matrices."""

from nybble.dialects.errors import NybbleError


class SparseError(NybbleError):
    """A sparse matrix that breaks a rule of its layout, or a product that has no meaning."""

"""Owns how much table our header encoder keeps for a peer. Refuses to know what a header means.

Installed by ``wire.h2_seam`` in place of hpack's own encoder, which differs from it in three ways:

* it takes any SETTINGS_HEADER_TABLE_SIZE for an order; searching its table is linear, so a peer that offers 4 GiB slows
  every answer down more and more. An encoder may use less than it is offered (RFC 7541, 4.2): at most 4096 bytes here.
* it remembers each change of size until the next block. A peer that changes its mind a million times and calls
  nothing would be remembered a million times, and get a block that starts with as many updates. The smallest and
  the last are all that RFC 7541, 4.2 wants.
* it forgets to announce a smaller table when the same size is set twice before the next block.
"""

from __future__ import annotations

from hpack import Encoder

LARGEST_TABLE = 4096
"""HTTP/2's default, in bytes as RFC 7541, 4.1 counts them; at most 128 entries to search."""


class CappedEncoder(Encoder):
    """hpack's encoder with a table of at most ``LARGEST_TABLE``."""

    @property
    def header_table_size(self) -> int:
        """The size in use, in bytes."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, LARGEST_TABLE)
        if size == self.header_table.maxsize:
            return
        smallest = min(size, *self.table_size_changes, self.header_table.maxsize)
        self.header_table.maxsize = size
        self.table_size_changes = [size] if size == smallest else [smallest, size]

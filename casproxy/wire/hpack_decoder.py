"""Owns decoding header blocks: what ``hpack`` does, in a quarter of the time, and what a peer may make it cost.

Refuses to know what a header means. Installed by ``wire.h2_seam`` in place of hpack's own decoder.

Three limits are checked before the work they save is done. Each ends the connection, not the stream: what is not
decoded may have changed the dynamic table, and from then on every further block would mean something else.

* a header list counts 32 bytes a field (RFC 9113, 6.5.2); one indexed byte can name a 4 KiB field, so a block of
  1 KiB may stand for megabytes  -> counted as it grows
* a string longer than the whole list may be is refused from its length, before it is copied or Huffman-decoded
* table-size updates cost work and say nothing; an encoder needs two at most (RFC 7541, 4.2)

Clients that never index ``authorization`` send the same Huffman-coded token with every call. A few such strings are
kept decoded, per connection, so that no peer can learn from its timing what another one sent. Clients that do index it
send the same few bytes with every call; what those mean is kept until the table changes.

The oracle is hpack itself: ``casproxy_tests/wire/test_hpack_decoder.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Decoder, HeaderTuple, HPACKDecodingError, InvalidTableIndex, InvalidTableSizeError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from casproxy.wire.guard import TooMuch

MAX_TABLE_SIZE_UPDATES = 2
REMEMBERED_BYTES = 8 * 1024
"""Of Huffman-coded strings per connection, both forms together: a few tokens and paths."""
REPEATED_BLOCKS = 4
REPEATED_BYTES = 64
"""The longest block that is worth remembering as a whole: one of indexes."""
FIELD_OVERHEAD = 32
_INTEGER_BYTES = 5
_STATIC = HeaderTable.STATIC_TABLE
_STATIC_LENGTH = len(_STATIC)


def _integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer whose prefix is ``mask`` (RFC 7541, 5.1), and the position behind it."""
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _INTEGER_BYTES, 7):
        octet = data[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise HPACKDecodingError("integer too long")


class LeanDecoder(Decoder):
    """hpack's ``Decoder(raw=True)`` with plain tuples for results; keeps the dynamic table in hpack's own class.

    ``decode`` raises ``HPACKDecodingError`` for a broken block and ``TooMuch`` past a limit; of no use after either.
    """

    def __init__(self) -> None:
        super().__init__()
        self._remembered: dict[bytes, bytes] = {}
        self._remembered_bytes = 0
        self._repeated: dict[bytes, list[tuple[bytes, bytes]]] = {}  # whole blocks, as the table is now

    def decode(self, data: bytes, raw: bool = True) -> Iterable[HeaderTuple]:
        """The fields of one whole block, in order, as ``(name, value)`` in bytes."""
        fields = self._repeated.get(data)
        if fields is None:
            try:
                fields = self._fields(data)
            except IndexError as error:
                raise HPACKDecodingError("header block ends too early") from error
        self._assert_valid_table_size()
        return fields  # type: ignore[return-value]  # h2 only unpacks them

    def _fields(self, data: bytes) -> list[tuple[bytes, bytes]]:
        fields: list[tuple[bytes, bytes]] = []
        at = updates = size = 0
        repeatable = len(data) <= REPEATED_BYTES
        limit = self.max_header_list_size
        while at < len(data):
            octet = data[at]
            if octet & 0x80:  # an indexed field
                index, at = _integer(data, at, 0x7F)
                field = self._entry(index)
            elif octet & 0xE0 == 0x20:
                updates += 1
                at = self._resize(data, at, updates, at_start=not fields)
                self._repeated.clear()
                repeatable = False
                continue
            else:  # a literal, with (0x40) or without indexing
                index, at = _integer(data, at, 0x3F if octet & 0x40 else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = self._string(data, at)
                value, at = self._string(data, at)
                field = (name, value)
                if octet & 0x40:
                    self.header_table.add(name, value)
                    self._repeated.clear()
                    repeatable = False
            size += FIELD_OVERHEAD + len(field[0]) + len(field[1])
            if size > limit:
                raise TooMuch("header_list", f"header list larger than {limit} bytes")
            fields.append(field)
        if repeatable:
            if len(self._repeated) >= REPEATED_BLOCKS:
                self._repeated.clear()
            self._repeated[data] = fields
        return fields

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index <= _STATIC_LENGTH:
            return _STATIC[index - 1]
        dynamic = self.header_table.dynamic_entries
        if 0 < index <= _STATIC_LENGTH + len(dynamic):
            return dynamic[index - _STATIC_LENGTH - 1]
        raise InvalidTableIndex(f"there is no table entry {index}")

    def _resize(self, data: bytes, at: int, updates: int, *, at_start: bool) -> int:
        if not at_start:
            raise HPACKDecodingError("table size update behind a field")
        if updates > MAX_TABLE_SIZE_UPDATES:
            raise TooMuch("table_size_updates", "too many table size updates in one header block")
        size, at = _integer(data, at, 0x1F)
        if size > self.max_allowed_table_size:
            raise InvalidTableSizeError(f"table size {size} was not offered")
        self.header_table_size = size
        return at

    def _string(self, data: bytes, at: int) -> tuple[bytes, int]:
        huffman = data[at] & 0x80
        length, at = _integer(data, at, 0x7F)
        if length > self.max_header_list_size:
            raise TooMuch("header_list", f"header list larger than {self.max_header_list_size} bytes")
        end = at + length
        if end > len(data):
            raise HPACKDecodingError("header block ends inside a string")
        coded = data[at:end]
        return (self._plain(coded) if huffman else coded), end

    def _plain(self, coded: bytes) -> bytes:
        known = self._remembered.get(coded)
        if known is not None:
            return known
        plain = decode_huffman(coded)
        size = len(coded) + len(plain)
        if size * 2 <= REMEMBERED_BYTES:
            if self._remembered_bytes + size > REMEMBERED_BYTES:
                self._remembered.clear()
                self._remembered_bytes = 0
            self._remembered[coded] = plain
            self._remembered_bytes += size
        return plain

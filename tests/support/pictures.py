"""Pictures of one colour."""

from __future__ import annotations

import struct
import zlib


def png(colour: int, side: int = 320) -> bytes:
    """A square PNG; ``colour`` is 0xRRGGBB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    row = b"\0" + colour.to_bytes(3, "big") * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(row * side)),
            chunk(b"IEND", b""),
        )
    )

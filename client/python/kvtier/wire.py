"""Packs rows into messages that the daemon accepts."""

from kvtier.v1 import worker_pb2

# Room in a message for everything but rows.
_HEADROOM_BYTES = 64 << 10


def append_entry(sequence_id, layer, start, rows, key_dim, approximate=False):
    """Rows as one array [kv_head][token][K | V], any 2- or 4-byte dtype."""
    kv_heads, count, width = rows.shape
    item = rows.itemsize
    strides = {"head_stride_bytes": count * width * item, "token_stride_bytes": width * item}
    return worker_pb2.AppendEntry(
        sequence_id=sequence_id,
        layer=layer,
        start_token=start,
        token_count=count,
        approximate=approximate,
        inline=worker_pb2.InlineRows(
            key=rows.tobytes(),
            key_layout=worker_pb2.RowLayout(**strides),
            value_layout=worker_pb2.RowLayout(offset_bytes=key_dim * item, **strides),
        ),
    )


def split_rows(rows, message_bytes_max):
    """Yields (first token, slice of rows) such that each fits into one message."""
    count = rows.shape[1]
    token_bytes = rows.shape[0] * rows.shape[2] * rows.itemsize
    step = max(1, (message_bytes_max - _HEADROOM_BYTES) // token_bytes)
    for begin in range(0, count, step):
        yield begin, rows[:, begin : begin + step]


def batches(entries, message_bytes_max):
    """Groups of entries, in order, that fit into one message each."""
    group, group_bytes = [], 0
    for entry in entries:
        entry_bytes = len(entry.inline.key) + 256
        if group and group_bytes + entry_bytes > message_bytes_max - _HEADROOM_BYTES:
            yield group
            group, group_bytes = [], 0
        group.append(entry)
        group_bytes += entry_bytes
    if group:
        yield group

"""What can go wrong, as one exception class per gRPC code."""

import grpc


class KvtierError(RuntimeError):
    """Base of all errors that the daemon or the connection to it reports."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgumentError(KvtierError, ValueError):
    """A shape, dtype or value that can never be right."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(KvtierError):
    """An unknown session, model or sequence."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPreconditionError(KvtierError):
    """A right call in the wrong state, such as an append out of order."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhaustedError(KvtierError):
    """Over a budget or limit; nothing was changed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DataLossError(KvtierError):
    """Stored bytes failed their checksum; see Sequence.refill."""

    code = grpc.StatusCode.DATA_LOSS


class PermissionDeniedError(KvtierError):
    code = grpc.StatusCode.PERMISSION_DENIED


class UnimplementedError(KvtierError):
    """Specified, but not served by this daemon."""

    code = grpc.StatusCode.UNIMPLEMENTED


class UnavailableError(KvtierError, ConnectionError):
    """The daemon is gone, and with it the sequences that were open; or it is there and
    says, in a message that begins with "kvtierd", what it can't do now."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceededError(KvtierError, TimeoutError):
    """The daemon is there but did not answer in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class InternalError(KvtierError):
    code = grpc.StatusCode.INTERNAL


_CLASSES = {
    cls.code: cls
    for cls in (
        InvalidArgumentError,
        NotFoundError,
        FailedPreconditionError,
        ResourceExhaustedError,
        DataLossError,
        PermissionDeniedError,
        UnimplementedError,
        UnavailableError,
        DeadlineExceededError,
        InternalError,
    )
}
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def gone(socket: str, details: str = "") -> UnavailableError:
    message = f"kvtierd at {socket} is gone: start it again and reopen the sequence"
    return UnavailableError(f"{message} ({details})" if details else message)


def is_gone(error: grpc.RpcError) -> bool:
    """Whether a call ended because the connection to the daemon did."""
    # What the daemon itself says, of its disk for example, begins so.
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return not (error.details() or "").startswith("kvtierd ")
    # A daemon that shuts down cancels what is under way; we never cancel ourselves
    # without raising something else first.
    return error.code() is grpc.StatusCode.CANCELLED


def _of_daemon(code: grpc.StatusCode, details: str) -> KvtierError:
    if code in _CLASSES:
        return _CLASSES[code](details or code.name)
    return KvtierError(f"{code.name}: {details}")


def from_rpc(error: grpc.RpcError, socket: str) -> KvtierError:
    details = error.details() or ""
    return gone(socket, details) if is_gone(error) else _of_daemon(error.code(), details)


def from_item(error) -> KvtierError:
    """Of an ItemError message."""
    code = _BY_NUMBER.get(error.code, grpc.StatusCode.UNKNOWN)
    return _of_daemon(code, error.message)

"""Streams of Retrieve calls, and the watchdog that keeps a wait on one from hanging.

A call takes a free stream from the pool (or opens one), sends one request and reads
until the last part of every item came, so concurrent callers never share a stream. A
caller that stops in the middle, or an error, makes the stream unusable: it is dropped.
"""

import queue
import threading
import time
import weakref

import grpc

from kvtier import errors


class Watchdog:
    """Cancels calls that were waited on for longer than their deadline.

    One daemon thread, started with the first wait; ends with its last user."""

    def __init__(self):
        self._lock = threading.Lock()
        self._waits = weakref.WeakSet()  # guarded by _lock
        self._thread = None  # guarded by _lock

    def watch(self, wait):
        with self._lock:
            self._waits.add(wait)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kvtier-watchdog", daemon=True)
                self._thread.start()

    def _run(self):
        while True:
            time.sleep(0.5)
            with self._lock:
                waits = list(self._waits)
                if not waits:
                    self._thread = None
                    return
            now = time.monotonic()
            for wait in waits:
                wait.check(now)


WATCHDOG = Watchdog()


class Answers:
    """The answers of a call, each waited for with a deadline; one caller at a time.

    `lost`: an Event, set when the call ends because the daemon is gone."""

    def __init__(self, call, socket, timeout, lost):
        self.call = call
        self._socket = socket
        self._timeout = timeout
        self._lost = lost
        self._deadline = None  # set while a caller waits
        self.timed_out = False
        WATCHDOG.watch(self)

    def check(self, now):
        deadline = self._deadline
        if deadline is not None and now > deadline:
            self.timed_out = True
            self.call.cancel()

    def next(self):
        """None after the last."""
        self._deadline = time.monotonic() + self._timeout
        try:
            return next(self.call, None)
        except grpc.RpcError as error:
            if self.timed_out:
                raise errors.DeadlineExceededError(
                    f"kvtierd at {self._socket} did not answer within {self._timeout:g} s"
                ) from None
            if errors.is_gone(error):
                self._lost.set()
            raise errors.from_rpc(error, self._socket) from None
        finally:
            self._deadline = None

    def close(self):
        self.call.cancel()


class Stream(Answers):
    """A bidirectional call, which the daemon does not end."""

    def __init__(self, method, socket, timeout, lost):
        self._requests = queue.SimpleQueue()
        super().__init__(method(iter(self._requests.get, None)), socket, timeout, lost)

    def send(self, request):
        self._requests.put(request)

    def receive(self):
        answer = self.next()
        if answer is None:
            self._lost.set()
            raise errors.gone(self._socket, "the stream ended")
        return answer

    def close(self):
        self._requests.put(None)
        super().close()


class RetrievePool:
    """Thread-safe."""

    def __init__(self, method, socket, timeout, lost):
        self._open = lambda: Stream(method, socket, timeout, lost)
        self._socket = socket
        self._lock = threading.Lock()
        self._free = []  # guarded by _lock

    def retrieve(self, request):
        """Yields RetrieveResult messages in order. Raises the error of an item."""
        with self._lock:
            stream = self._free.pop() if self._free else None
        stream = stream or self._open()
        done = False
        try:
            stream.send(request)
            missing = len(request.items)
            while missing:
                for result in stream.receive().results:
                    if result.HasField("error"):
                        raise errors.from_item(result.error)
                    missing -= result.last_part
                    yield result
            done = True
        finally:
            if done:
                with self._lock:
                    self._free.append(stream)
            else:
                stream.close()

    def close(self):
        with self._lock:
            streams, self._free = self._free, []
        for stream in streams:
            stream.close()

"""A worker's connection to kvtierd: one session, and the calls of its sequences.

Thread safety: everything may be called from any thread. Every call has a deadline;
when the daemon dies, calls under way and later ones raise UnavailableError. A session
that died is replaced at the next `register_model` (a sequence can't be: reopen it).
"""

import collections
import contextlib
import os
import threading

import grpc

from kvtier import errors, stream, wire
from kvtier.sequence import Sequence
from kvtier.spec import Model, ModelSpec
from kvtier.v1 import worker_pb2, worker_pb2_grpc


def default_socket(namespace: str = "default") -> str:
    """$KVTIER_SOCKET, else the system daemon's, else the user's own."""
    if socket := os.environ.get("KVTIER_SOCKET"):
        return socket
    system = f"/run/kvtier/{namespace}.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.path.exists(system) or not runtime:
        return system
    return os.path.join(runtime, "kvtier", f"{namespace}.sock")


_CHANNEL_OPTIONS = [
    # The daemon's own limit holds, in both directions.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class _Session:
    """One channel with the stream that holds the session open."""

    def __init__(self, socket: str, timeout: float, label: str):
        self.channel = grpc.insecure_channel("unix:" + socket, options=_CHANNEL_OPTIONS)
        self.stub = worker_pb2_grpc.WorkerStub(self.channel)
        self.dead = threading.Event()
        self._stream = stream.Stream(self.stub.Session, socket, timeout, self.dead)
        self._stream.send(worker_pb2.SessionRequest(worker_label=label, worker_pid=os.getpid()))
        try:
            response = self._stream.receive()
        except BaseException:
            self.channel.close()
            raise
        self._stream.call.add_callback(self.dead.set)
        self.id = response.session_id
        self.limits = response.limits
        self.daemon_version = response.daemon_version
        self.pool = stream.RetrievePool(self.stub.Retrieve, socket, timeout, self.dead)

    def close(self):
        self.dead.set()
        self.pool.close()
        self._stream.close()
        self.channel.close()


class Client:
    def __init__(self, socket=None, namespace="default", *, timeout=30.0, label=None):
        """Connects and opens a session. `timeout`: seconds that one answer may take."""
        self.socket = os.path.abspath(socket or default_socket(namespace))
        self.timeout = timeout
        self._label = label or f"python {os.getpid()}"
        self._lock = threading.Lock()
        self._step = 0  # guarded by _lock
        self._models = {}  # ModelSpec -> (session, Model); guarded by _lock
        # Sequences whose owner was garbage-collected; closed with the next call.
        self._orphans = collections.deque()
        self._closed = False
        self._session = self._connect()

    def _connect(self):
        if not os.path.exists(self.socket):
            raise errors.UnavailableError(
                f"no kvtierd listens at {self.socket}: start kvtierd, or say where it is"
                " (socket=..., or the variable KVTIER_SOCKET)"
            )
        return _Session(self.socket, self.timeout, self._label)

    # The session.

    @property
    def session(self) -> object:
        """The session that is open now; a sequence belongs to the one it was opened in."""
        return self._session

    @property
    def session_id(self) -> int:
        return self._session.id

    @property
    def daemon_version(self) -> str:
        return self._session.daemon_version

    @property
    def message_bytes_max(self) -> int:
        return self._session.limits.message_bytes_max or 16 << 20

    @property
    def chunk_tokens(self) -> int:
        return self._session.limits.chunk_tokens or 64

    @property
    def alive(self) -> bool:
        return not self._closed and not self._session.dead.is_set()

    def next_step(self) -> int:
        """Numbers decode steps, ascending over all of the session's sequences."""
        with self._lock:
            self._step += 1
            return self._step

    def close(self):
        self._closed = True
        self._session.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def call(self, method: str, request):
        """One unary call. For callers inside the package."""
        session = self._alive_session()
        try:
            return getattr(session.stub, method)(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._translated(error, session) from None

    def _alive_session(self):
        if self._closed:
            raise errors.gone(self.socket, "the client was closed")
        session = self._session
        if session.dead.is_set():
            raise errors.gone(self.socket, "its session ended")
        return session

    def _translated(self, error, session):
        # A daemon that was restarted doesn't know the session.
        if error.code() == grpc.StatusCode.NOT_FOUND and session.dead.is_set():
            return errors.gone(self.socket, "it was restarted")
        # Whichever call learns it first: the next one must not try this session again.
        if errors.is_gone(error):
            session.dead.set()
        return errors.from_rpc(error, self.socket)

    # Models and sequences.

    def register_model(self, spec: ModelSpec) -> Model:
        """Idempotent. Reconnects if the daemon went away."""
        with self._lock:
            if self._closed:
                raise errors.gone(self.socket, "the client was closed")
            if self._session.dead.is_set():
                self._session.close()
                self._session = self._connect()
            session = self._session
            known_session, model = self._models.get(spec, (None, None))
        if known_session is session:
            return model
        request = worker_pb2.RegisterModelRequest(model=spec.to_proto())
        model = Model(spec, self.call("RegisterModel", request).model_digest)
        with self._lock:
            self._models[spec] = (session, model)
        return model

    def open_sequence(
        self,
        model: Model,
        token_ids=(),
        *,
        system="kvtier",
        budget=None,
        dense_layers=None,
        cached_tokens_max=None,
        extra_key=b"",
        anonymous=False,
        computed_under=b"",
    ) -> Sequence:
        """budget: tokens selected per layer and kv head; None means 256, or 0 for the
        systems that have none. computed_under: what else approximate rows depend on."""
        self.close_orphans()
        if budget is None:
            budget = 0 if system in ("full", "window") else 256
        retrieval = worker_pb2.RetrievalSpec(system=system, budget_tokens=budget)
        if dense_layers is not None:
            retrieval.dense_layers = dense_layers
        request = worker_pb2.OpenSequenceRequest(
            session_id=self.session_id,
            model_digest=model.digest,
            token_ids=token_ids,
            extra_key=extra_key,
            anonymous=anonymous,
            retrieval=retrieval,
            computed_under=computed_under,
        )
        if cached_tokens_max is not None:
            request.cached_tokens_max = cached_tokens_max
        response = self.call("OpenSequence", request)
        return Sequence(
            self, model, response.sequence_id, response.cached_tokens, response.exact_tokens
        )

    def append(self, entries, runs=()) -> dict[int, tuple[int, int]]:
        """Sends entries in as few messages as fit.

        Returns sequence id -> (sealed, complete) tokens. Each message is applied whole
        or not at all."""
        progress = {}
        for group in wire.batches(entries, self.message_bytes_max):
            request = worker_pb2.AppendRequest(
                session_id=self.session_id, tokens=runs, entries=group
            )
            runs = ()
            for item in self.call("Append", request).progress:
                progress[item.sequence_id] = (item.sealed_tokens, item.complete_tokens)
        return progress

    def retrieve(self, step: int, items):
        """Yields RetrieveResult messages; see worker.proto."""
        session = self._alive_session()
        request = worker_pb2.RetrieveRequest(session_id=session.id, step=step, items=items)
        return session.pool.retrieve(request)

    def read(self, request):
        """Yields ReadResponse messages."""
        session = self._alive_session()
        request.session_id = session.id
        call = session.stub.Read(request)
        answers = stream.Answers(call, self.socket, self.timeout, session.dead)
        try:
            while (answer := answers.next()) is not None:
                yield answer
        finally:
            answers.close()

    def check_session(self, session):
        """Ids of a former session may mean something else in this one."""
        if session is not self._session:
            raise errors.gone(self.socket, "it was restarted")
        self._alive_session()

    def orphan(self, sequence: Sequence):
        """Has the sequence closed later; safe in a finalizer."""
        self._orphans.append(sequence)

    def close_orphans(self):
        while self._orphans:
            sequence = self._orphans.popleft()
            if sequence.open:
                # Nobody waits for it, and the session's end would close it too.
                with contextlib.suppress(errors.KvtierError):
                    sequence.close()

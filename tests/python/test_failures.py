"""Goal: a daemon that dies or refuses gives a clear error at once, never a hang.
Method: daemons of the test's own, killed in mid-generate from a logits processor or a
thread; every wait has a limit far below the client's own deadlines."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
import torch
from transformers import LogitsProcessorList

import kvtier
import kvtier.transformers
from kvtier import errors
from kvtier.v1 import admin_pb2, admin_pb2_grpc
from models import greedy, prompt, tiny

PROMPT_SECONDS = 10


@pytest.fixture(scope="module")
def llama():
    return tiny()


def test_what_the_daemon_says_of_its_disk_is_not_a_lost_daemon():
    class Unavailable(grpc.RpcError):
        def __init__(self, details):
            self.details = lambda: details
            self.code = lambda: grpc.StatusCode.UNAVAILABLE

    told = errors.from_rpc(Unavailable("kvtierd can't: the disk is read-only"), "/s.sock")
    assert type(told) is kvtier.UnavailableError
    assert str(told) == "kvtierd can't: the disk is read-only"
    lost = errors.from_rpc(Unavailable("Socket closed"), "/s.sock")
    assert "kvtierd at /s.sock is gone: start it again" in str(lost)


def at_step(step, action):
    """A logits processor that does something once, before that step's token."""
    seen = [0]

    def process(ids, scores):
        seen[0] += 1
        if seen[0] == step:
            action()
        return scores

    return LogitsProcessorList([process])


@pytest.mark.parametrize("system", ["kvtier", "window"])
def test_daemon_killed_in_mid_generate(llama, start_daemon, system):
    daemon = start_daemon()
    inputs = prompt(300)
    kv = kvtier.transformers.attach(llama, system=system, socket=daemon.socket())
    cache = kv.cache(**inputs)
    begin = time.monotonic()
    with pytest.raises(kvtier.UnavailableError, match="start it again and reopen"):
        greedy(llama, inputs, past_key_values=cache, logits_processor=at_step(3, daemon.kill))
    assert time.monotonic() - begin < PROMPT_SECONDS
    with pytest.raises(kvtier.UnavailableError):
        greedy(llama, inputs, past_key_values=cache)
    # The same attachment goes on with a daemon that was started again.
    daemon.start()
    tokens = greedy(llama, inputs, tokens=5, past_key_values=kv.cache(**inputs))
    assert tokens.shape == (1, 305)
    # The old cache's ids are not mistaken for those of the new session.
    with pytest.raises(kvtier.UnavailableError, match="restarted"):
        cache.rows[0].sequence.seal()
    kv.close()


def test_daemon_stopped_while_a_retrieval_waits(llama, start_daemon):
    """A daemon that hangs: the watchdog's deadline, not the connection, ends the wait."""
    daemon = start_daemon()
    inputs = prompt(300)
    client = kvtier.Client(daemon.socket(), timeout=1.0)
    kv = kvtier.transformers.attach(llama, budget=32, client=client)
    freeze = lambda: daemon.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(kvtier.DeadlineExceededError):
            greedy(
                llama, inputs, past_key_values=kv.cache(**inputs), logits_processor=at_step(3, freeze)
            )
    finally:
        daemon.process.send_signal(signal.SIGCONT)
        client.close()
        kv.detach()


def test_no_daemon(tmp_path):
    with pytest.raises(kvtier.UnavailableError, match="start kvtierd"):
        kvtier.Client(str(tmp_path / "nothing.sock"))


def test_socket_without_a_daemon_behind_it(start_daemon):
    daemon = start_daemon()
    daemon.kill()
    assert os.path.exists(daemon.socket())
    with pytest.raises(kvtier.UnavailableError, match="is gone"):
        kvtier.Client(daemon.socket())


def test_budget_full_names_what_to_do(start_daemon):
    daemon = start_daemon(capacity="8MiB", extra='region = "1MiB"\n')
    model, inputs = tiny(num_key_value_heads=4), prompt(6000)
    with kvtier.transformers.attach(model, system="full", socket=daemon.socket()) as kv:
        with pytest.raises(kvtier.ResourceExhaustedError, match="capacity"):
            greedy(model, inputs, past_key_values=kv.cache(**inputs), prefill_chunk_size=512)


def test_nan_in_a_query_is_refused(llama, socket):
    inputs = prompt(300, seed=301)
    with kvtier.transformers.attach(llama, budget=32, socket=socket) as kv:
        cache = kv.cache(**inputs)
        llama(**inputs, past_key_values=cache)
        layer = llama.model.layers[1].self_attn.q_proj
        kept, layer.weight = layer.weight, torch.nn.Parameter(
            torch.full_like(layer.weight, float("nan")), requires_grad=False
        )
        try:
            with pytest.raises(kvtier.InvalidArgumentError):
                llama(torch.tensor([[5]]), past_key_values=cache)
        finally:
            layer.weight = kept


def test_unknown_system_and_budget_zero(llama, socket):
    for options, word in (({"system": "magic"}, "magic"), ({"budget": 0}, "budget")):
        with kvtier.transformers.attach(llama, socket=socket, **options) as kv:
            with pytest.raises(kvtier.InvalidArgumentError, match=word):
                kv.cache(**prompt(10))


def test_a_worker_that_exits_leaves_nothing_open(start_daemon):
    daemon = start_daemon()
    code = (
        "import kvtier, numpy as np, sys\n"
        "c = kvtier.Client(sys.argv[1])\n"
        "m = c.register_model(kvtier.ModelSpec((kvtier.LayerSpec(2, 1, 8, 8),) * 2, 'f32'))\n"
        "s = c.open_sequence(m, range(100), system='full')\n"
        "r = np.ones((1, 50, 8), np.float32)\n"
        "s.append(0, 0, r, r)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, daemon.socket()], timeout=60)
    assert done.returncode == -signal.SIGKILL
    with grpc.insecure_channel("unix:" + daemon.socket("admin")) as channel:
        admin = admin_pb2_grpc.AdminStub(channel)
        deadline = time.monotonic() + 10
        # The daemon says when it knows; what it says then is final.
        for stats in admin.WatchStats(admin_pb2.WatchStatsRequest(interval_ms=100)):
            space = stats.namespaces[0]
            if (space.sessions, space.sequences, space.unsealed_bytes) == (0, 0, 0):
                break
            assert time.monotonic() < deadline, stats
        assert stats.tiers[0].chunks == 0


def test_collected_caches_are_closed(llama, socket):
    with kvtier.transformers.attach(llama, system="full", socket=socket) as kv:
        for _ in range(3):
            kv.cache(**prompt(100, seed=302))
        gc.collect()
        assert len(kv.client._orphans) >= 1
        kv.cache(**prompt(100, seed=302))
        assert len(kv.client._orphans) == 0


def test_threads_share_a_model_and_a_client(llama, socket):
    inputs = [prompt(200 + 10 * i, seed=310 + i) for i in range(4)]
    plain = [greedy(llama, each, tokens=30) for each in inputs]
    results = [None] * len(inputs)
    with kvtier.transformers.attach(llama, budget=1000, socket=socket) as kv:

        def work(i):
            cache = kv.cache(**inputs[i])
            options = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0}
            results[i] = llama.generate(**inputs[i], past_key_values=cache, **options)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert all(torch.equal(a, b) for a, b in zip(results, plain))

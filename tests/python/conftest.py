"""Every test here runs against a real kvtierd.

Its path comes from --kvtierd or the variable KVTIER_DAEMON. One daemon serves the whole
session; a test that kills or fills one starts its own with `start_daemon`.
"""

import os

# Before torch is loaded: its threads otherwise spin on the cores that the daemon needs.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import pytest
import torch

from kvtier import Client

os.environ.setdefault("HF_HUB_OFFLINE", "1")
START_SECONDS = 20


def pytest_addoption(parser):
    parser.addoption("--kvtierd", default=os.environ.get("KVTIER_DAEMON"), help="path of kvtierd")


class Daemon:
    def __init__(self, binary, namespaces=("default",), capacity="2GiB", extra=""):
        # Not pytest's tmp_path: a socket's path may have 107 bytes only.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kvtier-test-"))
        self.config = self.directory / "kvtierd.toml"
        tables = "".join(f'[[namespace]]\nname = "{name}"\n' for name in namespaces)
        self.config.write_text(
            f'[daemon]\nruntime_dir = "{self.directory}"\n{tables}'
            f'[host]\ncapacity = "{capacity}"\n{extra}'
        )
        self.binary = binary
        self.process = None
        self.start()

    def socket(self, namespace="default") -> str:
        return str(self.directory / f"{namespace}.sock")

    def start(self):
        self.log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(
            [self.binary, "--config", self.config], stdout=subprocess.PIPE, stderr=self.log
        )
        deadline = time.monotonic() + START_SECONDS
        line = b""
        while b"ready" not in line:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                pytest.fail(f"kvtierd was not ready within {START_SECONDS} s\n{self.log_text()}")
            line = self.process.stdout.readline()
            if not line:
                pytest.fail(f"kvtierd ended: {self.process.wait()}\n{self.log_text()}")

    def log_text(self):
        return (self.directory / "log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                code = self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail(f"kvtierd did not stop on SIGTERM\n{self.log_text()}")
            assert code == 0, self.log_text()
        self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def kvtierd(request):
    path = request.config.getoption("--kvtierd")
    if not path or not os.access(path, os.X_OK):
        pytest.exit(f"no kvtierd at {path!r}: pass --kvtierd PATH or set KVTIER_DAEMON", 2)
    return os.path.abspath(path)


@pytest.fixture(scope="session")
def daemon(kvtierd):
    running = Daemon(kvtierd)
    yield running
    running.stop()


@pytest.fixture
def start_daemon(kvtierd):
    started = []

    def start(**options):
        started.append(Daemon(kvtierd, **options))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def socket(daemon):
    return daemon.socket()


@pytest.fixture
def client(socket):
    with Client(socket) as connected:
        yield connected


@pytest.fixture
def salt():
    """Of a model that no other test has stored anything for."""
    return uuid.uuid4().bytes


@pytest.fixture(autouse=True)
def seed_torch():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tiny models: threads only wait for each other

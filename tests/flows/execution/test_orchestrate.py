"""A Prefect server that cannot be reached is said within seconds, by every command that would use it."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from flows.cli import run as command
from flows.execution import orchestrate
from flows.execution.orchestrate import reach_api, reach_server
from pipeline.errors import RunConflict

PLATELAYER = "from flows.cli import main; main()"

COMMANDS = {
    "segment": ("segment", "p.zarr"),
    "evaluate": ("evaluate", "p.zarr"),
    "serve": ("serve", "job.toml", "--every", "5m"),
    "deploy": ("deploy", "job.toml", "--pool", "p"),
}

HEAVY = ("prefect", "torch", "pandas", "scipy", "distributed", "httpx")


class Listener:
    """A port that accepts connections and answers what it is told to, byte by byte, or nothing at all."""

    def __init__(self, answer=b"", pause=0.0):
        self.answer, self.pause, self.held = answer, pause, []
        self.place = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.place.getsockname()[1]}/api"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                one, _ = self.place.accept()
            except OSError:
                return
            self.held.append(one)
            threading.Thread(target=self.speak, args=(one,), daemon=True).start()

    def speak(self, one):
        try:
            for byte in self.answer:
                one.sendall(bytes([byte]))
                time.sleep(self.pause)
        except OSError:  # whoever asked has gone
            pass

    def close(self):
        for one in (self.place, *self.held):
            one.close()


@pytest.fixture
def listener(monkeypatch):
    """Configure a server that behaves so: `listener(b"HTTP/1.1 200 OK...", pause=0.1)`."""
    made = []

    def make(*words, **options):
        made.append(Listener(*words, **options))
        monkeypatch.setenv("PREFECT_API_URL", made[-1].url)
        return made[-1].url

    yield make
    for one in made:
        one.close()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as place:
        return f"http://127.0.0.1:{place.getsockname()[1]}/api"


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_every_command_says_within_ten_seconds_that_no_server_answers(kind, listener, tmp_path):
    url = closed_port() if kind == "closed" else listener()
    env = os.environ | {"PREFECT_API_URL": url}
    began = time.monotonic()
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", PLATELAYER, *words], env=env, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name, words in COMMANDS.items()
    }  # fmt: skip
    for name, process in started.items():
        _, said = process.communicate(timeout=100)
        assert process.returncode == 1 and f"no Prefect server answers at {url!r}" in said, (name, said)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_nothing_heavy_is_loaded_before_the_server_has_answered(words):
    code = f"import sys; from flows.cli import run; run({list(words)!r}); print(*sys.modules)"
    env = os.environ | {"PREFECT_API_URL": closed_port()}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100
    )
    assert "no Prefect server answers" in loaded.stderr
    assert not set(HEAVY) & set(loaded.stdout.split())


def test_a_server_that_dribbles_is_not_waited_for(listener, monkeypatch):
    monkeypatch.setattr(orchestrate, "REACH_S", 1)
    listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 5, pause=0.5)
    began = time.monotonic()
    with pytest.raises(RunConflict, match="no answer"):
        reach_api()
    assert time.monotonic() - began < 3


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(orchestrate, "REACH_S", 1)
    given_up = threading.Event()

    def hang(*words, **options):
        given_up.wait(20)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.invalid/api")
    began = time.monotonic()
    with pytest.raises(RunConflict, match=r"prefect\.invalid"):
        reach_api()
    assert time.monotonic() - began < 3
    given_up.set()


@pytest.mark.parametrize(
    ("status", "answers"),
    [(b"200 OK", True), (b"401 Who", True), (b"404 Not Found", False), (b"500 No", False)],
)
def test_what_counts_as_an_answer(status, answers, listener):
    url = listener(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    if answers:
        assert reach_api() == url
    else:
        with pytest.raises(RunConflict, match=f"HTTP {status[:3].decode()}"):
            reach_api()


def test_what_only_says_something_needs_no_server(monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_URL", closed_port())
    reach_server(["inspect", "p.zarr"])
    reach_server([])
    assert command(["segment", "--example"]) == 0
    assert command(["serve", "--help"]) == 0
    assert "no Prefect server" not in capsys.readouterr().err


def test_what_needs_a_server_looks_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setattr(orchestrate, "LOCAL_API", closed_port())
    reach_server(["segment", "p.zarr"])
    with pytest.raises(RunConflict, match=orchestrate.LOCAL_API):
        reach_server(["serve", "job.toml"])

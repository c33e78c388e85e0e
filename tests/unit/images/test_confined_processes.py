"""Code of an attacker's that runs in a decoder process can compute and answer, and nothing else."""

import json
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.images import syscall_filter
from worker.images.sandbox_process import SandboxProcess
from worker.images.syscall_filter import CALLS, CHECKED_CALLS, MACHINES, SECCOMP, program

pytestmark = pytest.mark.skipif(syscall_filter.unavailable() is not None, reason="no seccomp here")

ATTACKER = """
import ctypes, json, mmap, os, resource, socket, threading, time
from worker.images.sandbox import confine, receive, run, send

libc = ctypes.CDLL(None, use_errno=True)
owner = os.getppid()
pages = mmap.mmap(-1, 8192)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
unix = socket.socket(socket.AF_UNIX)

def call(name, *arguments):
    number = numbers[name]
    if libc.syscall(number, *[ctypes.c_ulong(argument) for argument in arguments]) == -1:
        raise OSError(ctypes.get_errno(), name)

def read_environ():
    os.close(0)  # frees a number
    os.open(f"/proc/{owner}/environ", os.O_RDONLY)

def word(text):
    return ctypes.addressof(ctypes.create_string_buffer(text))

ATTEMPTS = {
    "open a file": lambda: open("/etc/hostname"),
    "open a file by another call": lambda: call("openat2", -100, word(b"/etc/hostname"), 0, 0),
    "read the worker's environment": read_environ,
    "read the worker's memory": lambda: call("process_vm_readv", owner, address, 1, address, 1, 0),
    "trace the worker": lambda: call("ptrace", 16, owner, 0, 0),
    "signal the worker": lambda: os.kill(owner, 0),
    "limit the worker": lambda: resource.prlimit(owner, resource.RLIMIT_NOFILE),
    "get a descriptor of the worker": lambda: call("pidfd_open", owner, 0),
    "make a socket": lambda: socket.socket(),
    "connect a socket": lambda: unix.connect("/tmp/nothing"),
    "accept connections": lambda: unix.listen(),
    "pass descriptors": lambda: socket.send_fds(connection, [b"x"], [connection.fileno()]),
    "duplicate a descriptor": lambda: os.dup(connection.fileno()),
    "start a process": lambda: os.fork(),
    "start a process by clone": lambda: call("clone", 17, 0, 0, 0, 0),
    "start a process by clone3": lambda: call("clone3", address, 88),
    "enter a namespace": lambda: call("unshare", 0x10000000),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "map memory to execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "make memory executable": lambda: call("mprotect", address & ~4095, 4096, 7),
    "make files of memory": lambda: os.memfd_create("x"),
    "use io_uring": lambda: call("io_uring_setup", 1, address),
    "load a BPF program": lambda: call("bpf", 0, address, 8),
    "remove a file": lambda: os.unlink("/tmp/nothing"),
    "change its user": lambda: os.setuid(1),
    "lift its limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
    "become dumpable": lambda: call("prctl", 4, 1, 0, 0, 0),
}

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.errno
    except ValueError:  # a limit that may not be raised
        return 1
    return 0

def serve(opened):
    global connection, numbers
    connection, numbers = opened, json.loads(receive(opened))
    confine(memory_bytes=2**31)
    send(connection, b"")
    while True:
        match receive(connection):
            case b"attempts":
                send(connection, json.dumps({name: outcome(attempt) for name, attempt in ATTEMPTS.items()}).encode())
            case b"thread":
                done = []
                thread = threading.Thread(target=done.append, args=[1])
                thread.start()
                thread.join()
                send(connection, json.dumps(done).encode())
            case b"hang":
                time.sleep(600)
            case b"x32":
                libc.syscall(0x40000000 + 39)
                send(connection, b"alive")

run(serve)
"""

NUMBERS = {  # on x86-64, aarch64
    "openat2": (437, 437),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "pidfd_open": (434, 434),
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "mprotect": (10, 226),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "prctl": (157, 167),
}


@pytest.fixture
def attacker_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The attacker's options."""
    (tmp_path / "attacker.py").write_text(ATTACKER)
    monkeypatch.syspath_prepend(tmp_path)
    column = MACHINES[platform.machine()].column
    return json.dumps({name: found[column] for name, found in NUMBERS.items()}).encode()


@pytest.fixture
def attacker(attacker_module: bytes) -> Iterator[SandboxProcess]:
    process = SandboxProcess("attacker", attacker_module, answer_seconds=30)
    yield process
    process.close()


def test_an_attacker_can_neither_open_nor_start_nor_reach_anything(attacker: SandboxProcess) -> None:
    attacker.send(b"attempts")
    outcomes = json.loads(attacker.receive())
    assert len(outcomes) > 20
    errors = {name: os.strerror(error) for name, error in outcomes.items()}
    assert errors.pop("start a process by clone3") == "Function not implemented"
    assert errors == dict.fromkeys(errors, "Operation not permitted")


def test_decoders_may_use_threads(attacker: SandboxProcess) -> None:
    attacker.send(b"thread")
    assert json.loads(attacker.receive()) == [1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a part of x86-64")
def test_calls_that_are_numbered_otherwise_end_the_process(attacker: SandboxProcess) -> None:
    attacker.send(b"x32")
    with pytest.raises((EOFError, OSError)):
        attacker.receive()
    assert attacker.close() == -signal.SIGSYS


def test_a_process_outlives_the_thread_that_asked_for_it(attacker_module: bytes) -> None:
    made: list[SandboxProcess] = []
    asking = threading.Thread(
        target=lambda: made.append(SandboxProcess("attacker", attacker_module, answer_seconds=30))
    )
    asking.start()
    asking.join()
    time.sleep(0.1)
    made[0].send(b"thread")
    assert json.loads(made[0].receive()) == [1]
    made[0].close()


def test_a_process_that_does_not_read_its_socket_ends_with_its_owner(attacker_module: bytes) -> None:
    ours, theirs = os.pipe()
    owner = os.fork()
    if not owner:
        process = SandboxProcess("attacker", attacker_module, answer_seconds=30)
        process.send(b"hang")
        os.write(theirs, str(process.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    pid = int(os.read(ours, 100))
    os.waitpid(owner, 0)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("machine", "header"), [("x86_64", "asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")])
def test_the_numbers_are_those_of_the_kernel_headers(machine: str, header: str) -> None:
    found = [
        path for path in (Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu")) if (path / header).exists()
    ]
    if not found:
        pytest.skip("no kernel headers here")
    text = (found[0] / header).read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text)}
    column = MACHINES[machine].column
    for name, numbers in {**CALLS, **CHECKED_CALLS, "seccomp": SECCOMP}.items():
        assert numbers[column] == known.get(name), name


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_every_jump_of_the_filter_stays_inside_of_it(machine: syscall_filter.Machine) -> None:
    made = program(machine)
    for at, (_, on_true, on_false, _operand) in enumerate(made):
        assert at + 1 + max(on_true, on_false) < len(made) or at == len(made) - 1

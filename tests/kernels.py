"""Real kernels for the tests, forked from a process that has done its imports.

A notebook's kernel takes two seconds to come up and two more to import pandas and Prefect; a suite
of hundreds of notebooks cannot wait for that. So one process per test worker, the *nursery*,
imports them once and then forks: the child becomes an ordinary ``ipykernel`` in about 0.2 s, fresh
in every respect that a notebook can see. Where the imports are what a test is about, ask for
a cold kernel: that one is started by jupyter_client, as JupyterLab would.

``python kernels.py MODULE...`` is the nursery itself.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, Self, TextIO

from jupyter_client import BlockingKernelClient, KernelManager

from loopback import stay_on_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WARM = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "IPython.core.completer",
    "matplotlib.font_manager",
    "pandas",
    "pyarrow.compute",
    "prefect",
    "prefect.flow_engine",
    "prefect.task_engine",
)
"""What the nursery imports. Not pyplot: it settles the backend, which a kernel does when it comes up."""

NOT_COMPILED = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Python takes what it compiled before for a source of the same size and second, and tests edit quickly."""

PR_SET_PDEATHSIG = 1


@dataclass
class Ran:
    """What one cell did, as a front end saw it.

    Attributes
    ----------
    status
        ``"ok"``, ``"error"`` or ``"aborted"``.
    count
        The execution count.
    outputs
        The cell's outputs as a notebook file would hold them at the end (``clear_output`` and
        ``update_display_data`` applied, neighbouring stream texts merged).
    messages
        ``(type, content)`` of every message on iopub, in order.
    seconds
        From the request to the kernel being idle.
    """

    status: str = "ok"
    count: int = 0
    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def stdout(self) -> str:
        """Everything printed."""
        return "".join(o["text"] for o in self.outputs if o["output_type"] == "stream" and o["name"] == "stdout")

    @property
    def stderr(self) -> str:
        """Everything written to stderr."""
        return "".join(o["text"] for o in self.outputs if o["output_type"] == "stream" and o["name"] == "stderr")

    @property
    def result(self) -> str | None:
        """The text of ``Out[n]``, None where the cell has none."""
        return next(
            (o["data"].get("text/plain", "") for o in self.outputs if o["output_type"] == "execute_result"), None
        )

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles of what was displayed, the status line among them."""
        return [o["data"] for o in self.outputs if o["output_type"] == "display_data"]

    @property
    def error(self) -> dict[str, Any] | None:
        """``ename``, ``evalue`` and ``traceback`` of the error, None where there was none."""
        return next((o for o in self.outputs if o["output_type"] == "error"), None)

    @property
    def text(self) -> str:
        """All that a person can read, in order: streams, displays and the result as plain text, errors."""
        return "\n".join(_plain(o) for o in self.outputs)

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Apply one iopub message, as a front end does."""
        self.messages.append((kind, content))
        if kind == "stream":
            last = self.outputs[-1] if self.outputs else {}
            if last.get("output_type") == "stream" and last["name"] == content["name"]:
                last["text"] += content["text"]
            else:
                self.outputs.append({"output_type": "stream", "name": content["name"], "text": content["text"]})
        elif kind in {"display_data", "execute_result", "error"}:
            self.outputs.append({"output_type": kind, **content})
        elif kind == "clear_output":
            # `wait` differs only in when the screen changes: at the end of the cell the two look alike,
            # unless nothing follows, and then a waiting clear never happens.
            self._waiting = bool(content.get("wait"))
            if not self._waiting:
                self.outputs.clear()
        elif kind == "update_display_data":
            _update(self.outputs, content)

    _waiting: bool = field(default=False, repr=False)

    def before(self, kind: str) -> None:
        """Carry out a waiting ``clear_output`` when something new comes to be shown."""
        if self._waiting and kind in {"stream", "display_data", "execute_result", "error"}:
            self.outputs.clear()
            self._waiting = False


def _plain(output: Mapping[str, Any]) -> str:
    match output["output_type"]:
        case "stream":
            return str(output["text"])
        case "error":
            return "\n".join(output["traceback"])
        case _:
            return str(output["data"].get("text/plain", ""))


def _update(outputs: list[dict[str, Any]], content: Mapping[str, Any]) -> None:
    wanted = content.get("transient", {}).get("display_id")
    for output in outputs:
        if output.get("transient", {}).get("display_id") == wanted:
            output["data"], output["metadata"] = content["data"], content["metadata"]


class Kernel:
    """One running kernel and the client that talks to it; a fresh one stands in its place after `restart`."""

    def __init__(self, kernels: Kernels, *, cwd: Path, env: Mapping[str, str], cold: bool) -> None:
        self.cwd = cwd
        self.env = dict(env)
        self.cold = cold
        self._kernels = kernels
        self._manager: KernelManager | None = None
        self.client: BlockingKernelClient
        self.pid: int
        self._start()

    def run(self, source: str, *, check: bool = True, timeout: float = 120) -> Ran:
        """Run one cell to its end; an error in it fails the test unless `check` is off."""
        ran = self.collect(self.submit(source), timeout=timeout)
        if check and ran.error is not None:
            message = f"the cell raised:\n{source}\n\n" + "\n".join(ran.error["traceback"])
            raise AssertionError(message)
        return ran

    def submit(self, source: str) -> str:
        """Send a cell without waiting for it; `collect` waits."""
        return str(self.client.execute(source, allow_stdin=False, stop_on_error=False))

    def collect(self, request: str, *, timeout: float = 120) -> Ran:
        """Wait for the cell sent by `submit` and return what it did."""
        started = time.monotonic()
        ran = Ran()
        for kind, content in self._iopub(request, started + timeout):
            ran.before(kind)
            ran.take(kind, content)
        reply = self._reply(request, started + timeout)
        ran.status, ran.count = reply["status"], reply.get("execution_count", 0)
        ran.seconds = time.monotonic() - started
        return ran

    def watch(self, request: str, until: Callable[[Ran], bool], *, timeout: float = 120) -> Ran:
        """Return what the running cell has shown by the time that `until` holds of it; `collect` gets the rest."""
        ran = Ran()
        for kind, content in self._iopub(request, time.monotonic() + timeout):
            ran.before(kind)
            ran.take(kind, content)
            if until(ran):
                return ran
        raise AssertionError(f"the cell ended before it had shown what was waited for:\n{ran.text}")

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the notebook, without a trace there.

        It comes over by cloudpickle, so that instances of the notebook's own classes come too.
        """
        dumped = f"__import__('base64').b64encode(__import__('cloudpickle').dumps({expression})).decode()"
        request = str(self.client.execute("", silent=True, store_history=False, user_expressions={"value": dumped}))
        deadline = time.monotonic() + 60
        for _ in self._iopub(request, deadline):
            pass
        answer = self._reply(request, deadline)["user_expressions"]["value"]
        if answer["status"] != "ok":
            raise AssertionError("\n".join(answer["traceback"]))
        text = answer["data"]["text/plain"].strip("'")
        return pickle.loads(base64.b64decode(text))  # the tests' own kernel wrote it

    def interrupt(self) -> None:
        """Do what the stop button does."""
        os.kill(self.pid, signal.SIGINT)

    def restart(self) -> None:
        """Replace the kernel by a fresh one in the same folder and environment."""
        self.stop()
        self._start()

    def kill(self) -> None:
        """Kill the kernel at once, as the out-of-memory killer would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._wait_gone()

    def stop(self) -> None:
        """End the kernel and let go of its sockets."""
        self.kill()
        self.client.stop_channels()
        if self._manager is not None:
            self._manager.cleanup_resources()

    @property
    def alive(self) -> bool:
        """Tell whether the process is there."""
        if self._manager is not None:
            return bool(self._manager.is_alive())
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _wait_gone(self) -> None:
        deadline = time.monotonic() + 20
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)

    def _start(self) -> None:
        if self.cold:
            self._manager = KernelManager(kernel_name="python3")
            self._manager.start_kernel(cwd=str(self.cwd), env=self.env)
            self.client = self._manager.blocking_client()
            self.pid = self._manager.provisioner.pid
        else:
            file, self.pid = self._kernels.nursery.kernel(cwd=self.cwd, env=self.env)
            self.client = BlockingKernelClient(connection_file=file)
            self.client.load_connection_file()
        self.client.start_channels()
        self._wait_for_ready(time.monotonic() + 60)

    def _wait_for_ready(self, deadline: float) -> None:
        while True:
            try:
                return self.client.wait_for_ready(timeout=60)
            except RuntimeError:
                # A late heartbeat is taken for a dead kernel; on a busy machine it is only late.
                if not self.alive or time.monotonic() > deadline:
                    raise

    def _iopub(self, request: str, deadline: float) -> Iterator[tuple[str, dict[str, Any]]]:
        while True:
            message = self._receive("get_iopub_msg", deadline)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return
            yield kind, content

    def _reply(self, request: str, deadline: float) -> dict[str, Any]:
        while True:
            message = self._receive("get_shell_msg", deadline)
            if message["parent_header"].get("msg_id") == request:
                content: dict[str, Any] = message["content"]
                return content

    def _receive(self, channel: str, deadline: float) -> dict[str, Any]:
        while True:
            try:
                message: dict[str, Any] = getattr(self.client, channel)(timeout=1)
            except Empty:
                if not self.alive:
                    raise AssertionError("the kernel died" + self._kernels.log_tail()) from None
                if time.monotonic() > deadline:
                    raise AssertionError("the kernel did not answer in time" + self._kernels.log_tail()) from None
            else:
                return message


class Kernels:
    """Starts kernels for one test worker; the nursery comes up with the first warm one."""

    def __init__(self) -> None:
        # Unix sockets have names of 107 bytes at most, so pytest's own folders are too deep for them.
        self.folder = Path(tempfile.mkdtemp(prefix="kernels-"))
        self._nursery: Nursery | None = None

    @property
    def nursery(self) -> Nursery:
        """The process that kernels are forked from."""
        if self._nursery is None:
            self._nursery = Nursery(self.folder, WARM)
        return self._nursery

    def start(self, *, cwd: Path, env: Mapping[str, str] | None = None, cold: bool = False) -> Kernel:
        """Start a kernel in `cwd` with this process's environment as it is now, and `env` on top."""
        return Kernel(self, cwd=cwd, env={**os.environ, **NOT_COMPILED, **(env or {})}, cold=cold)

    def log_tail(self) -> str:
        """Return the last lines that warm kernels wrote past their front end."""
        log = self.folder / "log"
        return "\n" + log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._nursery is not None:
            self._nursery.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Nursery:
    """A process with everything imported, that forks kernels when asked."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        self.folder = folder
        # As ipykernel sets it before a notebook can import matplotlib, which reads it once.
        env = {**os.environ, **NOT_COMPILED, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                cwd=folder,
                text=True,
            )

    def kernel(self, *, cwd: Path, env: Mapping[str, str]) -> tuple[str, int]:
        """Fork a kernel and return its connection file and its process id."""
        name = secrets.token_hex(4)
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(_connection(self.folder / name)))
        stdin, stdout = self._pipes()
        stdin.write(json.dumps({"file": str(file), "cwd": str(cwd), "env": dict(env)}) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise AssertionError("the nursery died:\n" + (self.folder / "log").read_text(errors="replace")[-4000:])
        return str(file), int(answer)

    def close(self) -> None:
        """End the nursery, and with it every kernel that it forked."""
        stdin, stdout = self._pipes()
        stdin.close()
        self._process.wait(timeout=20)
        stdout.close()

    def _pipes(self) -> tuple[Any, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _connection(sockets: Path) -> dict[str, str | int]:
    ports = {f"{channel}_port": i for i, channel in enumerate(("shell", "iopub", "stdin", "control", "hb"), start=1)}
    return {
        **ports,
        # Sockets in the file system: no port that another worker could take in between.
        "transport": "ipc",
        "ip": str(sockets),
        "signature_scheme": "hmac-sha256",
        "key": secrets.token_hex(16),
        "kernel_name": "python3",
    }


def _serve(modules: Sequence[str], orders: TextIO, answers: TextIO) -> None:
    """Import, then fork a kernel for each line of `orders` until there are no more."""
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # the collector would write to every shared page of the children
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps
    for line in orders:
        pid = os.fork()
        if pid == 0:
            _become_kernel(**json.loads(line))
        print(pid, file=answers, flush=True)


def _become_kernel(file: str, cwd: str, env: Mapping[str, str]) -> None:
    """Turn this forked process into a kernel; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[0] = ""  # as `python -m ipykernel` has it: the notebook's folder
    sys.modules["numpy"].random.seed()  # a fork inherits the generator's state; a new process has its own
    stay_on_loopback()
    from ipykernel.kernelapp import IPKernelApp

    try:
        IPKernelApp.launch_instance(argv=["-f", file])
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1:], sys.stdin, sys.stdout)

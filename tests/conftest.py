"""What every test may count on: a home of its own, no network, and real kernels."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from kernels import Kernel, Kernels
from loopback import stay_on_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BELONGS_TO_THE_USER = ("PREFECT_", "JUPYTER_", "JPY_", "IPYTHON", "XDG_", "MPL", "HYPOTHESIS_")
"""Variables with these beginnings would let the tests see, or touch, what is the user's own."""

LEFT_OUT = {"benchmarks", "crash", "fuzz", "prefect_server"}
"""Folders that a ``--short`` run leaves out."""

ONE_IN = {"exactness": 8, "scenarios": 8}
"""With ``--short``, of the tests in these folders one in so many runs; of the others one in `ONE_IN_OTHERS`."""

ONE_IN_OTHERS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``."""
    parser.addoption("--long", action="store_true", help="run also what takes minutes, and more of what is random")
    parser.addoption(
        "--short", action="store_true", help="run what differs between versions: no browser, fewer scenarios"
    )
    parser.addoption("--no-skips", action="store_true", help="fail where any test was skipped")


def pytest_configure(config: pytest.Config) -> None:
    """Move this process into a home of its own before anything can read the user's."""
    home = Path(tempfile.mkdtemp(prefix="home-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [n for n in os.environ if n.startswith(BELONGS_TO_THE_USER)]:
        del os.environ[name]
    os.environ.update(_environment(home))
    os.environ.update(
        {
            # Once per worker, not per test: Prefect reads its settings when it is imported, matplotlib
            # and IPython would build their caches again for each test.
            "PREFECT_HOME": str(home / "prefect"),
            "MPLCONFIGDIR": str(home / "matplotlib"),
            "IPYTHONDIR": str(home / "ipython"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the debugger in a kernel writes about frozen modules
        }
    )
    stay_on_loopback()


def _environment(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    folders = {
        "XDG_CACHE_HOME": "cache",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "XDG_STATE_HOME": "state",
    }
    return {"HOME": str(home), **{variable: str(home / folder) for variable, folder in folders.items()}}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave whole folders alone in a short run: what they import may not be there at the lowest versions."""
    left_out = {config.rootpath / "tests" / folder for folder in LEFT_OUT}
    return True if config.getoption("--short") and collection_path in left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this run is not about: deselected, so that a skipped test is always a fault."""
    short, long = config.getoption("--short"), config.getoption("--long")
    chosen, others = [], []
    for item in items:
        (chosen if _belongs(item, short=short, long=long) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


def _belongs(item: pytest.Item, *, short: bool, long: bool) -> bool:
    if item.get_closest_marker("long"):
        return long
    if not short:
        return True
    folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    if item.get_closest_marker("browser"):
        return False
    # The same tests in every process and on every day.
    return zlib.crc32(item.nodeid.encode()) % ONE_IN.get(folder, ONE_IN_OTHERS) == 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a skipped test a failed run where ``--no-skips`` asks for it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder for this test, and in it a store that does not exist yet."""
    folder = tmp_path_factory.mktemp("home")
    for variable, value in _environment(folder).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PREFECT_CACHE_DIR", str(folder / "store"))
    return folder


@pytest.fixture(autouse=True)
def _no_loop_of_a_browser(request: pytest.FixtureRequest) -> Iterator[None]:
    """No event loop runs in this thread: Playwright's would, in a worker that has driven a browser before."""
    if request.node.get_closest_marker("browser"):
        yield
        return
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(loop)


@pytest.fixture
def store_root(home: Path) -> Path:
    """Where ``PREFECT_CACHE_DIR`` points in this test; nothing is there yet."""
    return home / "store"


@pytest.fixture(scope="session")
def kernels() -> Iterator[Kernels]:
    """The worker's starter of kernels."""
    with Kernels() as kernels:
        yield kernels


class StartKernel(Protocol):
    """Starts one more kernel; it ends with the test."""

    def __call__(self, *, cwd: Path | None = None, env: Mapping[str, str] | None = None, cold: bool = False) -> Kernel:
        """Start it in `cwd` (the test's ``tmp_path``) with `env` on top of the test's environment."""


@pytest.fixture
def start_kernel(kernels: Kernels, tmp_path: Path, home: Path) -> Iterator[StartKernel]:
    """Start kernels, each fresh; ``cold=True`` gives one that has imported nothing yet."""
    started: list[Kernel] = []

    def start(*, cwd: Path | None = None, env: Mapping[str, str] | None = None, cold: bool = False) -> Kernel:
        started.append(kernels.start(cwd=cwd or tmp_path, env=env, cold=cold))
        return started[-1]

    yield start
    for kernel in started:
        kernel.stop()


@pytest.fixture
def kernel(start_kernel: StartKernel) -> Kernel:
    """A fresh real kernel in the test's ``tmp_path``; the extension is not loaded."""
    return start_kernel()

"""One Jupyter server and one browser for all tests of the panel; a page, a kernel and a store for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import nbformat
import pytest
from playwright.sync_api import Page, expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator

expect.set_options(timeout=20_000)  # the machine may be busy with other tests

SHOTS = Path(os.environ.get("PANEL_SHOTS", Path(__file__).parent / "shots"))
"""Where screenshots are written, to be looked at."""

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if Path(p).exists()), None
)
STARTING = 120
TOKEN = "panel-tests"


@dataclass(frozen=True)
class Jupyter:
    """A running Jupyter server."""

    url: str
    root: Path
    process: subprocess.Popen[bytes]
    env: dict[str, str]
    """What its kernels find; the store is where a user's would be."""


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A Jupyter server with JupyterLab and Notebook 7, on a free port of its own choice."""
    root = tmp_path_factory.mktemp("jupyter")
    runtime = tmp_path_factory.mktemp("runtime")
    env = os.environ | {"JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_CONFIG_DIR": str(runtime / "config")}
    env["XDG_CACHE_HOME"] = str(Path.home() / ".cache")
    env.pop("PREFECT_CACHE_DIR", None)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}",
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log = (root / "server.log").open("wb")
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Jupyter(_address(runtime, process, root), root, process, env)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def _address(runtime: Path, process: subprocess.Popen[bytes], root: Path) -> str:
    """Return the server's URL once it answers."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            url = str(json.loads(file.read_text())["url"])
            try:
                urllib.request.urlopen(f"{url}api", timeout=5).close()
            except OSError:
                continue
            return url
        time.sleep(0.2)
    return pytest.fail(f"Jupyter did not start:\n{(root / 'server.log').read_text()[-3000:]}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Book:
    """A notebook, open in a page of the browser."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.path = path
        self.panel: Locator = page.locator(".pc")
        self.shots = SHOTS

    def run_all(self) -> None:
        """Run the first cell and every one below it."""
        first = self.page.locator(".jp-Notebook .jp-CodeCell").first
        for _ in range(20):  # what is asked before the page has heard from its kernel is lost
            first.locator(".jp-Cell-inputWrapper .cm-content").click()
            self.page.keyboard.press("Escape")
            for _ in range(len(nbformat.read(self.path, 4).cells)):
                self.page.keyboard.press("Shift+Enter")
            self.page.wait_for_timeout(500)
            if "[ ]" not in first.locator(".jp-InputPrompt").first.inner_text():
                return
        pytest.fail("the notebook's cells do not run")

    def ask(self, code: str) -> str:
        """Return what an expression's value looks like in the notebook's kernel."""
        last = self.page.locator(".jp-Notebook .jp-CodeCell").last
        last.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_timeout(300)
        output = last.locator(".jp-OutputArea-output")
        output.first.wait_for(timeout=30_000)
        return output.first.inner_text().strip()

    def shot(self, name: str, *, panel: bool = True) -> None:
        """Write a screenshot to be looked at."""
        target = self.panel.first if panel else self.page
        target.screenshot(path=SHOTS / f"{name}.png")


def _wait_for_kernel(jupyter: Jupyter, path: str) -> None:
    """Wait until the notebook's kernel has come up and the page is connected to it."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        for session in json.loads(_api(jupyter, "GET", "api/sessions")):
            kernel = session["kernel"]
            if session["path"] == path and kernel["execution_state"] == "idle" and kernel["connections"]:
                return
        time.sleep(0.1)
    pytest.fail("the notebook's kernel did not come up")


@pytest.fixture
def open_book(jupyter: Jupyter, chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Book]]:
    """Open notebooks with some cells, and run them."""
    opened: list[Page] = []
    started: set[str] = set()

    def open_(
        *cells: str,
        front: Literal["lab", "notebook"] = "lab",
        theme: Literal["light", "dark"] = "light",
        size: tuple[int, int] = (1280, 900),
        path: Path | None = None,
    ) -> Book:
        _settings(jupyter, theme)
        if path is None:
            path = jupyter.root / f"{request.node.name}-{len(opened)}.ipynb"
            nbformat.write(_notebook(cells), path)
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]})
        page = context.new_page()
        opened.append(page)
        where = "doc/tree" if front == "lab" else "notebooks"
        page.goto(f"{jupyter.url}{where}/{path.name}?token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content", timeout=60_000)
        page.wait_for_function("() => !document.querySelector('#jupyterlab-splash')")
        _wait_for_kernel(jupyter, path.name)
        book = Book(page, path)
        started.add(path.name)
        book.run_all()
        return book

    yield open_
    for page in opened:
        page.context.close()
    _end_sessions(jupyter, started)


def _notebook(cells: tuple[str, ...]) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=KERNEL)


KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}


def _settings(jupyter: Jupyter, theme: str) -> None:
    """Choose the theme, as the settings editor does."""
    names = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
    chosen = {"themes": {"theme": names[theme]}, "notification": {"fetchNews": "false", "checkForUpdates": False}}
    for name, values in chosen.items():
        path = f"lab/api/settings/@jupyterlab/apputils-extension:{name}"
        _api(jupyter, "PUT", path, {"raw": json.dumps(values)})


def _end_sessions(jupyter: Jupyter, paths: set[str]) -> None:
    for session in json.loads(_api(jupyter, "GET", "api/sessions")):
        if session["path"] in paths:
            _api(jupyter, "DELETE", f"api/sessions/{session['id']}")


def _api(jupyter: Jupyter, method: str, path: str, data: object = None) -> bytes:
    body = None if data is None else json.dumps(data).encode()
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(jupyter.url + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())

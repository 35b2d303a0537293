"""The kernels that the tests use are kernels as notebooks have them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from loopback import LeftLoopback

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from kernels import Kernel


def test_a_cell_prints_displays_and_returns(kernel: Kernel) -> None:
    """Streams, displays and the result come apart and in order."""
    ran = kernel.run("print('a')\ndisplay('b')\nprint('c')\n40 + 2")
    assert (ran.stdout, ran.displays, ran.result, ran.count) == ("a\nc\n", [{"text/plain": "'b'"}], "42", 1)


def test_values_cross_without_a_trace(kernel: Kernel) -> None:
    """An instance of a notebook's class arrives, and the count of cells stays."""
    kernel.run("class Point:\n    x = 3\np = Point()")
    assert kernel.value("p").x == 3
    assert kernel.run("1").count == 2


def test_an_error_fails_the_test_unless_expected(kernel: Kernel) -> None:
    """Errors cannot go unnoticed."""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        kernel.run("1 / 0")
    ran = kernel.run("1 / 0", check=False)
    assert ran.error is not None
    assert ran.error["ename"] == "ZeroDivisionError"


@pytest.mark.parametrize("cold", [False, True])
def test_a_restart_forgets_everything(start_kernel: StartKernel, tmp_path: Path, cold: bool) -> None:
    """After a restart the namespace is empty, the folder and the environment are the same."""
    kernel = start_kernel(cold=cold, env={"COLOUR": "red"})
    before = kernel.value("__import__('os').getpid()")
    kernel.run("x = 1")
    kernel.restart()
    assert kernel.value("__import__('os').getpid()") != before
    assert kernel.value("'x' in globals()") is False
    assert kernel.value("__import__('os').getcwd()") == str(tmp_path)
    assert kernel.value("__import__('os').environ['COLOUR']") == "red"


def test_a_running_cell_can_be_interrupted(kernel: Kernel) -> None:
    """The stop button raises KeyboardInterrupt in the cell."""
    request = kernel.submit("print('started')\nwhile True: pass")
    kernel.watch(request, lambda ran: ran.stdout != "")  # before the cell itself runs there is nothing to interrupt
    kernel.interrupt()
    ran = kernel.collect(request)
    assert ran.error is not None
    assert ran.error["ename"] == "KeyboardInterrupt"


def test_figures_of_the_inline_backend_arrive(kernel: Kernel) -> None:
    """A figure is shown as PNG at the end of its cell."""
    ran = kernel.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nNone")
    assert [sorted(bundle) for bundle in ran.displays] == [["image/png", "text/plain"]]


def test_every_test_has_a_home_of_its_own(kernel: Kernel, home: Path, store_root: Path) -> None:
    """Nothing of the user's is in reach, here and in kernels."""
    assert os.environ["HOME"] == str(home)
    assert kernel.value("__import__('os').environ['PREFECT_CACHE_DIR']") == str(store_root)
    assert not list(home.iterdir())


def test_no_test_leaves_the_machine(kernel: Kernel) -> None:
    """Looking up or connecting to another host raises, here and in kernels."""
    with pytest.raises(LeftLoopback):
        socket.getaddrinfo("example.org", 80)
    with socket.socket() as one, pytest.raises(LeftLoopback):
        one.connect(("192.0.2.1", 80))
    assert kernel.run("import socket; socket.getaddrinfo('example.org', 80)", check=False).error is not None

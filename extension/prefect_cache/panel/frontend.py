"""Whether there is a front end that can show a widget: asked before one is made.

A widget in a notebook that nobody looks at is worse than none: nbconvert shows a blank where it stands,
and the notebook carries its state. Nothing in the protocol tells, so this goes by what the programs that start kernels
leave behind, and when in doubt it says no.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def shows_widgets(shell: object | None = None) -> bool:
    """Tell whether cells of this process are run by a person with a notebook open.

    Parameters
    ----------
    shell
        The IPython shell; the running one unless given.
    """
    shell = _running_shell() if shell is None else shell
    if shell is None or not hasattr(shell, "kernel"):
        return False  # a script or a terminal
    return _by_jupyter_server() or _by_vscode(shell) or "google.colab" in sys.modules


def _running_shell() -> object | None:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _by_jupyter_server() -> bool:
    """Tell whether a Jupyter server started this kernel for a session: JupyterLab, Notebook 7, a hub.

    The server sets ``JPY_SESSION_NAME`` for the kernel, and whatever a cell of that kernel starts inherits it: a
    kernel of papermill, say, run by ``!papermill``. There the parent has the very same value in its own environment.
    """
    name = os.environ.get("JPY_SESSION_NAME")
    return name is not None and _environment_of_parent().get("JPY_SESSION_NAME") != name


def _environment_of_parent() -> dict[str, str]:
    try:
        data = Path(f"/proc/{os.environ.get('JPY_PARENT_PID', os.getppid())}/environ").read_bytes()
    except OSError:  # not Linux, or another user's process: then the variable alone must do
        return {}
    pairs = (item.partition(b"=") for item in data.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _by_vscode(shell: object) -> bool:
    """Tell whether VS Code runs the cells: it puts the notebook's path into the namespace."""
    return "__vsc_ipynb_file__" in getattr(shell, "user_ns", {})

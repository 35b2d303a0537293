"""A file that is not trusted can make values, and do nothing else."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from prefect_cache.codecs import allowed, mapped, skeleton
from prefect_cache.errors import Damaged, Untrusted

if TYPE_CHECKING:
    from pathlib import Path

CODE = (
    "os:system", "posix:system", "subprocess:Popen", "builtins:eval", "builtins:exec", "builtins:getattr",
    "builtins:open", "builtins:__import__", "builtins:type", "builtins:print", "importlib:import_module",
    "functools:partial", "operator:attrgetter", "operator:methodcaller", "pickle:loads", "cloudpickle:loads",
    "shutil:rmtree", "pandas:read_pickle", "pandas:read_csv", "pandas:eval", "pandas:DataFrame.eval",
    "pandas:DataFrame.to_pickle", "pandas:ExcelFile", "pandas:HDFStore", "pandas.io.common:get_handle",
    "pandas.core.frame:sys", "pandas.core.computation.eval:eval",
    "pandas.core.dtypes.common:import_optional_dependency", "numpy:load", "numpy:fromfile", "numpy:memmap",
    "numpy:save", "numpy:vectorize", "numpy.testing:rundocs", "pyarrow.lib:memory_map", "pyarrow.lib:OSFile",
    "pyarrow.lib:input_stream", "pyarrow.lib:PythonFile", "pyarrow:py_buffer", "polars:read_csv",
    "polars.series.series:Series.map_elements", "prefect_cache.codecs.pickled:attribute_of",
    "prefect_cache.codecs.skeleton:np", "typing:get_type_hints",
)  # fmt: skip


@pytest.mark.parametrize("name", CODE)
def test_what_can_act_is_not_named(name: str) -> None:
    """Not by its module, nor by way of a class, nor through a module that imports it."""
    with pytest.raises(Untrusted, match="signed"):
        allowed.find(*name.split(":"))


def test_what_only_makes_values_is() -> None:
    """The classes and constructors that frames are made of."""
    assert allowed.find("pandas", "DataFrame") is pd.DataFrame
    assert allowed.find("pandas.core.frame", "DataFrame") is pd.DataFrame
    assert allowed.find("pyarrow.lib", "schema") is pa.schema
    assert allowed.find("numpy", "float32") is np.float32


def test_every_name_of_the_list_is_data() -> None:
    """None of those that are here is a module."""
    for module, names in allowed._PLAIN.items():
        for name in names.split():
            if not module.startswith(("pytz", "dateutil", "polars", "pathlib._local", "numpy")):
                assert not isinstance(allowed.find(module, name), type(os))


class Act:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


def forged(path: Path, monkeypatch: pytest.MonkeyPatch, thing: object) -> Path:
    """Make a whole file, digests and all, whose skeleton is another pickle and which says that it needs no trust."""
    with monkeypatch.context() as patch:
        patch.setattr(skeleton, "dump", lambda *_, **__: (pickle.dumps(thing, 5), False))
        mapped.write(np.arange(5), path)
    return path


def test_a_forged_file_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before the call, whatever else it holds."""
    made = tmp_path / "made"
    path = forged(tmp_path / "f", monkeypatch, [{"a": 1}, Act(os.mkdir, str(made))])
    with pytest.raises(Untrusted, match="mkdir"):
        mapped.read(path, trusted=False)
    assert not made.exists()
    mapped.read(path, trusted=True)
    assert made.exists()


@pytest.mark.parametrize(
    "thing",
    [
        Act(skeleton.Builder.array, 7, "<i8", (3,), (8,), True),
        Act(skeleton.Builder.array, -1, "<i8", (3,), (8,), True),
        Act(skeleton.Builder.small, bytearray(8), "<i8", (1000,), (8,), True),
        Act(skeleton.Builder.small, bytearray(8), "<i8", (2,), (-8,), True),
        Act(skeleton.Builder.small, bytearray(8), "O", (1,), (8,), True),
        Act(skeleton.Builder.small, bytearray(8), "<i8", (1,), (8,)),
        Act(skeleton.Builder.zone, "../../etc/passwd"),
    ],
)
def test_forged_parts_are_damage(thing: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What points outside of the file's own bytes, or takes bytes for objects, makes no value."""
    path = forged(tmp_path / "f", monkeypatch, thing)
    with pytest.raises(Damaged):
        mapped.read(path, trusted=False)


def test_forged_offsets_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text column whose offsets point behind its data would show other memory."""
    _, ((kind, length, nulls, offset, (bits, _, data), *rest),) = pa.array(["abc"], pa.large_string()).__reduce__()
    offsets = pa.py_buffer(np.array([0, 1 << 40], dtype=np.int64).tobytes())
    parts = (kind, length, nulls, offset, [bits, offsets, data], *rest)
    path = forged(tmp_path / "f", monkeypatch, Act(skeleton.Builder.arrow, parts))
    with pytest.raises(Damaged, match="ArrowInvalid"):
        mapped.read(path, trusted=False)

"""Prefect results as Arrow files: ``@task(result_serializer="arrow", persist_result=True)``.

A result is written as the notebook's outputs are: frames, tables and arrays one Arrow file each, exactly,
wherever in the value they lie; what is no frame is pickled. Two modes:

*pointer*
    The files are streamed into a folder beside the records, and the record that Prefect keeps is a small JSON
    text that names them. A hit maps the files: milliseconds and no memory, whatever their size. The default
    where results are stored in a local folder.
*embedded*
    The record holds the files themselves, for any storage block. As base64, since Prefect's record is text; as
    they are where the task's cache policy has a ``key_storage``. A single frame is then a plain Arrow
    file in the bucket, which any tool opens.

``"compressed/arrow"`` is embedded and compressed, for storage at the other end of a network.

A result whose files are gone is a miss: the task runs again and writes them anew. (With ``key_storage`` Prefect
asks only whether the record's metadata is there and would fail for ever; see :meth:`ArrowSerializer.loads`.)

Like Prefect's own pickles, results are trusted because of where they are stored;
``ArrowSerializer(trusted=False)`` opens no pickle and reads frames of plain data only.

This module imports from Prefect no more than ``prefect.serializers``: it is imported while Prefect itself is
being imported, see ``_prefect_cache_registration.py``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from prefect.serializers import D, Serializer
from pydantic import Field

from .errors import Damaged
from .model import FORMAT, Output
from .results import ARROW, PAYLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect.context import TaskRunContext
    from prefect.results import ResultStore

    from .model import Json

WHOLE = 16 * 2**20
"""Files up to this many bytes are verified in full when they are read; of larger ones the size and the skeleton."""


class ArrowSerializer(Serializer[D]):
    """Writes results as Arrow files: Prefect's serializer ``"arrow"``.

    Any value may be a result: tables and arrays in it are Arrow files, the rest is pickled beside them.

    Attributes
    ----------
    mode
        ``"pointer"`` (the record names files beside it), ``"embedded"`` (it holds their bytes), or ``"auto"``: pointer
        where results are stored in a local folder.
    folder
        Where pointer mode keeps its files; by default beside the records.
    trusted
        Whether pickles in results may be opened; False raises `Untrusted` where there is one.
    """

    type: str = Field(default="arrow", frozen=True)
    mode: Literal["auto", "pointer", "embedded"] = "auto"
    folder: Path | None = None
    trusted: bool = True

    def dumps(self, obj: D) -> bytes:
        """Return the record's text: a pointer to files just written, or the files."""
        store = _result_store()
        root = self._root(store)
        if root is None:
            with tempfile.TemporaryDirectory(prefix="prefect_cache-") as folder:
                return self._embed(_write(obj, Path(folder)), Path(folder), raw=_is_raw(store))
        written = _write_payload(obj, root)
        return json.dumps({**written, "folder": str(root), "task": _task_name()}).encode()

    def loads(self, blob: bytes) -> D:
        """Return the value; where its files are gone inside a task run, what the task computes anew.

        Without ``key_storage`` Prefect takes an error here for a miss and runs the task. With it, it has decided
        for a hit before it reads, and would end the run as failed, this time and every time. So the task's
        function is called here instead, and the record is written again.
        """
        try:
            return cast("D", self._read(blob))
        except (Damaged, FileNotFoundError) as error:
            if (context := _being_read_for()) is None:
                _tell(error)
                raise
            return cast("D", _recomputed(context, error))

    def _root(self, store: ResultStore | None) -> Path | None:
        """Return where payloads go; None: into the record."""
        if self.mode == "embedded":
            return None
        if self.folder is not None:
            return self.folder.expanduser().absolute()
        if (local := _local_folder(store)) is not None:
            return local / PAYLOADS
        return _default_folder() / PAYLOADS if self.mode == "pointer" else None

    def _embed(self, written: dict[str, Json], folder: Path, *, raw: bool) -> bytes:
        files = [(folder / output.file).read_bytes() for output in _outputs(written)]
        if raw and self._compression is None and written["reference"] == ["file", 0] and files[0].startswith(ARROW):
            return files[0]
        packed = [self._compress(file) for file in files]
        packing = {"compression": self._compression, "packed": [len(one) for one in packed], "raw": raw}
        header = {**written, **packing, "task": _task_name()}
        body = b"".join(packed)
        return json.dumps(header).encode() + b"\n" + (body if raw else base64.b64encode(body))

    def _read(self, blob: bytes) -> object:
        if blob.startswith(ARROW):
            return self._opened([blob], {"reference": ["file", 0], "outputs": [_bare(len(blob))]})
        text, _, body = blob.partition(b"\n")
        header = _header(text)
        if "folder" in header:
            return self._mapped(header)
        body = body if header["raw"] else base64.b64decode(body)
        return self._opened(list(_unpacked(header, body)), header)

    def _mapped(self, header: dict[str, Any]) -> object:
        """Map the files of a pointer: beside the record as it is stored now, or where they were written."""
        here = self._root(_result_store())
        for root in (here, Path(header["folder"])):
            if root is not None and (root / header["payload"]).is_dir():
                return _graph(root / header["payload"], header, trusted=self.trusted)
        raise FileNotFoundError(f"the files of this result are gone from {header['folder']}")

    def _opened(self, files: Sequence[bytes], header: dict[str, Any]) -> object:
        # The values are views of mapped files; the mappings outlive the files' names.
        with tempfile.TemporaryDirectory(prefix="prefect_cache-") as folder:
            for output, content in zip(_outputs(header), files, strict=True):
                (Path(folder) / output.file).write_bytes(content)
            return _graph(Path(folder), header, trusted=self.trusted)

    @property
    def _compression(self) -> str | None:
        return None

    def _compress(self, file: bytes) -> bytes:
        return file


class CompressedArrowSerializer(ArrowSerializer[D]):
    """Writes results as compressed Arrow files into the record itself.

    Attributes
    ----------
    compression
        ``"zstd"`` or ``"lz4"``: smaller, or faster.
    """

    type: str = Field(default="compressed/arrow", frozen=True)
    mode: Literal["auto", "pointer", "embedded"] = "embedded"
    compression: Literal["zstd", "lz4"] = "zstd"

    @property
    def _compression(self) -> str | None:
        return self.compression

    def _compress(self, file: bytes) -> bytes:
        import pyarrow as pa

        return cast("bytes", pa.compress(file, codec=self.compression, asbytes=True))


# Values and files. -------------------------------------------------------------------------------------------


def _write(value: object, folder: Path) -> dict[str, Json]:
    """Write a value's files into a folder; return what it takes to read them."""
    from .cells.graph import GraphWriter

    graph = GraphWriter({}, {}, apart=True)  # as any file gives them back
    graph.add("result", value)
    outputs, references = graph.write(folder)
    return {
        "prefect_cache": FORMAT,
        "reference": cast("Json", list(references["result"])),
        # Of what the codecs tell only what is small, whatever the frame: who lists results reads a record's beginning.
        "outputs": [
            cast("Json", {**_fields(o), "meta": {k: o.meta[k] for k in ("rows", "shape") if k in o.meta}})
            for o in outputs
        ],
    }


def _fields(output: Output) -> dict[str, Json]:
    return {name: getattr(output, name) for name in ("name", "kind", "codec", "file", "digest", "size")}


def _write_payload(value: object, root: Path) -> dict[str, Json]:
    """Write a value's files into a folder of `root` that is named after their content and appears by one rename."""
    from .digests import combine

    root.mkdir(parents=True, exist_ok=True)
    draft = root / f".{uuid.uuid4().hex}"
    draft.mkdir(mode=0o700)
    try:
        written = _write(value, draft)
        payload = combine("payload", *(output.digest for output in _outputs(written)))
        _put(draft, root / payload)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {**written, "payload": payload}


def _put(draft: Path, folder: Path) -> None:
    """Give a draft its name; where the same content is there already it stays, unless it is not whole."""
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        there = {file.name: file.stat().st_size for file in folder.iterdir()}
        if there != {file.name: file.stat().st_size for file in draft.iterdir()}:
            folder.rename(draft.with_suffix(".damaged"))
            shutil.rmtree(draft.with_suffix(".damaged"), ignore_errors=True)
            draft.rename(folder)
        else:
            os.utime(folder)  # what was written last is kept longest


def _graph(folder: Path, header: dict[str, Any], *, trusted: bool) -> object:
    from .cells.graph import GraphReader

    outputs = _outputs(header)
    for output in outputs:
        _verify(folder / output.file, output)
    return GraphReader(folder, outputs, trusted=trusted, namespace={}).get(header["reference"])


def _verify(path: Path, output: Output) -> None:
    """Refuse a file that is not as it was written; :class:`FileNotFoundError` where it is gone."""
    from .digests import file_digest

    size = path.stat().st_size
    if size != output.size:
        raise Damaged(f"{path} has {size} bytes, not {output.size}")
    if output.digest and size <= WHOLE and file_digest(path)[0] != output.digest:
        raise Damaged(f"{path} is not as it was written")


def _outputs(header: dict[str, Any]) -> tuple[Output, ...]:
    return tuple(Output(**fields) for fields in header["outputs"])


def _bare(size: int) -> dict[str, Json]:
    """Return the output that an Arrow file without a header of ours is."""
    return {**_fields(Output("result", "", "arrow", "00-result.arrow", "", size)), "meta": {}}


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
        if header["prefect_cache"] == FORMAT:
            return cast("dict[str, Any]", header)
        found = f"format {header['prefect_cache']} of this package, which reads format {FORMAT}"
    except (ValueError, KeyError, TypeError):
        found = "of another serializer"
    raise Damaged(f"this result is {found}", remedy="run the task with refresh_cache=True, or delete the record")


def _unpacked(header: dict[str, Any], body: bytes) -> Iterator[bytes]:
    import pyarrow as pa

    start = 0
    for output, length in zip(_outputs(header), header["packed"], strict=True):
        piece = body[start : start + length]
        start += length
        if len(piece) != length:
            raise Damaged("this result's record is cut short")
        codec = header["compression"]
        yield piece if codec is None else pa.decompress(piece, output.size, codec=codec, asbytes=True)


# Prefect's side. ---------------------------------------------------------------------------------------------


def _result_store() -> ResultStore | None:
    """Return the result store of the run that this is called in; None outside of runs."""
    from prefect.context import FlowRunContext, TaskRunContext

    context = TaskRunContext.get() or FlowRunContext.get()
    return None if context is None else context.result_store


def _task_name() -> str:
    """Return the name of the task or flow that is running; who lists results later has nothing else to go by."""
    from prefect.context import FlowRunContext, TaskRunContext

    if (task := TaskRunContext.get()) is not None:
        return task.task.name
    flow = FlowRunContext.get()
    return flow.flow.name if flow is not None and flow.flow is not None else ""


def _local_folder(store: ResultStore | None) -> Path | None:
    from prefect.filesystems import LocalFileSystem

    storage = None if store is None else store.result_storage
    if not isinstance(storage, LocalFileSystem):
        return None
    return Path(storage.basepath or Path.cwd()).expanduser().absolute()


def _default_folder() -> Path:
    from prefect.settings import get_current_settings

    return get_current_settings().results.local_storage_path


def _is_raw(store: ResultStore | None) -> bool:
    """Tell whether the record's payload is stored apart from its metadata, so that it may be any bytes."""
    from prefect.filesystems import NullFileSystem

    return store is not None and not isinstance(store.metadata_storage, NullFileSystem | None)


def _being_read_for() -> TaskRunContext | None:
    """Return the run of a plain function's task for which Prefect, sure of a hit, is reading just now."""
    from prefect.context import TaskRunContext
    from prefect.transactions import get_transaction

    context, transaction = TaskRunContext.get(), get_transaction()
    if context is None or transaction is None or not transaction.is_committed() or context.task.isasync:
        return None
    return context if _is_raw(context.result_store) else None


def _tell(error: Exception) -> None:
    """Say in the log of the run that is looking for a result why it is none; one that is gone is a plain miss."""
    from prefect import get_run_logger
    from prefect.context import TaskRunContext

    if isinstance(error, Damaged) and TaskRunContext.get() is not None:
        get_run_logger().warning("A cached result cannot be read (%s): the task runs again.", error)


def _recomputed(context: TaskRunContext, gone: Exception) -> object:
    """Run the task's function in place of a result that is gone, and write its record anew."""
    from prefect import get_run_logger
    from prefect.transactions import get_transaction
    from prefect.utilities.callables import call_with_parameters

    get_run_logger().warning("A cached result cannot be read (%s): the task runs again.", gone)
    value = call_with_parameters(context.task.fn, context.parameters)
    transaction = get_transaction()
    if transaction is not None and transaction.key is not None:
        context.result_store.write(value, key=transaction.key)
    return value

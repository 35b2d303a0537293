from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal
from prefect import task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem, RemoteFileSystem
from prefect.results import ResultStore
from prefect.serializers import Serializer

from offline import offline
from prefect_cache import ArrowSerializer
from prefect_cache.errors import Damaged, Untrusted
from prefect_cache.results import PAYLOADS
from prefect_cache.serializers import CompressedArrowSerializer

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME = pd.DataFrame(
    {
        "n": np.arange(5000.0),
        "word": ["a", "b"] * 2500,
        "kind": pd.Categorical(["x", "y"] * 2500),
        "when": pd.date_range("2013-01-01", periods=5000, freq="h", tz="America/New_York"),
    }
)


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x


VALUES = {
    "frame": FRAME,
    "series": FRAME["word"],
    "index": FRAME.set_index("when").index,
    "array": np.arange(6).reshape(2, 3),
    "table": pa.table({"a": [1, None]}),
    "frames": {"left": FRAME, "right": [FRAME.head(3), 7]},
    "text": "x" * 5000,
    "number": 7,
    "nothing": None,
    "nan": float("nan"),
    "instance": Point([1, 2]),
    "exception": ValueError("no such column", 3),
}


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, pd.DataFrame | pd.Series):
        (assert_frame_equal if isinstance(one, pd.DataFrame) else assert_series_equal)(one, other)
        return True
    if isinstance(one, pd.Index | pa.Table):
        return one.equals(other) and getattr(one, "freq", None) == getattr(other, "freq", None)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, BaseException):
        return type(one) is type(other) and one.args == other.args
    return one == other or (one != one and other != other)  # noqa: PLR0124  NaN


@pytest.fixture
def bucket() -> Iterator[RemoteFileSystem]:
    """A storage block that is no local folder: fsspec's file system in memory."""
    block = RemoteFileSystem(basepath="memory://bucket")
    block._block_document_id = uuid.uuid4()  # as if it had been saved on a server
    yield block
    block.filesystem.rm("memory://bucket", recursive=True)


def content(bucket: RemoteFileSystem) -> bytes:
    (file,) = bucket.filesystem.find(bucket.basepath)
    return bucket.filesystem.cat_file(file)


@pytest.fixture(params=["pointer", "embedded", "compressed zstd", "compressed lz4"])
def serializer(request, tmp_path) -> ArrowSerializer:
    kind, _, codec = request.param.partition(" ")
    if codec:
        return CompressedArrowSerializer(compression=codec)
    return ArrowSerializer(mode=kind, folder=tmp_path / "payloads")


class TestEveryMode:
    """What holds in pointer mode and in embedded mode, compressed or not."""

    @pytest.mark.parametrize("name", VALUES)
    def test_any_value_comes_back_exactly(self, serializer, name):
        assert same(VALUES[name], serializer.loads(serializer.dumps(VALUES[name])))

    @pytest.mark.parametrize("name", VALUES)
    def test_what_it_writes_is_text(self, serializer, name):
        """Prefect's record is a JSON text; raw bytes in it would only be logged as an error, and never cached."""
        assert serializer.dumps(VALUES[name]).decode()

    def test_what_comes_back_can_be_changed_and_the_result_does_not(self, serializer):
        blob = serializer.dumps(FRAME)
        first = serializer.loads(blob)
        first.loc[0, "n"] = -1.0
        assert_frame_equal(serializer.loads(blob), FRAME)

    def test_what_another_serializer_wrote_is_refused_with_the_remedy(self, serializer):
        with pytest.raises(Damaged, match="another serializer") as caught:
            serializer.loads(b"gASVAAAA")
        assert "refresh_cache" in caught.value.remedy

    def test_a_cut_record_is_damage(self, serializer):
        blob = serializer.dumps(FRAME)
        with pytest.raises((Damaged, ValueError)):
            serializer.loads(blob[: len(blob) // 2])

    def test_its_settings_survive_prefects_record(self, serializer):
        assert Serializer(**json.loads(serializer.model_dump_json())) == serializer


class TestPointer:
    def test_equal_results_share_their_files(self, tmp_path):
        serializer = ArrowSerializer(mode="pointer", folder=tmp_path)
        assert serializer.dumps(FRAME) == serializer.dumps(FRAME.copy())
        assert len(list(tmp_path.iterdir())) == 1

    def test_the_files_are_arrow_files_that_pyarrow_opens(self, tmp_path):
        ArrowSerializer(mode="pointer", folder=tmp_path).dumps(FRAME)
        (file,) = tmp_path.rglob("*.arrow")
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_file(source).read_all()
        assert table.column("n").to_pylist() == FRAME["n"].tolist()

    def test_frames_inside_containers_are_files_of_their_own(self, tmp_path):
        ArrowSerializer(mode="pointer", folder=tmp_path).dumps(VALUES["frames"])
        assert len(list(tmp_path.rglob("*.arrow"))) == 2

    def test_a_file_of_another_size_or_content_is_damage(self, tmp_path):
        serializer = ArrowSerializer(mode="pointer", folder=tmp_path)
        blob = serializer.dumps(FRAME)
        (file,) = tmp_path.rglob("*.arrow")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.chmod(0o600)
        file.write_bytes(content)
        with pytest.raises(Damaged, match="not as it was written"):
            serializer.loads(blob)
        file.write_bytes(content[:-1])
        with pytest.raises(Damaged, match="bytes, not"):
            serializer.loads(blob)

    def test_damaged_files_are_written_again(self, tmp_path):
        serializer = ArrowSerializer(mode="pointer", folder=tmp_path)
        blob = serializer.dumps(FRAME)
        (file,) = tmp_path.rglob("*.arrow")
        file.unlink()
        assert serializer.dumps(FRAME) == blob
        assert_frame_equal(serializer.loads(blob), FRAME)

    def test_a_storage_folder_that_was_moved_is_found_where_it_is_now(self, tmp_path):
        calls = []

        @task(result_serializer="arrow", persist_result=True, cache_policy=INPUTS)
        def load(n):
            calls.append(n)
            return FRAME

        with offline(tmp_path / "old"):
            load(1)
        (tmp_path / "old").rename(tmp_path / "new")
        with offline(tmp_path / "new"):
            assert_frame_equal(load(1), FRAME)
        assert calls == [1]

    def test_a_distrusted_result_is_read_where_it_is_plain_data_and_refused_where_it_is_a_pickle(self, tmp_path):
        careful = ArrowSerializer(mode="pointer", folder=tmp_path, trusted=False)
        assert_frame_equal(careful.loads(careful.dumps(FRAME)), FRAME)
        with pytest.raises(Untrusted):
            careful.loads(careful.dumps(Point(1)))


class TestInTasks:
    @pytest.fixture
    def calls(self) -> list[object]:
        return []

    @pytest.fixture
    def make(self, calls):
        """Make a task that returns a frame and counts its calls."""

        def make(policy=INPUTS, result=FRAME, **options):
            def load(n):
                calls.append(n)
                if isinstance(result, BaseException):
                    raise result
                return result

            ours = {"result_serializer": "arrow", "persist_result": True, "cache_policy": policy}
            return task(load, **{**ours, **options})

        return make

    def test_by_name_a_result_is_stored_beside_the_record_and_used_again(self, tmp_path, make, calls):
        load = make()
        with offline(tmp_path):
            assert_frame_equal(load(1), FRAME)
            state = load(1, return_state=True)
            assert state.name == "Cached"
            assert_frame_equal(state.result(_sync=True), FRAME)
        assert calls == [1]
        assert list((tmp_path / PAYLOADS).rglob("*.arrow"))

    def test_in_a_storage_block_that_is_no_folder_the_record_holds_all(self, make, calls, tmp_path, bucket):
        load = make(result_storage=bucket)
        with offline(tmp_path):
            load(1)
            assert_frame_equal(load(1), FRAME)
        assert calls == [1]
        assert json.loads(content(bucket))["metadata"]["serializer"]["type"] == "arrow"

    def test_with_a_key_storage_a_frame_is_an_arrow_file_in_the_bucket(self, make, calls, tmp_path, bucket):
        load = make(INPUTS.configure(key_storage=tmp_path / "keys"), result_storage=bucket)
        with offline(tmp_path):
            load(1)
            assert_frame_equal(load(1), FRAME)
        assert calls == [1]
        assert pa.ipc.open_file(content(bucket)).read_all().num_rows == len(FRAME)

    def test_a_flow_run_can_ask_for_it_too(self):
        from prefect import flow

        @flow(result_serializer="arrow")
        def pipeline():
            return FRAME

        assert pipeline.result_serializer == "arrow"

    def test_a_task_that_raises_raises_the_same(self, tmp_path, make):
        with offline(tmp_path), pytest.raises(ValueError, match="no such column"):
            make(result=ValueError("no such column"))(1)

    @pytest.mark.parametrize("keys", [False, True], ids=["one record", "key_storage"])
    @pytest.mark.parametrize(
        ("left", "word"),
        [("gASVAAAA", "another serializer"), (json.dumps({"prefect_cache": 0, "reference": []}), "format 0")],
        ids=["a foreign one", "an older one"],
    )
    def test_what_a_foreign_or_older_serializer_left_is_told_and_written_again(
        self, tmp_path, make, calls, keys, left, word, caplog
    ):
        load = make(INPUTS.configure(key_storage=tmp_path / "keys") if keys else INPUTS)
        with offline(tmp_path / "results"):
            load(1)
            (record,) = [path for path in (tmp_path / "results").iterdir() if path.is_file()]
            text = left if keys else json.dumps({**json.loads(record.read_text()), "result": left})
            record.write_text(text)
            caplog.clear()
            assert_frame_equal(load(1), FRAME)
            assert word in caplog.text
            assert "the task runs again" in caplog.text
            assert_frame_equal(load(1), FRAME)
        assert calls == [1, 1]

    @pytest.mark.parametrize("keys", [False, True], ids=["one record", "key_storage"])
    def test_a_result_whose_files_are_gone_is_a_miss_and_is_written_again(self, tmp_path, make, calls, keys):
        load = make(INPUTS.configure(key_storage=tmp_path / "keys") if keys else INPUTS)
        with offline(tmp_path / "results"):
            load(1)
            shutil.rmtree(tmp_path / "results" / PAYLOADS)
            assert_frame_equal(load(1), FRAME)
            assert_frame_equal(load(1), FRAME)
        assert calls == [1, 1]

    def test_a_result_read_outside_of_runs_is_found(self, tmp_path, make):
        with offline(tmp_path):
            make(result_storage_key="frame")(1)
        store = ResultStore(result_storage=LocalFileSystem(basepath=str(tmp_path)))
        assert_frame_equal(store.read("frame").result, FRAME)


def python(source: str, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", textwrap.dedent(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)


class TestAProcessThatNeverImportsUs:
    @pytest.mark.parametrize("options", [(), ("-I",), ("-X", "dev")], ids=" ".join)
    def test_knows_the_serializers_by_name(self, options):
        done = python(
            """
            from prefect.serializers import Serializer
            print(Serializer(type="arrow").type, Serializer(type="compressed/arrow").type)
            """,
            *options,
        )
        assert done.stdout == "arrow compressed/arrow\n"

    def test_reads_what_was_written_here(self, tmp_path, home):
        store = ResultStore(
            result_storage=LocalFileSystem(basepath=str(tmp_path)),
            serializer=ArrowSerializer(mode="pointer", folder=tmp_path),
        )
        store.write(FRAME, key="frame")
        done = python(
            f"""
            from prefect.filesystems import LocalFileSystem
            from prefect.results import ResultStore
            print(len(ResultStore(result_storage=LocalFileSystem(basepath={str(tmp_path)!r})).read("frame").result))
            """
        )
        assert done.stdout == "5000\n"

    def test_that_does_not_use_prefect_pays_next_to_nothing(self):
        done = python("import sys; print([m for m in sys.modules if m.startswith(('prefect', 'typing'))])")
        assert done.stdout == "[]\n"

    def test_gets_a_warning_and_a_working_prefect_where_this_package_is_broken(self, tmp_path):
        (tmp_path / "prefect_cache").mkdir()
        (tmp_path / "prefect_cache" / "__init__.py").write_text("raise ImportError('half removed')")
        done = python(
            f"""
            import sys
            sys.path.insert(0, {str(tmp_path)!r})
            from prefect.serializers import Serializer
            print(Serializer(type="json").type)
            """
        )
        assert (done.stdout, "half removed" in done.stderr) == ("json\n", True)

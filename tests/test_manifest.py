"""``manifest.json``: what it holds comes back, a person can read it, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_cache.digests import digest
from prefect_cache.errors import Damaged
from prefect_cache.model import FORMAT, Json, Key, Manifest, Observed, Output, Part, Run
from prefect_cache.store.manifest import OURS, OtherFormat, from_bytes, from_json, to_bytes, to_json
from stores import key_of, manifest_of

TEXT = st.text(st.characters(), max_size=20)
WORDS = TEXT | st.sampled_from(["", "\ud800", "naïve", "a\nb", '"', "\u2028", "</script>"])
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
JSON: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(WORDS, JSON, max_size=3)
DIGESTS = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
SECONDS = st.floats(0, 1e12)
FILES = st.lists(st.from_regex(r"[0-9a-zé][0-9a-z._ é-]{0,20}", fullmatch=True), unique=True, max_size=3).map(
    lambda names: [name for name in names if name not in OURS]
)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Output, ...]:
    return tuple(
        Output(draw(WORDS), draw(WORDS), draw(WORDS), file, draw(DIGESTS), draw(st.integers(0, 2**60)), draw(OBJECTS))
        for file in draw(FILES)
    )


MANIFESTS = st.builds(
    Manifest,
    format=st.just(FORMAT),
    name=WORDS,
    source=WORDS,
    key=st.builds(Key, DIGESTS, st.lists(st.builds(Part, WORDS, WORDS, DIGESTS, JSON), max_size=3).map(tuple)),
    observed=st.lists(st.builds(Observed, WORDS, WORDS, DIGESTS, JSON), max_size=3).map(tuple),
    outputs=outputs(),
    effects=OBJECTS,
    displays=st.lists(OBJECTS, max_size=3).map(tuple),
    run=st.builds(Run, SECONDS, SECONDS, WORDS, WORDS, WORDS, st.dictionaries(WORDS, WORDS, max_size=3), OBJECTS),
    options=OBJECTS,
)


@given(MANIFESTS)
def test_it_comes_back(manifest: Manifest) -> None:
    assert from_bytes(to_bytes(manifest)) == manifest
    assert from_json(json.loads(json.dumps(to_json(manifest)))) == manifest


@given(MANIFESTS, st.data())
def test_no_byte_can_change(manifest: Manifest, data: st.DataObject) -> None:
    written = bytearray(to_bytes(manifest))
    written[data.draw(st.integers(0, len(written) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        from_bytes(bytes(written))


@given(MANIFESTS, st.data())
def test_no_end_can_be_missing(manifest: Manifest, data: st.DataObject) -> None:
    written = to_bytes(manifest)
    with pytest.raises(Damaged):
        from_bytes(written[: data.draw(st.integers(0, len(written) - 1))])


@given(st.binary(max_size=100))
def test_other_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(Damaged):
        from_bytes(data)
    with pytest.raises(Damaged):
        from_bytes(b'{\n"digest": "' + digest(data).encode() + b'",' + data)


@given(MANIFESTS, st.data())
def test_what_lacks_a_field_or_has_another_type_is_damage(manifest: Manifest, data: st.DataObject) -> None:
    document = to_json(manifest)
    name = data.draw(st.sampled_from(sorted(document)))
    kind = type(document[name])
    values = JSON.filter(
        lambda value: not isinstance(value, kind) and not (kind in (int, float) and isinstance(value, int))
    )
    lacking = {field: value for field, value in document.items() if field != name}
    for wrong in (lacking, {**document, name: data.draw(values)}):
        with pytest.raises(Damaged):
            from_json(wrong)


def test_another_format_is_told_from_damage() -> None:
    with pytest.raises(OtherFormat, match="format 2"):
        from_json({**to_json(manifest_of(key_of(1))), "format": 2})


PATHS = ["../a", "/etc/passwd", "a/b", "a\\b", "..", ".", "", ".hidden", "C:evil", "a\nb", "a\0b", "x" * 300]
PATHS += sorted(OURS)


@pytest.mark.parametrize("name", PATHS)
def test_no_files_name_is_a_path(name: str) -> None:
    manifest = manifest_of(key_of(1), (Output("x", "bytes", "raw", name, key_of(2), 1),))
    with pytest.raises(Damaged, match="cannot be the name"):
        from_json(to_json(manifest))


def test_no_two_files_share_a_name() -> None:
    output = Output("x", "bytes", "raw", "a.bin", key_of(2), 1)
    with pytest.raises(Damaged):
        from_json(to_json(manifest_of(key_of(1), (output, output))))


def test_a_person_can_read_it() -> None:
    output = Output("orders", "DataFrame", "arrow", "00-orders.arrow", key_of(2), 123, {"rows": 7})
    lines = to_bytes(manifest_of(key_of(1), (output,), name="Umsätze", started=5.0)).decode().splitlines()
    assert lines[2:7] == ['"format": 1,', '"name": "Umsätze",', '"source": [', '  "Umsätze = 1"', "],"]
    start = lines.index('"outputs": [')
    assert lines[start + 1].startswith('  {"name": "orders", "kind": "DataFrame", "codec": "arrow", ')
    assert lines[start + 1].endswith(', "size": 123, "meta": {"rows": 7}}')


GOLDEN = Path(__file__).parent / "golden" / "manifest-1.json"


def test_its_bytes_are_pinned() -> None:
    """A manifest on someone's disk is read by later versions of this format: were this to change, raise FORMAT."""
    manifest = manifest_of(key_of(1), (Output("x", "bytes", "raw", "x.bin", key_of(2), 1),), seen="csv", started=5.0)
    assert to_bytes(manifest) == GOLDEN.read_bytes()
    assert from_bytes(GOLDEN.read_bytes()) == manifest

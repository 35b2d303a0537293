"""``manifest.json``: a :class:`~prefect_cache.model.Manifest` as bytes, and back.

The file is JSON that a person reads: one line for each output, part and observed file, what is asked
most first. Its second line is the digest of all the bytes below it, so that any flipped byte is
found even where nobody's key can tell (an entry that came without a signature)::

    {
    "digest": "5f2c...",
    "format": 1,
    "name": "orders",
    ...

What changes after the run (uses, pins) is not here: the bytes are signed once and never written again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from prefect_cache.digests import digest
from prefect_cache.errors import Damaged
from prefect_cache.model import FORMAT, Key, Manifest, Observed, Output, Part, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prefect_cache.model import Json

MANIFEST = "manifest.json"
SIGNATURE = "signature"
HITS = "hits"
PINNED = "pinned"
DAMAGED = "damaged"
STATISTICS = "statistics"
OURS = frozenset({MANIFEST, SIGNATURE, HITS, PINNED, DAMAGED, STATISTICS})
"""Names in an entry's folder that no output may have."""

OPENING = b'{\n"digest": "'
DIGITS = 32
LONGEST_NAME = 200


class OtherFormat(Damaged):
    """Whole, but written by another version of this package: a miss, and nothing to repair."""


_SEPARATORS = (", ", ": ")


def to_json(manifest: Manifest) -> dict[str, Json]:
    """Return a manifest as JSON values, in the order in which a person asks."""
    run = manifest.run
    return {
        "format": manifest.format,
        "name": manifest.name,
        "source": cast("list[Json]", manifest.source.split("\n")),
        "run": {
            "started": run.started,
            "seconds": run.seconds,
            "notebook": run.notebook,
            "host": run.host,
            "user": run.user,
            "versions": dict(run.versions),
            "prefect": dict(run.prefect),
        },
        "options": dict(manifest.options),
        "outputs": [_output_to_json(output) for output in manifest.outputs],
        "observed": [
            {"kind": seen.kind, "name": seen.name, "digest": seen.digest, "detail": seen.detail}
            for seen in manifest.observed
        ],
        "key": manifest.key.digest,
        "parts": [
            {"kind": part.kind, "name": part.name, "digest": part.digest, "detail": part.detail}
            for part in manifest.key.parts
        ],
        "effects": dict(manifest.effects),
        "displays": [dict(display) for display in manifest.displays],
    }


def _output_to_json(output: Output) -> dict[str, Json]:
    return {
        "name": output.name,
        "kind": output.kind,
        "codec": output.codec,
        "file": output.file,
        "digest": output.digest,
        "size": output.size,
        "meta": dict(output.meta),
    }


def to_bytes(manifest: Manifest) -> bytes:
    """Return what ``manifest.json`` holds."""
    lines = [f"{_text(name)}: {_value(value)}" for name, value in to_json(manifest).items()]
    body = ("\n" + ",\n".join(lines) + "\n}\n").encode("utf-8")
    return OPENING + digest(body).encode("ascii") + b'",' + body


def _value(value: Json) -> str:
    """Write a list's items on lines of their own; the rest on one line, by the fast encoder."""
    if isinstance(value, list) and value:
        return "[\n  " + ",\n  ".join(map(_text, value)) + "\n]"
    return _text(value)


def _text(value: Json) -> str:
    # With all that could be left to defaults: a notebook may have set those, and its cells are kept as any others.
    text = json.dumps(value, ensure_ascii=False, check_circular=False, separators=_SEPARATORS)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates, which a column's name may hold, have no UTF-8
        return json.dumps(value, check_circular=False, separators=_SEPARATORS)
    return text


def from_bytes(data: bytes) -> Manifest:
    """Return the manifest that the bytes hold.

    Raises
    ------
    Damaged
        The bytes are not what was written.
    OtherFormat
        They are, but by a version whose format this one does not know.
    """
    start = len(OPENING) + 32 + 2
    body = data[start:]
    if data[:start] != OPENING + digest(body).encode("ascii") + b'",':
        message = f"{MANIFEST} is not what was written"
        raise Damaged(message)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # someone else may have written it, and signed it himself
        message = f"{MANIFEST} is not JSON: {error}"
        raise Damaged(message) from error
    return from_json(document)


def from_json(document: object) -> Manifest:
    """Return the manifest that the JSON values say; `Damaged` where they are not one."""
    fields = _Fields(document)
    number = fields.whole("format")
    if number != FORMAT:
        message = f"written in format {number}, and this version reads format {FORMAT}"
        raise OtherFormat(message)
    return Manifest(
        format=number,
        name=fields.text("name"),
        source="\n".join(fields.texts("source")),
        key=Key(fields.digest("key"), tuple(_part(part) for part in fields.objects("parts"))),
        observed=tuple(_observed(seen) for seen in fields.objects("observed")),
        outputs=_outputs(fields),
        effects=fields.mapping("effects"),
        displays=tuple(display.mapping() for display in fields.objects("displays")),
        run=_run(_Fields(fields.mapping("run"))),
        options=fields.mapping("options"),
    )


def _part(fields: _Fields) -> Part:
    return Part(fields.text("kind"), fields.text("name"), fields.text("digest"), fields.any("detail"))


def _observed(fields: _Fields) -> Observed:
    return Observed(fields.text("kind"), fields.text("name"), fields.text("digest"), fields.any("detail"))


def _run(fields: _Fields) -> Run:
    return Run(
        started=fields.number("started"),
        seconds=fields.number("seconds"),
        notebook=fields.text("notebook"),
        host=fields.text("host"),
        user=fields.text("user"),
        versions=cast("Mapping[str, str]", fields.mapping("versions")),
        prefect=fields.mapping("prefect"),
    )


def _outputs(fields: _Fields) -> tuple[Output, ...]:
    outputs = tuple(_output(output) for output in fields.objects("outputs"))
    check_names(outputs)
    return outputs


def _output(fields: _Fields) -> Output:
    return Output(
        name=fields.text("name"),
        kind=fields.text("kind"),
        codec=fields.text("codec"),
        file=fields.text("file"),
        digest=fields.digest("digest"),
        size=fields.whole("size"),
        meta=fields.mapping("meta"),
    )


def check_names(outputs: Iterable[Output]) -> None:
    """Raise `Damaged` unless each output's file is a plain name of its own, never a path."""
    seen = set(OURS)
    for output in outputs:
        name = output.file
        plain = name and not name.startswith(".") and name.isprintable() and not set(name) & set("/\\:")
        if not plain or name in seen or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
            message = f"{name!r} cannot be the name of an output's file"
            raise Damaged(message)
        seen.add(name)


class _Fields:
    """One JSON object of a manifest; whatever is asked for is there and of its type, or `Damaged` says what is not."""

    __slots__ = ("_values",)

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise _wrong("an object", values)
        self._values: dict[str, Json] = values

    def any(self, name: str) -> Json:
        try:
            return self._values[name]
        except KeyError:
            message = f"{MANIFEST} lacks {name!r}"
            raise Damaged(message) from None

    def text(self, name: str) -> str:
        value = self.any(name)
        if not isinstance(value, str):
            raise _wrong(f"{name!r} as text", value)
        return value

    def digest(self, name: str) -> str:
        value = self.text(name)
        if len(value) != DIGITS or value.strip("0123456789abcdef"):
            raise _wrong(f"{name!r} as a digest", value)
        return value

    def whole(self, name: str) -> int:
        value = self.any(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _wrong(f"{name!r} as a whole number", value)
        return value

    def number(self, name: str) -> float:
        value = self.any(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _wrong(f"{name!r} as a number", value)
        return float(value)

    def mapping(self, name: str | None = None) -> dict[str, Json]:
        value: Json = self._values if name is None else self.any(name)
        if not isinstance(value, dict):
            raise _wrong(f"{name!r} as an object", value)
        return value

    def items(self, name: str) -> list[Json]:
        value = self.any(name)
        if not isinstance(value, list):
            raise _wrong(f"{name!r} as a list", value)
        return value

    def objects(self, name: str) -> list[_Fields]:
        return [_Fields(item) for item in self.items(name)]

    def texts(self, name: str) -> list[str]:
        return [_Fields({name: item}).text(name) for item in self.items(name)]


def _wrong(wanted: str, value: object) -> Damaged:
    return Damaged(f"{MANIFEST} should hold {wanted}, not {value!r:.60}")

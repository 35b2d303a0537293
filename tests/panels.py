"""Stores to look at with the panel: a small one with one of each, one of ten thousand entries, one tall frame."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import io
import time
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from prefect_cache import codecs
from prefect_cache.digests import digest, file_digest
from prefect_cache.model import FORMAT, Key, Manifest, Observed, Output, Part, Retention, Run
from prefect_cache.store import Store, manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prefect_cache.model import Entry, Json

HOUR = 3600.0
DAY = 24 * HOUR
COLUMNS = ("price", "day", "quantity", "total", "margin", "rate", "tax", "cost", "weight", "height", "width")
LARGE = Retention(max_bytes=10**12)
EVIL = "<img src=x onerror=\"document.title='owned'\">"
"""What a page must show as text: were it ever parsed as HTML, it would change the page's title."""

SOURCE = '''# Join the orders with their customers
orders = pd.read_parquet("orders.parquet")
orders["total"] = orders["price"] * orders["quantity"]
orders = orders.merge(customers, on="customer_id", how="left")

def margin(frame, rate=0.19):
    """What is left after tax."""
    return frame["total"] * (1 - rate) - frame["cost"]

orders["margin"] = margin(orders)
print(f"{len(orders):,} orders")
'''


def write(folder: Path, number: int, name: str, value: object) -> Output:
    """Write a value with its codec, and return what the manifest says of it."""
    codec = codecs.codec_for(value)
    assert codec is not None
    file = f"{number:02}-{name}{codec.suffix}"
    written = codec.write(value, folder / file)
    told = written.meta if isinstance(written, codecs.Written) else {"pieces": list(written.pieces)}
    meta = told | ({"repr": repr(value)} if codec.name == "pickle" else {})
    return Output(name, type(value).__name__, codec.name, file, written.digest, written.size, meta)


def save(
    store: Store,
    name: str,
    values: Mapping[str, object],
    *,
    source: str = SOURCE,
    age: float = HOUR,
    seconds: float = 12.5,
    notebook: str = "shop/etl.ipynb",
    displays: tuple[Mapping[str, Json], ...] = (),
    options: Mapping[str, Json] | None = None,
) -> Entry:
    """Save some values as the entry of a cell that ran `age` seconds ago."""
    key = digest(f"{name} {sorted(values)} {age}".encode())
    with store.draft(key) as draft:
        outputs = tuple(write(draft.path, i, n, v) for i, (n, v) in enumerate(values.items()))
        parts = (
            Part("code", "", digest(source.encode())),
            Part("input", "customers", digest(b"customers"), {"type": "DataFrame", "rows": 1200}),
            Part("package", "pandas", digest(b"pandas"), pd.__version__),
        )
        return store.publish(
            draft,
            Manifest(
                format=FORMAT,
                name=name,
                source=source,
                key=Key(key, parts),
                observed=(Observed("file", "orders.parquet", digest(b"orders")),),
                outputs=outputs,
                effects={},
                displays=displays,
                run=Run(
                    started=time.time() - age,
                    seconds=seconds,
                    notebook=notebook,
                    host="atlas",
                    user="ada",
                    versions={"python": "3.11", "pandas": pd.__version__},
                    prefect={"task_run_name": name, "url": "https://prefect.example/runs/1"},
                ),
                options={"because": "orders.parquet changed", **(options or {})},
            ),
        )


def orders(rows: int = 1000) -> pd.DataFrame:
    """A frame with a column of each kind that is hard to show."""
    random = np.random.default_rng(7)
    start = pd.Timestamp("2026-03-01")
    frame = pd.DataFrame(
        {
            "order_id": np.arange(rows, dtype=np.int64) + 2**60 + 1,
            "placed": start + pd.to_timedelta(random.integers(0, 90 * 86400, rows), unit="s"),
            "customer": random.choice(["Ada", "Grace", "Edsger", "Barbara", "null"], rows),
            "country": pd.Categorical(random.choice(["DE", "FR", "NL", "US"], rows)),
            "quantity": pd.array(random.integers(1, 9, rows), dtype="Int64"),
            "price": np.round(random.gamma(3.0, 40.0, rows), 2),
            "paid": random.random(rows) < 0.8,
            "note": [None if i % 3 else f"order {i}" for i in range(rows)],
            "tax": pd.array([Decimal(i) / 100 for i in range(rows)], dtype=pd.ArrowDtype(pa.decimal128(12, 2))),
            "delivery": pd.to_timedelta(random.integers(3600, 9 * 86400, rows), unit="s"),
            "day": pd.array(
                [dt.date(2026, 3, 1) + dt.timedelta(i % 90) for i in range(rows)],
                dtype=pd.ArrowDtype(pa.date32()),
            ),
            "tags": pd.array([[f"t{i % 3}", "x"] for i in range(rows)], dtype=pd.ArrowDtype(pa.list_(pa.string()))),
        }
    )
    frame.loc[frame.index[:2], "price"] = np.nan
    frame.loc[frame.index[1], "quantity"] = pd.NA
    return frame


def picture() -> dict[str, Json]:
    """A display as `capture` records it: a small figure as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=80)
    axes = figure.add_subplot()
    axes.plot(np.cumsum(np.random.default_rng(1).normal(size=200)))
    axes.set_title("Revenue")
    held = io.BytesIO()
    figure.savefig(held, format="png")
    data: dict[str, Json] = {"image/png": base64.b64encode(held.getvalue()).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def shop(root: Path) -> Store:
    """A store with one of each: frames, an array, a model, a figure, a pinned, an expired and a damaged entry."""
    store = Store(root)
    customers = pd.DataFrame({"customer_id": range(1200), "name": [f"customer {i}" for i in range(1200)]})
    save(store, "orders", {"orders": orders(20_000), "customers": customers}, age=2 * HOUR, seconds=250)
    pinned = save(
        store, "features", {"features": np.random.default_rng(3).normal(size=(5000, 40))}, age=DAY, seconds=95
    )
    store.pin(pinned)
    save(
        store,
        "revenue",
        {"model": {"alpha": 0.3, "terms": ["price", "day"]}},
        age=3 * DAY,
        seconds=1830,
        displays=(picture(),),
    )
    save(store, "old prices", {"prices": orders(300)}, age=9 * DAY, notebook="prices.ipynb", options={"ttl": HOUR})
    wide = pd.DataFrame({f"sensor_{i:03}": np.arange(400) * (i + 1) / 7 for i in range(500)})
    save(store, "sensors", {"sensors": wide}, age=40 * DAY, seconds=610, notebook="lab/sensors.ipynb")
    evil = pd.DataFrame({EVIL: [EVIL, "null", None], "plain": [1, 2, 3]})
    save(store, EVIL, {"evil": evil}, age=5 * DAY, source=f"x = {EVIL!r}  # {EVIL}", notebook=f"{EVIL}.ipynb")
    broken = save(store, "users", {"users": customers}, age=6 * DAY)
    (broken.path / "manifest.json").write_text('{"format": 1')
    for _ in range(14):
        store.touch(pinned)
    (root / "index.sqlite").unlink()  # as after a damage that nobody has met yet
    return store


def many(root: Path, count: int = 10_000) -> Store:
    """A store of thousands of small entries, laid down as another process would have left them.

    Each is whole and signed, with a frame of twelve columns; each tenth shares the file of the one before.
    """
    store = Store(root, LARGE)
    mark = 0x1234_5678_9ABC_DEF0
    frame = pd.DataFrame({name: [1.0, 2.0] for name in COLUMNS}).assign(number=[mark, mark])
    seed = save(store, "seed", {"frame": frame}, age=2 * DAY)
    (output,) = seed.manifest.outputs
    data = (seed.path / output.file).read_bytes()
    before = seed.path
    for i in range(count - 1):
        key = digest(f"many {i}".encode())
        folder = root / "entries" / key
        folder.mkdir(mode=0o700)
        if i % 10:
            (folder / output.file).write_bytes(data.replace(mark.to_bytes(8, "little"), i.to_bytes(8, "little")))
            whole, pieces = file_digest(folder / output.file)
            output = dataclasses.replace(output, digest=whole, meta={**output.meta, "pieces": list(pieces)})
        else:
            (folder / output.file).hardlink_to(before / output.file)
        run = Run(time.time() - DAY - i % 1000 * 60, 1.0 + i % 100, notebook=f"notebook-{i % 40}.ipynb")
        told = dataclasses.replace(
            seed.manifest,
            name=f"table_{i:05}",
            key=dataclasses.replace(seed.manifest.key, digest=key),
            outputs=(output,),
            run=run,
            options={"ttl": 3600.0 if i % 50 == 0 else 1e7},
        )
        written = manifest.to_bytes(told)
        (folder / manifest.MANIFEST).write_bytes(written)
        (folder / manifest.SIGNATURE).write_bytes(store.trust.sign(written))
        if i % 3 == 0:
            (folder / manifest.HITS).write_bytes(b"." * (i % 7))
        before = folder
    return store


def tall(root: Path, rows: int = 10_000_000) -> Store:
    """A store with one frame of many rows and twelve columns."""
    store = Store(root)
    random = np.random.default_rng(11)
    columns: dict[str, object] = {
        "id": np.arange(rows, dtype=np.int64) + 2**60,
        "placed": np.datetime64("2020-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "s"),
        "symbol": pd.Categorical.from_codes(random.integers(0, 5, rows, dtype=np.int8), list("ABCDE")),
    }
    columns |= {f"x{i}": random.normal(100, 20, rows) for i in range(9)}
    save(store, "trades", {"trades": pd.DataFrame(columns)}, seconds=535)
    return store


def digest_of(path: Path) -> str:
    """Return a file's tree digest."""
    return file_digest(path)[0]

"""Measure in full: ``python tests/benchmarks/run.py [--sizes 1,100,1000] [--into FOLDER] [--record FILE]``.

Takes about a quarter of an hour, 8 GB of memory and 4 GB of disk. Writes into the folder ``speed.json`` (as
pytest-benchmark has it), ``speed.md`` (a table of medians) and a plot for each operation. With
``--record notebooks/benchmarks.json`` it writes what the notebook beside that file draws.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Medians = dict[tuple[str, float, str], dict[str, float]]
"""Milliseconds by operation, size and kind, then by way."""


def main() -> int:
    """Measure, then write the table and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,100,1000", help="megabytes, separated by commas")
    parser.add_argument("--into", type=Path, default=Path("benchmarks"), help="where the results go")
    parser.add_argument(
        "--record", type=Path, help="also write the medians, small enough to be committed, to this file"
    )
    parser.add_argument("--only", default="", help="a pytest -k expression")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    found = arguments.into / "speed.json"
    code = measure(arguments.sizes, found, arguments.only)
    if found.exists():
        medians = read(found)
        (arguments.into / "speed.md").write_text(table(medians))
        plot(medians, arguments.into)
        if arguments.record:
            arguments.record.write_text(record(found))
        print(table(medians))
    return code


def measure(sizes: str, into: Path, only: str) -> int:
    """Run the benchmarks in a process of their own."""
    environment = os.environ | {"BENCHMARK_MB": sizes}
    files = [str(HERE / name) for name in ("test_speed.py", "test_cells.py")]
    command = [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:xdist", "--timeout=900"]
    command += [
        f"--benchmark-json={into}",
        "--benchmark-disable-gc",
        "--benchmark-columns=median,iqr,rounds",
        "-k",
        only,
    ]
    return subprocess.run(command, env=environment, check=False, cwd=HERE.parents[1]).returncode


def read(path: Path) -> Medians:
    """Return the medians of a run."""
    medians: Medians = defaultdict(dict)
    for one in json.loads(path.read_text())["benchmarks"]:
        info = one["extra_info"]
        medians[info["operation"], info["size"], info["kind"]][info["way"]] = one["stats"]["median"] * 1000
    return dict(medians)


def record(path: Path) -> str:
    """Return a run's medians with the date, the machine and the versions, as JSON with a line for each measurement."""
    run = json.loads(path.read_text())
    machine = run["machine_info"]
    head = {
        "measured": run["datetime"][:10],
        "machine": f"{machine['cpu'].get('brand_raw', machine['machine'])}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in MEASURED if find_spec(name)},
    }
    rows = [
        {**one["extra_info"], "ms": one["stats"]["median"] * 1000, "iqr": one["stats"]["iqr"] * 1000}
        for one in run["benchmarks"]
    ]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    return f'{json.dumps(head, indent=1)[:-2]},\n "medians": [\n{lines}\n ]\n}}\n'


MEASURED = ("pandas", "pyarrow", "numpy", "prefect", "joblib", "diskcache", "marimo")


def table(medians: Medians) -> str:
    """Return the medians as Markdown, one table for each operation, the best of each row in bold."""
    lines: list[str] = []
    for operation in dict.fromkeys(operation for operation, _, _ in medians):
        rows = {key: found for key, found in medians.items() if key[0] == operation}
        ways = list(dict.fromkeys(way for found in rows.values() for way in found))
        lines += [
            f"### {operation}, milliseconds",
            "",
            "| | " + " | ".join(ways) + " |",
            "|---" * (len(ways) + 1) + "|",
        ]
        for (_, size, kind), found in rows.items():
            best = min((ms for way, ms in found.items() if "limit" not in way), default=0)
            cells = [_cell(found.get(way), best) for way in ways]
            lines.append(f"| {size:g} MB {kind} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(ms: float | None, best: float) -> str:
    if ms is None:
        return ""
    text = f"{ms:.2f}" if ms < 10 else f"{ms:,.0f}"
    return f"**{text}**" if ms == best else text


def plot(medians: Medians, into: Path) -> None:
    """Draw one picture for each operation: a panel for each size, a bar for each way."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    for operation in dict.fromkeys(operation for operation, _, _ in medians):
        sizes = list(dict.fromkeys(size for o, size, _ in medians if o == operation))
        figure, axes = plt.subplots(1, len(sizes), figsize=(6 * len(sizes), 6), squeeze=False)
        for axis, size in zip(axes[0], sizes, strict=True):
            _panel(axis, {kind: found for (o, s, kind), found in medians.items() if (o, s) == (operation, size)})
            axis.set_title(f"{operation}, {size:g} MB")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
        figure.tight_layout(rect=(0, 0.1, 1, 1))
        figure.savefig(into / f"{operation}.png", dpi=120)
        plt.close(figure)


def _panel(axis: Any, found: dict[str, dict[str, float]]) -> None:
    ways = list(dict.fromkeys(way for times in found.values() for way in times))
    width = 0.85 / max(len(ways), 1)
    for number, way in enumerate(ways):
        places = [at + number * width for at, times in enumerate(found.values()) if way in times]
        axis.barh(places, [times[way] for times in found.values() if way in times], height=width, label=way)
    axis.set_yticks([at + 0.4 for at in range(len(found))], list(found))
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds")
    axis.invert_yaxis()


if __name__ == "__main__":
    sys.exit(main())

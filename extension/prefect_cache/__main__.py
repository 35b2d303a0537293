"""``python -m prefect_cache`` is ``prefect-cache``."""

from __future__ import annotations

import sys

from prefect_cache.cli import main

if __name__ == "__main__":
    sys.exit(main())

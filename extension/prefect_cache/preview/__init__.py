"""What lies in an entry's Arrow file, a page at a time, straight from the mapped file."""

from prefect_cache.preview.frame import PAGE, Preview
from prefect_cache.preview.statistics import Statistics

__all__ = ["PAGE", "Preview", "Statistics"]

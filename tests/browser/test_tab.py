"""Tab in JupyterLab's page, on our lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Book

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(600)]

TYPED = [
    ("%prefect_cache un", ["undo", "unpin"]),
    ("%%prefect_cache --re", ["--refresh", "--retries", "--retry-delay"]),
    ("%prefect_cache show ord", ["order_lines", "orders"]),
]


def test_tab_offers_commands_options_and_names(open_book: Callable[..., Book]) -> None:
    """The menu holds what fits, and nothing of what Jedi would guess."""
    book = open_book(
        "%load_ext prefect_cache", "%%prefect_cache order_lines\na = 1", "%%prefect_cache orders\nb = 2", ""
    )
    expect(book.page.locator(".prefect-cache-status")).to_have_count(2, timeout=120_000)
    last = book.page.locator(".jp-Notebook .jp-CodeCell").last
    menu = book.page.locator(".jp-Completer-item .jp-Completer-match")
    for text, offered in TYPED:
        last.locator(".cm-content").click()
        book.page.keyboard.press("Control+a")
        book.page.keyboard.insert_text(text)
        book.page.keyboard.press("Tab")
        expect(menu).to_have_text(offered)
        book.page.keyboard.press("Escape")

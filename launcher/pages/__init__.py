"""Open the newest report, or serve the reports on 127.0.0.1.

`tasks.py` calls `open_page.show`. Notebooks open their link with `desktop`.
"""

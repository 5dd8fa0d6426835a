"""Open the newest report, or serve the reports on 127.0.0.1."""

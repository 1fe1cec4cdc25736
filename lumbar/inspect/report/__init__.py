"""A cache as one self-contained HTML page: `write_report`."""

"""Write the archive profile of the store v1: ``python tests/cache/stores/make_v1_archive.py``.

Like ``v1`` it was made once, from ``v1``, and is never made again.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from lumbar.cache.format import SERIES_TABLE, TABLE_SCHEMAS
from lumbar.cache.index import build_index
from lumbar.cache.store import Cache
from lumbar.cache.tables import config_hash, read_table, write_cache_file, write_table
from lumbar.cache.volumes import write_volume

STORES = Path(__file__).parent


def main(folder: Path) -> None:
    """Write the store into an empty or absent folder."""
    folder.mkdir(parents=True)
    plain = Cache(STORES / "v1")
    config = plain.description["config"] | {"profile": "archive"}
    for row in range(plain.series.height):
        attributes = replace(plain.attributes(row), config_hash=config_hash(config))
        write_volume(folder, np.array(plain.volume(row)), attributes, profile="archive")
    for name in TABLE_SCHEMAS:
        table = build_index(folder) if name == SERIES_TABLE else read_table(plain.root, name)
        write_table(folder, name, table)
    write_cache_file(folder, config=config, counts=plain.description["counts"])


if __name__ == "__main__":
    main(STORES / "v1-archive" if len(sys.argv) == 1 else Path(sys.argv[1]))

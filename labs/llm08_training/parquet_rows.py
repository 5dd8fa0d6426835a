"""Print the rows of a Parquet file as JSON lines, with a limit of memory.

python -m labs.llm08_training.parquet_rows FILE

A file of 1.4 kB can unpack to 10 GB. Nothing in it says so: one long text, stored once, may be the
value of every row. So the rows are read in a process of their own, which may use 1 GiB.
"""

import json
import resource
import sys
from collections.abc import Iterator
from typing import Any

MEMORY = 2**30  # bytes
MOST_ROWS = 20_000_000
ROWS_AT_ONCE = 2000
BYTES_AT_ONCE = 2**26


def rows(path: str) -> Iterator[dict[str, Any]]:
    """Yield {"row": …} for each row, or {"bad": …} with the reason; the last one may be bad."""
    import pyarrow.parquet
    from pyarrow import ArrowException

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            if table.metadata.num_rows > MOST_ROWS:
                yield {"bad": f"the file has {table.metadata.num_rows:,} rows"}
                return
            for batch in table.iter_batches(_rows_at_once(table.metadata)):
                yield from _of_batch(batch)
    except MemoryError:  # pyarrow's own is one, too
        yield {"bad": f"it can't be read: it takes more than {MEMORY >> 30} GiB of memory"}
    except (ArrowException, OSError) as error:
        yield {"bad": f"it can't be read: {error}"}


def _rows_at_once(metadata: Any) -> int:
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * metadata.num_rows // max(1, size)))


def _of_batch(batch: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch; one by one if a text isn't UTF-8, so that only its row is bad."""
    try:
        yield from ({"row": row} for row in batch.to_pylist())
    except UnicodeDecodeError:
        for i in range(len(batch)):
            try:
                (row,) = batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError:
                yield {"bad": "it isn't valid UTF-8"}
            else:
                yield {"row": row}


def _not_json(value: Any) -> dict[str, str]:
    """Return an object, which isn't text, for a value that JSON doesn't have: bytes, a date."""
    return {type(value).__name__: f"{value!r:.40}"}


def main() -> None:
    """Limit this process and print the rows."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for row in rows(sys.argv[1]):
        print(json.dumps(row, default=_not_json))


if __name__ == "__main__":
    main()

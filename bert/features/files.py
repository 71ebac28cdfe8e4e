"""Features as a file: JSON lines, NumPy arrays or a Parquet table, written chunk by chunk, and atomically.

All formats hold the same tokens and vectors, except that JSON rounds the vectors to 6 places::

    write_jsonl(Path("out.jsonl"), extractor.chunks(lines), extractor.layers, tokenizer.pieces)
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bert.errors import UsageError, naming_os_errors
from bert.features.extract import Extractor, Features, FeaturesConfig
from bert.files import replacing


def write_jsonl(path: Path, chunks: Iterable[Features], layers: Sequence[int], pieces: Sequence[str]) -> None:
    """Write an object a line: ``{"linex_index": 0, "features": [{"token", "layers": [{"index", "values"}]}]}``.

    Values are rounded to 6 places. Pooled: ``{"linex_index": 0, "tokens": [...], "layers": [{"index", "values"}]}``.
    """
    with path.open("w", encoding="utf8") as file:
        for chunk in chunks:
            for number, ids, values in chunk.examples():
                rounded = np.round(values.astype(np.float64), 6)
                tokens = [pieces[i] for i in ids.tolist()]
                entry: dict[str, Any] = {"linex_index": number}
                if chunk.pooled:
                    entry |= {"tokens": tokens, "layers": _layers(layers, rounded)}
                else:
                    entry["features"] = [
                        {"token": token, "layers": _layers(layers, rounded[:, i])} for i, token in enumerate(tokens)
                    ]
                file.write(json.dumps(entry) + "\n")


def _layers(layers: Sequence[int], values: NDArray[np.float64]) -> list[dict[str, Any]]:
    return [{"index": index, "values": row} for index, row in zip(layers, values.tolist(), strict=True)]


def write_npz(path: Path, chunks: Iterable[Features], layers: Sequence[int], pieces: Sequence[str]) -> None:
    """Write arrays: example i has the tokens ``pieces[token_ids[offsets[i]:offsets[i + 1]]]``.

    Each ``layer_-1``, ... is [T, hidden], a row a token, or, pooled, [n, hidden], a row an example.
    """
    offsets = [np.zeros(1, np.int64)]
    rows, width = 0, 0
    with ExitStack() as stack:
        spools: list[IO[bytes]] = [stack.enter_context(TemporaryFile(dir=path.parent)) for _ in range(len(layers) + 1)]
        for chunk in chunks:
            offsets.append(chunk.sequences.offsets[1:] + offsets[-1][-1])
            rows, width = rows + chunk.values.shape[1], chunk.values.shape[2]
            for spool, values in zip(spools, (chunk.sequences.tokens, *chunk.values), strict=True):
                spool.write(np.ascontiguousarray(values).data)
        with zipfile.ZipFile(path, "w") as archive:
            _add(archive, "offsets", np.concatenate(offsets))
            _add(archive, "pieces", np.array(pieces))
            _add_spool(archive, "token_ids", spools[0], np.int32, (int(offsets[-1][-1]),))
            for index, spool in zip(layers, spools[1:], strict=True):
                _add_spool(archive, f"layer_{index}", spool, np.float32, (rows, width))


def _add(archive: zipfile.ZipFile, name: str, array: NDArray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _add_spool(archive: zipfile.ZipFile, name: str, spool: IO[bytes], dtype: type, shape: tuple[int, ...]) -> None:
    """Add an array whose values are in a file: it need not fit into memory."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    spool.seek(0)
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(spool, member, 1 << 20)


def write_parquet(path: Path, chunks: Iterable[Features], layers: Sequence[int], pieces: Sequence[str]) -> None:
    """Write a row an example: ``linex_index``, ``tokens`` and a column ``layer_-1``, ... for each layer.

    A layer is a list of vectors, one a token, or, pooled, one vector.
    """
    dictionary = pa.array(pieces)
    with ExitStack() as stack:
        writer = None
        for chunk in chunks:
            table = _table(chunk, layers, dictionary)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writer.write_table(table)


def _table(chunk: Features, layers: Sequence[int], pieces: pa.Array) -> pa.Table:
    offsets = pa.array(chunk.sequences.offsets, pa.int32())
    tokens = pa.ListArray.from_arrays(offsets, pieces.take(pa.array(chunk.sequences.tokens)))
    columns = {"linex_index": pa.array(np.arange(chunk.first, chunk.first + len(chunk.sequences))), "tokens": tokens}
    for index, values in zip(layers, chunk.values, strict=True):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        columns[f"layer_{index}"] = vectors if chunk.pooled else pa.ListArray.from_arrays(offsets, vectors)
    return pa.table(columns)


Writer: TypeAlias = Callable[[Path, Iterable[Features], Sequence[int], Sequence[str]], None]
FORMATS: dict[str, Writer] = {"jsonl": write_jsonl, "npz": write_npz, "parquet": write_parquet}


def writer_of(output_file: str, output_format: str | None) -> Writer:
    """Return the function that writes ``output_format``, by default the format of the file's suffix."""
    name = output_format or Path(output_file).suffix.removeprefix(".")
    if name not in FORMATS:
        known = ", ".join(f".{known}" for known in FORMATS)
        raise UsageError(f"--output_file {output_file}: expected one of the suffixes {known}, or --output_format")
    return FORMATS[name]


def write_features(config: FeaturesConfig, extractor: Extractor, lines: Iterable[str]) -> None:
    """Write the features of ``lines`` to ``--output_file``, atomically."""
    write, path = writer_of(config.output_file, config.output_format), Path(config.output_file)
    with naming_os_errors(f"--output_file {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write(temporary, extractor.chunks(lines), extractor.layers, extractor.tokenizer.pieces)

"""The data sets that ``data/download.py`` knows, read from ``catalog.toml``, which explains its keys.

To add a data set, add a table there::

    DATA_SETS["cola"].files[0].urls      # ("https://dl.fbaipublicfiles.com/glue/data/CoLA.zip",)
    GROUPS["squad"]                      # ["squad-1.1", "squad-2.0"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bert.download.archives import archive_problem, unpack
from bert.download.mrpc import build_mrpc
from bert.download.remote import RemoteFile, is_web_address

CATALOG = Path(__file__).with_name("catalog.toml")
CHECKSUM = re.compile("md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")


def unpack_all(archives: Sequence[Path], folder: Path) -> None:
    """Unpack archives into one folder."""
    for archive in archives:
        unpack(archive, folder)


BUILDERS = {"unpack": unpack_all, "mrpc": build_mrpc}


@dataclass(frozen=True)
class DataSet:
    """Files in ``folder``, or beside it if ``build`` makes the content of the folder from them.

    ``build`` takes the fetched files and an empty folder. ``members`` are the files that it must make, with the
    published checksum of each or None.
    """

    folder: str
    files: tuple[RemoteFile, ...]
    group: str | None = None
    build: Callable[[Sequence[Path], Path], None] | None = None
    members: Mapping[str, str | None] = field(default_factory=dict)


def load_catalog(path: Path) -> dict[str, DataSet]:
    """Return the data sets of a catalogue by name; raises ValueError, which names the table and what is wrong."""
    data_sets = {}
    for name, table in tomllib.loads(path.read_text(encoding="utf8")).items():
        try:
            data_sets[name] = _read_data_set(table)
        except KeyError as error:
            raise ValueError(f"{path}: [{name}]: {error} is missing or unknown") from error
        except ValueError as error:
            raise ValueError(f"{path}: [{name}]: {error}") from error
    return data_sets


def _read_data_set(table: dict[str, Any]) -> DataSet:
    _check_types(table, {"folder": str, "group": str, "files": dict, "members": (list, dict), "build": str})
    for file in table["files"].values():
        _check_types(file, {"urls": list, "checksum": str, "size": int})
    members = table.get("members", ())
    members = members if isinstance(members, dict) else dict.fromkeys(members)
    if "build" in table and not members:
        raise ValueError(f"build = {table['build']!r}: expected members too")
    build = BUILDERS[table.get("build", "unpack")] if members else None
    check = archive_problem if build is unpack_all else None
    files = tuple(
        RemoteFile(name, tuple(file["urls"]), file.get("checksum"), file.get("size"), check)
        for name, file in table["files"].items()
    )
    for path in (table["folder"], *members, *(file.name for file in files)):
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{path}: expected a path below --output")
    for url in (str(url) for file in files for url in file.urls):
        if not is_web_address(url):
            raise ValueError(f"{url}: expected an address that begins with http:// or https://")
    for checksum in (*(file.checksum for file in files), *members.values()):
        if checksum is not None and not CHECKSUM.fullmatch(str(checksum)):
            raise ValueError(f"{checksum}: expected md5:, sha1: or sha256: and hexadecimal digits")
    return DataSet(table["folder"], files, table.get("group"), build, members)


def _check_types(table: dict[str, Any], types: dict[str, Any]) -> None:
    for key, value in table.items():
        if not isinstance(value, types.get(key, ())):
            raise ValueError(f"{key} = {value!r}: unknown key or wrong type")


DATA_SETS = load_catalog(CATALOG)
GROUPS: dict[str, list[str]] = {}
for name, each in DATA_SETS.items():
    if each.group:
        GROUPS.setdefault(each.group, []).append(name)

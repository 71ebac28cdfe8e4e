"""Print the versions that pip must keep to in an image: what is installed there stays, the rest is as tested.

    python scripts/docker/constraints.py constraints.txt

NVIDIA's image has a PyTorch of its own, which no package from elsewhere can replace. The installers themselves may be
newer than the image's: packages ask for that.
"""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

INSTALLERS = ("pip", "setuptools", "wheel")


def normalized(name: str) -> str:
    """Spell a package's name as pip compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def merged(tested: str, installed: dict[str, str]) -> list[str]:
    """Return ``name==version`` lines: all of ``installed``, and those of the text ``tested`` that it lacks."""
    pins = {normalized(line.split("==")[0]): line for line in tested.splitlines() if re.match(r"[\w.-]+==", line)}
    kept = {name: f"{name}=={version}" for name, version in installed.items() if name not in INSTALLERS}
    return sorted((pins | kept).values())


if __name__ == "__main__":
    found = {normalized(each.name): each.version for each in distributions() if each.name}
    print("\n".join(merged(Path(sys.argv[1]).read_text(encoding="utf8"), found)))

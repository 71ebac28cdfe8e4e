"""Where Triton Inference Server is installed: NVIDIA's pytriton wheel, or NVIDIA's container image."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bert.errors import UsageError

IMAGE = Path("/opt/tritonserver")  # where NVIDIA's image has it


@dataclass(frozen=True)
class Wheel:
    """The server's files."""

    binary: Path
    libraries: list[str]  # folders for the dynamic linker
    backends: Path
    caches: Path
    stub: Path  # of the python backend, for this Python

    @classmethod
    def find(cls) -> Wheel:
        """Return the installed server; raises UsageError where there is none."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        spec = importlib.util.find_spec("pytriton")
        if spec is not None and spec.origin is not None:
            server = Path(spec.origin).parent / "tritonserver"
            # Python's own before Debian's.
            libraries = [sysconfig.get_config_var("LIBDIR"), str(server.parents[1] / "nvidia_pytriton.libs")]
            stubs = server / "python_backend_stubs" / version
        elif (IMAGE / "bin" / "tritonserver").is_file():
            server, libraries, stubs = IMAGE, [str(IMAGE / "lib")], IMAGE / "backends" / "python"
        else:
            raise UsageError("Triton Inference Server is not installed: run `bash triton/setup.sh`")
        stub = stubs / "triton_python_backend_stub"
        if not stub.is_file():
            raise UsageError(f"Triton Inference Server in {server} is not for Python {version}: {stub} is missing")
        return cls(server / "bin" / "tritonserver", libraries, server / "backends", server / "caches", stub)

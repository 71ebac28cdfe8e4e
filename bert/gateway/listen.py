"""Listening on a port until SIGTERM, and saying when."""

import asyncio
import signal
import socket
from contextlib import nullcontext
from dataclasses import dataclass

import uvicorn

from bert.config import flag
from bert.errors import naming_os_errors
from bert.gateway.limits import App

BACKLOG = 1024  # connections
SHUTDOWN_SECONDS = 10


@dataclass
class ListenConfig:
    host: str = flag("127.0.0.1", "Address to listen on; other machines reach 0.0.0.0 (see --allowed_host).")
    port: int = flag(8080, "Port to listen on; 0: any free one.", minimum=0, maximum=65535)
    max_connections: int = flag(1000, "Connections at once, idle ones included.", minimum=1)


def open_socket(config: ListenConfig) -> socket.socket:
    """Bind the port; raises UsageError if it is taken."""
    with naming_os_errors(f"--host {config.host}"):
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer takes 40 ms more.
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with naming_os_errors(f"--port {config.port}"):
        opened.bind(address)
        opened.listen(BACKLOG)
    return opened


def url_of(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which end a process by the signal instead of with exit code 0."""

    def capture_signals(self):
        return nullcontext()


def build_server(app: App, config: ListenConfig) -> uvicorn.Server:
    settings = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="h11",  # refuses ambiguous requests, and headers of more than 64 KiB
        ws="none",
        proxy_headers=False,  # anybody can write X-Forwarded-For
        server_header=False,
        access_log=False,
        log_level="warning",
        limit_concurrency=config.max_connections,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return _Server(settings)


def serve(server: uvicorn.Server, opened: socket.socket) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT, and finish the requests at hand."""

    async def until_signal() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
        await server.serve(sockets=[opened])

    asyncio.run(until_signal())

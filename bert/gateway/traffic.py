"""Counts of what goes through, for Prometheus, and the headers that every response has."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bert.gateway.limits import App, Message, Receive, Send

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)  # seconds


class Meters:
    def __init__(self):
        self.registry = CollectorRegistry()
        make = {"registry": self.registry, "namespace": "bert_gateway"}
        self.requests = Counter("requests", "Requests by route and status.", ["route", "status"], **make)
        self.seconds = Histogram("request_seconds", "Time to the answer.", ["route"], buckets=BUCKETS, **make)
        self.in_flight = Gauge("in_flight", "Requests being answered.", **make)
        self.reloads = Counter("reloads", "Models reloaded after a dead process.", ["model", "result"], **make)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Observe:
    """ASGI middleware, the outermost. Paths outside ``routes`` count as one, so that clients cannot add series."""

    def __init__(self, app: App, meters: Meters, routes: set[str]):
        self.app, self.meters, self.routes = app, meters, routes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        route = scope["path"] if scope["path"] in self.routes else "other"
        status, start = 500, time.perf_counter()

        async def send_secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *SECURITY]
            await send(message)

        try:
            with self.meters.in_flight.track_inprogress():
                await self.app(scope, receive, send_secured)
        finally:
            self.meters.requests.labels(route, str(status)).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - start)

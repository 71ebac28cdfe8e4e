"""In the gateway's image: it shows its page, says that no server is there, and ends on SIGTERM."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

PORT = 18431

assert os.getuid() == 1000
process = subprocess.Popen(["python3", "triton/gateway.py", "--host", "0.0.0.0", "--port", str(PORT)])
try:
    for _ in range(300):
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5).read()
            break
        except urllib.error.URLError:
            assert process.poll() is None
            time.sleep(0.1)
    assert b"<html" in page
    try:
        raise SystemExit(urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=10).read())
    except urllib.error.HTTPError as error:
        assert error.code == 503, error
        assert "not reachable" in json.loads(error.read())["status"]
finally:
    process.send_signal(signal.SIGTERM)
assert process.wait(15) == 0

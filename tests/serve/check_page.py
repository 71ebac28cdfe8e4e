"""Ask the running gateway's page a question in Chromium, and print the answer that it shows.

.venv/serving/bin/python tests/serve/check_page.py http://127.0.0.1:8080 "Who?" "Ada wrote it." page.png
"""

import json
import sys
import tempfile
from pathlib import Path

from browser import Browser


def main(url: str, question: str, context: str, screenshot: str) -> None:
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as page:
        page.open(f"{url}/")
        page.wait("document.querySelector('#health').dataset.state == 'ok'")
        for name, text in (("question", question), ("context", context)):
            page.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(text)}")
        page.run("document.querySelector('#answer').requestSubmit()")
        page.wait("!['empty', 'busy'].includes(document.querySelector('#answer .result').dataset.state)")
        page.screenshot(Path(screenshot))
        print(page.run("document.querySelector('#answer .headline').textContent"))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The page in a real Chromium."""

import json
import time

import pytest

for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "tritonclient.grpc", "websockets"):
    pytest.importorskip(package)

from browser import Browser, chromium
from fake_triton import FakeTriton, running

from bert.gateway.app import GatewayConfig
from bert.gateway.limits import Limits
from bert.gateway.watchdog import WatchdogConfig

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")]
SCRIPT = "<img/src=x/onerror='window.hacked=1'><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def serve(models):
    """Yield the fake server and the gateway's URL."""
    with FakeTriton(models=models) as triton:
        config = GatewayConfig(triton.address, None, Limits(rate=0), WatchdogConfig(probe_seconds=0.2))
        with running(config) as url:
            yield triton, f"{url}/"


@pytest.fixture(scope="module")
def everything():
    yield from serve(["bert_qa", "bert_classifier", "bert_embed", "bert_multitask"])


@pytest.fixture
def page(browser, everything):
    browser.console.clear()
    browser.open(everything[1])
    browser.wait("document.querySelector('#health').dataset.state == 'ok'")
    yield browser
    assert browser.console == []  # no error, no breach of the policy


def fill(page: Browser, **texts: str) -> None:
    for name, text in texts.items():
        page.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(text)}")


def submit(page: Browser, form: str) -> str:
    """Submit and return the headline of the result."""
    page.run(f"document.querySelector('#{form}').requestSubmit()")
    page.wait(f"!['empty', 'busy'].includes(document.querySelector('#{form} .result').dataset.state)")
    return text_of(page, f"#{form} .headline")


def text_of(page: Browser, selector: str) -> str:
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def state_of(page: Browser, form: str) -> str:
    return page.run(f"document.querySelector('#{form} .result').dataset.state")


def test_the_example_works_at_once(page):
    assert text_of(page, "#health-text") == "ready: bert_classifier, bert_embed, bert_multitask, bert_qa"
    assert submit(page, "answer") == "In"  # the stand-in answers with the first word
    assert text_of(page, "#passage mark") == "In"
    assert text_of(page, "#answer .facts").startswith("50.0 % probable, ")
    assert page.run("document.querySelector('#n-best-rows .bar > span').style.inlineSize") == "50%"


def test_the_mark_counts_code_points(page):
    fill(page, context="\U0001f389\U0001f600 \U0001f389")
    assert submit(page, "answer") == "\U0001f389\U0001f600"
    assert text_of(page, "#passage mark") == "\U0001f389\U0001f600"
    assert text_of(page, "#passage") == "\U0001f389\U0001f600 \U0001f389"


def test_another_answer_can_be_shown_in_the_context(page):
    fill(page, context="twice Ada twice Ada")
    assert submit(page, "answer") == "twice"
    pressed = "[...document.querySelectorAll('#n-best-rows button')].map(each => each.getAttribute('aria-pressed'))"
    assert page.run(pressed) == ["true", "false"]
    page.run("document.querySelectorAll('#n-best-rows button')[1].click()")
    assert page.run(pressed) == ["false", "true"]
    assert text_of(page, "#passage mark") == "Ada"
    assert page.run("document.querySelector('#passage').firstChild.textContent") == "twice "


def test_markup_is_text(page):
    fill(page, context=f"{SCRIPT} said <b>Ada</b>", question=SCRIPT)
    assert submit(page, "answer") == SCRIPT.split()[0]
    assert text_of(page, "#passage") == f"{SCRIPT} said <b>Ada</b>"
    assert page.run("document.querySelectorAll('main img, main b, main script').length") == 0
    assert page.run("window.hacked === undefined")


def test_no_answer_and_errors_are_told_apart(page):
    fill(page, context="unanswerable text")
    assert submit(page, "answer") == "The context does not answer this."
    assert (state_of(page, "answer"), text_of(page, "#n-best-rows td")) == ("none", "no answer")
    fill(page, context="")
    page.run("document.querySelector('#answer .result').dataset.state = 'empty'")
    assert submit(page, "answer") == "context: expected some text"
    assert state_of(page, "answer") == "error"
    page.console.clear()  # Chromium reports the status 422


def test_ctrl_enter_in_the_context(page):
    page.run("document.querySelector('#context').focus()")
    page.press("Enter", modifiers=2)
    page.wait("document.querySelector('#answer .result').dataset.state == 'done'")


def test_the_newest_request_counts(page, everything):
    triton, _ = everything
    before = triton.cancelled
    fill(page, context="hang")
    page.run("document.querySelector('#answer').requestSubmit()")
    time.sleep(0.3)
    fill(page, context="Ada")
    assert submit(page, "answer") == "Ada"
    time.sleep(0.3)
    assert (text_of(page, "#answer .headline"), triton.cancelled) == ("Ada", before + 1)


def test_tabs_by_keyboard(page):
    page.run("document.querySelector('#tab-answer').focus()")
    page.press("ArrowRight")
    assert page.run("document.activeElement.id") == "tab-texts"
    assert page.run("[...document.querySelectorAll('[role=tabpanel]')].map(each => each.hidden)") == [True, False, True]
    assert page.run("document.querySelector('#tab-texts').getAttribute('aria-selected')") == "true"
    page.press("Tab")
    assert page.run("document.activeElement.id") == "text"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_classify_and_compare(page):
    page.run("document.querySelector('#tab-texts').click()")
    fill(page, text="good film", **{"text-pair": "dull"})
    assert submit(page, "classify") == "good"
    assert text_of(page, "#label-rows td") == "good dull"
    assert submit(page, "compare") == "1.000"  # the stand-in gives all texts one vector


def test_a_task_is_chosen_from_those_of_the_server(page):
    page.run("document.querySelector('#tab-tasks').click()")
    options = "[...document.querySelectorAll('#task-name option')].map(each => each.textContent)"
    assert page.run(options) == ["cola", "sts"]
    page.run("document.querySelector('#task-name').value = 'sts'")
    fill(page, **{"task-text": "good film", "task-text-pair": "dull"})
    assert submit(page, "task") == "sts good"
    assert text_of(page, "#task-label-rows td") == "good dull"


def test_every_field_has_a_label(page):
    unlabelled = "[...document.querySelectorAll('input, textarea, select')].filter(each => !each.labels.length).length"
    assert page.run(unlabelled) == 0
    assert page.run("document.querySelectorAll('[aria-live=polite]').length") == 4


@pytest.mark.parametrize("tab", ["answer", "texts", "tasks"])
def test_a_small_screen_does_not_scroll_sideways(page, tab):
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    try:
        fill(page, context="Pneumono" * 40)
        submit(page, "answer")
        submit(page, "classify")
        page.run(f"document.querySelector('#tab-{tab}').click()")
        assert page.run("document.documentElement.scrollWidth") == 360
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


COLOURS = """(() => {
  const shown = [...document.querySelectorAll('body *')].filter(each => each.checkVisibility() &&
    [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim()));
  const ground = (each) => { while (each && getComputedStyle(each).backgroundColor == 'rgba(0, 0, 0, 0)')
    each = each.parentElement; return each ? getComputedStyle(each).backgroundColor : 'rgb(255, 255, 255)'; };
  return shown.map(each => [each.outerHTML.slice(0, 60), getComputedStyle(each).color, ground(each)]);
})()"""


def luminance(colour: str) -> float:
    """Return the relative luminance of "rgb(1, 2, 3)", as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    """WCAG AA: 4.5 to 1 for text."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        for form, tab in (("answer", "answer"), ("classify", "texts")):
            page.run(f"document.querySelector('#tab-{tab}').click()")
            submit(page, form)
            for element, ink, ground in page.run(COLOURS):
                dark, light = sorted(luminance(colour) for colour in (ink, ground))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (element, ink, ground)
    finally:
        page.call("Emulation.setEmulatedMedia", features=[])


def test_models_that_are_absent_or_dead_are_named(browser):
    for triton, url in serve(["bert_qa"]):
        browser.open(url)
        browser.wait("document.querySelector('#health').dataset.state == 'ok'")
        hidden = "[...document.forms].map(form => [form.id, form.querySelector('.notice').hidden])"
        assert browser.run(hidden) == [["answer", True], ["classify", False], ["compare", False], ["task", False]]
        assert browser.run("document.querySelector('#compare fieldset').disabled")
        triton.load_seconds, triton.dead["bert_qa"] = 5.0, "bert_qa_0_0"
        browser.wait("document.querySelector('#health-text').textContent == 'restarting bert_qa'")
        assert submit(browser, "answer") == "bert_qa is being restarted, try again shortly"
    browser.wait("document.querySelector('#health-text').textContent == 'the server is not reachable'")
    assert submit(browser, "answer") == "The server is not reachable."
    browser.console.clear()

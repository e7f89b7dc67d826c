"""The chat page in a real Chromium, driven over its DevTools socket, against a scripted node."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from coordinator.answer import AnswerEvent, AnswerRequest, Delta, Resumed, Route, Routed, Waiting
from node.gateway.debate import Debate, Turn
from node.gateway.fake import PUBLIC, FixedView, Speech
from node.gateway.trial import (
    BOB,
    CAROL,
    SPECIALIST,
    TRIAL_CONFIG,
    Trial,
    TrialKeys,
    open_trial,
    swarm_view,
)
from node.state import SwarmReaders
from protocols.errors import Busy, PeerLost
from protocols.ids import SpecialistId
from protocols.messages.ask import Chat

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: apt-get install chromium (Debian) brings it"
    ),
]


class Browser:
    """One page of a Chromium; `problems` collects what its console complains of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self.problems: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """The result of a DevTools command; events on the way are taken note of."""
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            message = json.loads(await self._socket.receive_str(timeout=30))
            if message.get("id") == self._count:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._take(message)

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(str(event["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["params"]["type"] in ("error", "warning"):
                self.problems.append(str(event["params"]["args"]))
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.problems.append(event["params"]["entry"]["text"])

    async def evaluate(self, expression: str) -> Any:
        """The value of a script's expression, awaited if it is a promise."""
        result = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_until(self, expression: str) -> None:
        """Until the page makes `expression` true; fails after 10 s."""
        await self.evaluate(
            "new Promise((resolve, reject) => {"
            f"  const look = () => {{ try {{ if ({expression}) resolve(true); }} catch {{}} }};"
            "  setInterval(look, 10); look();"
            f"  setTimeout(() => reject(new Error({json.dumps(expression)} + ' never came true: '"
            "    + document.body.innerText)), 10000);"
            "})"
        )

    async def open(self, url: str, width: int = 1_000, scheme: str = "light") -> None:
        """Load a page for a screen of `width` pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=720,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        await self.call("Page.navigate", url=url)
        await self.wait_until("document.readyState === 'complete' && find('privacy').textContent")

    async def press(self, key: str, code: int, text: str = "", modifiers: int = 0) -> None:
        """One key, down and up."""
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    async def say(self, text: str) -> None:
        """Type a message where the cursor is and press Enter."""
        await self.call("Input.insertText", text=text)
        await self.press("Enter", 13, "\r")

    async def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Chromium that all tests here share; gone at the end."""
    assert CHROMIUM is not None
    profile = tmp_path_factory.mktemp("profile")
    silent = subprocess.DEVNULL
    process = subprocess.Popen(  # noqa: S603
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=silent,
        stderr=silent,
    )
    try:
        yield f"127.0.0.1:{_port_of(process, profile / 'DevToolsActivePort')}"
    finally:
        process.kill()
        process.wait()


def _port_of(process: "subprocess.Popen[bytes]", told: Path) -> int:
    """Chromium writes it to a file as soon as it listens."""
    until = time.monotonic() + 30
    while not (told.exists() and told.read_text().count("\n")):
        assert process.poll() is None, "Chromium did not start"
        assert time.monotonic() < until, "Chromium does not listen"
        time.sleep(0.02)
    return int(told.read_text().split()[0])


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A new page, which has had no complaint at the end. Each test's node is an origin of its own,
    so nothing that a page keeps is seen by another test.
    """
    async with aiohttp.ClientSession() as http:
        async with http.put(f"http://{chromium}/json/new?about:blank") as response:
            target = await response.json()
        async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Browser(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            yield page
            assert page.problems == []
        async with http.get(f"http://{chromium}/json/close/{target['id']}") as response:
            assert response.ok


class Script:
    """What the node does for a prompt: the prompt's first word says."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.is_mended = False

    async def __call__(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The script."""
        assert isinstance(request.prompt, Chat)
        word = request.prompt.messages[-1].content.split()[0]
        specialist = SpecialistId(SPECIALIST)
        if word == "busy" and not self.is_mended:
            raise Busy("Everybody is busy.", 1)
        yield Routed(specialist, BOB, "the prompt is near to mathematics")
        yield Waiting(BOB, "prefill")
        yield Delta(BOB, 0, (1,), "<b>Not bold</b> & <script>problem()</script> \U0001f308")
        if word == "wait":
            await self.go.acquire()
        if word == "break" and not self.is_mended:
            raise PeerLost("bob-3090 left.")
        if word == "resume":
            yield Resumed(BOB, CAROL, 1, "peer_lost")
        yield Delta(CAROL, 1, (2,), "\nand more")
        yield Speech(BOB, (), specialist=specialist).end(2)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def trial(script: Script) -> AsyncIterator[Trial]:
    async with open_trial(script) as opened:
        yield opened


LAST = "log.lastElementChild"


async def test_a_chat_streams_and_says_who_answered(trial: Trial, browser: Browser) -> None:
    await browser.open(trial.gateway.url)
    options = await browser.evaluate("Array.from(model.options, (one) => one.value)")
    assert options == ["auto", "smollm2-135m", SPECIALIST]
    await browser.say("hello there")
    await browser.wait_until(f"{LAST}.querySelector('.who').textContent.includes('tok/s')")
    assert await browser.evaluate(f"{LAST}.querySelector('.text').textContent") == (
        "<b>Not bold</b> & <script>problem()</script> \U0001f308\nand more"
    )
    assert await browser.evaluate(f"{LAST}.querySelectorAll('b, script').length") == 0
    assert await browser.evaluate(f"{LAST}.querySelector('.who').textContent") == (
        "lab/math-135m on bob-3090 · first token 125 ms · 20.0 tok/s · 2 tokens"
    )
    assert await browser.evaluate("document.activeElement.id") == "prompt"
    await browser.say("again")
    await browser.wait_until("log.querySelectorAll('article').length === 4 && !running")
    prompt = trial.source.asked[1].prompt
    assert isinstance(prompt, Chat)
    assert [message.role for message in prompt.messages] == ["user", "assistant", "user"]
    assert all(url.startswith((trial.gateway.url, "data:")) for url in browser.requests)


async def test_a_resumed_answer_says_so(trial: Trial, browser: Browser) -> None:
    await browser.open(trial.gateway.url)
    await browser.say("resume")
    await browser.wait_until(f"{LAST}.querySelector('.who').textContent.includes('tok/s')")
    who = await browser.evaluate(f"{LAST}.querySelector('.who').textContent")
    assert "on bob-3090 · continued by carol · first token" in who


@pytest.mark.slow
async def test_several_specialists_are_told_apart(browser: Browser) -> None:
    debate = Debate(
        [
            Turn("medicine", BOB, ["70", " <mg>"]),
            Turn("lab/law", CAROL, ["Yes", "."], "its peer is gone"),
        ]
    )
    async with open_trial(debate) as trial:
        await browser.open(trial.gateway.url)
        await browser.say("how much, and may I?")
        await browser.wait_until("!running && log.querySelectorAll('article').length === 2")
        turns = f"Array.from({LAST}.querySelectorAll('.turn'), (one) => one.textContent)"
        assert await browser.evaluate(turns) == [
            "-- medicine (step 1 of 2) --",
            "-- lab/law (step 2 of 2) --",
            "(lab/law said no more: its peer is gone)",
        ]
        text = await browser.evaluate(f"{LAST}.querySelector('.text').textContent")
        assert "70 <mg>" in text
        assert await browser.evaluate(f"{LAST}.querySelector('.who').textContent") == (
            "medicine on bob-3090 1.0 s · lab/law on carol 1.0 s · first token 250 ms · 1.1 tok/s "
            "· 4 tokens · in part · 2 of 5 specialists at work"
        )
        await browser.say("again")
        await browser.wait_until("!running && log.querySelectorAll('article').length === 4")
        prompt = trial.source.asked[1].prompt
        assert isinstance(prompt, Chat)
        assert prompt.messages[1].content.split() == ["70", "<mg>", "Yes."]


@pytest.mark.parametrize("how", ["button", "escape"])
async def test_stopping_ends_the_answer_at_the_source(
    trial: Trial, browser: Browser, how: str
) -> None:
    await browser.open(trial.gateway.url)
    await browser.say("wait")
    await browser.wait_until(f"{LAST}.querySelector('.text').textContent.includes('Not bold')")
    assert trial.source.open == 1
    if how == "button":
        await browser.evaluate("find('stop').click()")
    else:
        await browser.press("Escape", 27)
    async with asyncio.timeout(10):
        await trial.source.cut.wait()
    await browser.wait_until("!running")
    assert await browser.evaluate(f"{LAST}.querySelector('.who').textContent") == "Stopped."


@pytest.mark.parametrize(
    ("word", "message"), [("busy", "Everybody is busy."), ("break", "bob-3090 left.")]
)
async def test_errors_are_inline_and_can_be_tried_again(
    trial: Trial, browser: Browser, script: Script, word: str, message: str
) -> None:
    await browser.open(trial.gateway.url)
    await browser.say(word)
    await browser.wait_until(f"{LAST}.querySelector('[role=alert]')")
    assert await browser.evaluate(f"{LAST}.querySelector('.error span').textContent") == message
    browser.problems.clear()  # Chromium itself reports a 429 as an error
    script.is_mended = True
    await browser.evaluate(f"{LAST}.querySelector('.error button').click()")
    await browser.wait_until(f"{LAST}.querySelector('.text').textContent.endsWith('more')")
    assert await browser.evaluate("log.querySelectorAll('article').length") == 2
    assert trial.source.asked[0].prompt == trial.source.asked[1].prompt


async def test_it_says_who_can_read_the_prompt(trial: Trial, browser: Browser) -> None:
    await browser.open(trial.gateway.url)
    privacy = "find('privacy').textContent"
    assert "this machine" in await browser.evaluate(privacy)
    choose = "find('{}').value = '{}'; find('{}').onchange(); " + privacy
    text = await browser.evaluate(choose.format("model", SPECIALIST, "model"))
    assert text == (
        "The node that answers can read your prompt: any of bob-3090, carol. "
        "Any peer that serves your prompt can read it."
    )
    text = await browser.evaluate(choose.format("route", "trusted", "route"))
    assert text == "Only this machine, and nodes that its owner trusts, can read your prompt."
    text = await browser.evaluate(choose.format("route", "local", "route"))
    assert text == "Only this machine reads your prompt."
    await browser.say("hello")
    await browser.wait_until("!running && log.querySelectorAll('article').length === 2")
    asked = trial.source.asked[0]
    assert (asked.route, asked.model) == (Route.LOCAL, SPECIALIST)


async def test_the_nodes_own_route_and_swarm_are_the_pages(
    browser: Browser, script: Script
) -> None:
    view = swarm_view()
    view.swarm_readers = (
        SwarmReaders("lab", "private", True, "Members of lab that serve it can read it."),
        msgspec.structs.replace(PUBLIC, is_current=False),
    )
    config = replace(TRIAL_CONFIG, route=Route.TRUSTED)
    async with open_trial(script, view, config) as trial:
        await browser.open(trial.gateway.url)
        assert await browser.evaluate("[route.value, swarm.hidden, swarm.value]") == [
            "trusted",
            False,
            "lab",
        ]
        privacy = await browser.evaluate("find('privacy').textContent")
        assert privacy.endswith("Members of lab that serve it can read it.")
        await browser.evaluate("swarm.value = 'public'; swarm.onchange()")
        await browser.wait_until("find('privacy').textContent.includes('its owner trusts')")
        await browser.say("hello")
        await browser.wait_until("!running && log.querySelectorAll('article').length === 2")
    asked = trial.source.asked[0]
    assert (asked.route, asked.swarm) == (Route.TRUSTED, "public")
    assert "lab" in view.asked_swarms


async def test_a_key_is_asked_for_and_kept_for_this_tab(browser: Browser, script: Script) -> None:
    keys = TrialKeys({"dslm-right": "me"})
    config = replace(TRIAL_CONFIG, require_key=True)
    async with open_trial(script, config=config, keys=keys) as trial:
        await browser.call("Page.navigate", url=trial.gateway.url)
        for secret in ("dslm-wrong", " dslm-right "):
            await browser.wait_until(
                "!find('unlock').hidden && document.activeElement === key && find('send').disabled"
            )
            await browser.call("Input.insertText", text=secret)
            await browser.press("Enter", 13, "\r")
        await browser.wait_until("find('unlock').hidden && !find('send').disabled")
        assert await browser.evaluate("[key.value, localStorage.length, document.cookie]") == [
            "",
            0,
            "",
        ]
        await browser.say("hello")
        await browser.wait_until("!running && log.querySelectorAll('article').length === 2")
        await browser.open(trial.gateway.url)  # In the same tab the key is still there.
        assert await browser.evaluate("find('unlock').hidden") is True
    assert len(trial.source.asked) == 1
    assert all("dslm-" not in url for url in browser.requests)
    assert browser.problems
    assert all("401" in problem for problem in browser.problems), browser.problems
    browser.problems.clear()  # Chromium itself reports a 401 as an error.


async def test_a_new_chat_forgets_and_enter_with_shift_does_not_send(
    trial: Trial, browser: Browser
) -> None:
    await browser.open(trial.gateway.url)
    await browser.say("wait")
    await browser.wait_until("running && log.querySelector('.text')")
    await browser.evaluate("find('new').click()")
    async with asyncio.timeout(10):
        await trial.source.cut.wait()
    assert await browser.evaluate("log.children.length") == 0
    await browser.call("Input.insertText", text="one")
    await browser.press("Enter", 13, "\r", modifiers=8)
    await browser.say("two")
    await browser.wait_until("!running && log.querySelectorAll('article').length === 2")
    prompt = trial.source.asked[1].prompt
    assert isinstance(prompt, Chat)
    assert [message.content for message in prompt.messages] == ["one\ntwo"]


async def test_an_empty_swarm_is_explained_and_a_first_specialist_is_noticed(
    browser: Browser, script: Script
) -> None:
    view = FixedView()
    async with open_trial(script, view) as trial:
        await browser.call("Page.navigate", url=trial.gateway.url)
        await browser.wait_until("find('hint').textContent.includes('dslm join')")
        assert await browser.evaluate("find('send').disabled") is True
        known = swarm_view()
        view.known_peers, view.known_specialists = known.known_peers, known.known_specialists
        await browser.wait_until("!find('send').disabled && model.options.length === 3")


async def test_a_node_that_is_gone_is_explained(browser: Browser, script: Script) -> None:
    async with open_trial(script) as trial:
        await browser.open(trial.gateway.url)
    await browser.say("hello")
    await browser.wait_until(f"{LAST}.querySelector('[role=alert]')")
    text = await browser.evaluate(f"{LAST}.querySelector('.error span').textContent")
    assert "cannot be reached" in text
    browser.problems.clear()  # Chromium reports the refused connection


@pytest.mark.parametrize(
    ("width", "scheme"), [(1_000, "light"), (1_000, "dark"), (360, "light"), (360, "dark")]
)
async def test_it_fits_the_screen_and_the_night(
    trial: Trial, browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    await browser.open(trial.gateway.url, width, scheme)
    await browser.say("resume " + "averyveryverylongwordwithoutanyspaces" * 4)
    await browser.wait_until("!running && log.querySelectorAll('article').length === 2")
    await browser.say("break")
    await browser.wait_until(f"{LAST}.querySelector('[role=alert]')")
    assert await browser.evaluate("document.documentElement.scrollWidth") <= width
    assert await browser.evaluate("document.documentElement.scrollHeight") <= 720
    colour = await browser.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in colour[4:-1].split(","))
    assert (brightness < 200) == (scheme == "dark")
    for name in ("model", "route", "new", "prompt", "send"):
        box = await browser.evaluate(f"find('{name}').getBoundingClientRect().toJSON()")
        assert box["left"] >= 0
        assert box["right"] <= width
        assert box["height"] >= 36, name
    await browser.screenshot(tmp_path / f"{width}-{scheme}.png")

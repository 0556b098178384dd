"""Pages in a browser."""

import re
from pathlib import Path
from typing import Any

PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


class Opened:
    """A page in a browser, with what the browser complained of and asked for."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light", size: dict[str, int] = DESK) -> None:
        self.context = browser.new_context(color_scheme=scheme, viewport=size)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def fetched(self) -> list[str]:
        """The addresses that were asked for, without what the page itself holds."""
        return [url for url in self.requests if not url.startswith("data:")]

    def is_dark(self) -> bool:
        """Whether the background is."""
        background = self.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", background))) < 200

    def violations(self, *rules: str) -> list[tuple[str, list[str]]]:
        """What axe finds: by default contrast of every text, names of every control, order of headings and more."""
        from axe_playwright_python.sync_playwright import Axe

        options: dict[str, list[str]] = {"resultTypes": ["violations"]}  # to list what is right takes most of the time
        if rules:
            options["runOnly"] = list(rules)
        found = Axe().run(self.page, options=options).response["violations"]
        return [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]

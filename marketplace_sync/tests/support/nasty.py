"""A catalogue that would act if a page let it, and the means to see that it doesn't: for any page that shows skills.

`skills()` and `categories()` are records as the marketplace would list them, each text of theirs a trap;
`put_in_mirror` writes them as rows. `Watch` looks over a browser's page: no trap may have sprung, and none may stand
in it as an element or an address.
"""

from collections.abc import Iterator
from typing import Any

from django.utils import timezone
from playwright.async_api import Page

from marketplace_sync.models import Category, Skill

# A host that is nobody's (RFC 6761): a request to it has followed text of the marketplace.
TRACKER = "https://tracker.invalid"
# Every element that a trap would make has this attribute; every script sets `window.sprung`.
MARK = "data-nasty"

TRAPS = (
    f"<script {MARK}>window.sprung=1;alert(1)</script>",
    f'<img {MARK} src="{TRACKER}/x.png" onerror="window.sprung=1">',
    f'"><svg {MARK} onload="window.sprung=1">',
    f"' {MARK} autofocus onfocus='window.sprung=1' x='",
    f'" {MARK} autofocus onfocus="window.sprung=1" x="',
    f"</title><script {MARK}>window.sprung=1</script>",
    f"</textarea></code></pre><script {MARK}>window.sprung=1</script>",
    f"--><script {MARK}>window.sprung=1</script>",
    f"<b {MARK} x-data x-init='window.sprung=1'>alpine</b>",
    f'<b {MARK} hx-get="{TRACKER}/htmx" hx-trigger="load">htmx</b>',
    f'<iframe {MARK} srcdoc="<script>parent.sprung=1</script>"></iframe>',
    f'<meta {MARK} http-equiv="refresh" content="0;url={TRACKER}/">',
    f'<base {MARK} href="{TRACKER}/"><form {MARK} action="{TRACKER}/"><input name=a>',
    f'<a {MARK} href="javascript:window.sprung=1">press</a>',
    f"<style {MARK}>body{{background:url({TRACKER}/css)}}</style>",
    "javascript:window.sprung=1",
    "data:text/html,<script>parent.sprung=1</script>",
    f"{TRACKER}/pixel.png",
    f"//{TRACKER.removeprefix('https://')}/pixel.png",
    "{{ 7|add:7 }}{% debug %}${window.sprung=1}",
    "`${window.sprung=1}`",
    "\u202egnp.exe\u2066 turned",
    "a\tb\nc\r\n\x1b[31md\x07",
    "𝕿𝖊𝖘𝖙 ﷽ Z̸̡̢a̴l͠g̷o " + "́" * 50,
)
# Addresses of icons and documents: none may become a link or a picture unless it is http or https.
ADDRESSES = (
    "javascript:window.sprung=1", " javascript:window.sprung=1", "JaVaScRiPt:window.sprung=1",
    "java\tscript:window.sprung=1", "data:text/html,<script>parent.sprung=1</script>",
    "data:image/svg+xml,<svg onload='window.sprung=1'/>", "vbscript:msgbox(1)", "file:///etc/passwd",
    f"{TRACKER}/pixel.png", f"//{TRACKER.removeprefix('https://')}/pixel.png", '" onload="window.sprung=1',
)  # fmt: skip


def categories() -> Iterator[dict[str, Any]]:
    """One a trap, and one an address."""
    for number, trap in enumerate(TRAPS):
        address = ADDRESSES[number % len(ADDRESSES)]
        yield {"name": f"{number} {trap}"[:255], "description": trap, "icon_url": address, "skill_count": number}


def skills() -> Iterator[dict[str, Any]]:
    """One a trap, which stands in each of its texts, its id included."""
    for number, (trap, category) in enumerate(zip(TRAPS, categories(), strict=True)):
        address = ADDRESSES[number % len(ADDRESSES)]
        yield {
            "skill_id": f"{number}/{trap}"[:255], "name": trap, "description": trap, "version": trap[:255],
            "code": f"</code></pre>{trap}", "command": trap, "python_packages": [trap], "npm_packages": [trap],
            "tags": [trap, f"tag {trap}"], "category": category["name"], "average_rating": 4.5, "rating_count": 3,
            "metadata": {"author": trap, "documentation_url": address, trap: [trap]}, "icon_url": address,
            "updated_at": "2026-01-15T10:30:00Z",
        }  # fmt: skip


def put_in_mirror() -> None:
    """Write all of them as the mirror's rows."""
    now = timezone.now()
    rows = {made["name"]: Category.objects.create(**made) for made in categories()}
    for record in skills():
        extra = {"icon_url": record.pop("icon_url")}
        del record["updated_at"]
        Skill.objects.create(**record | {"category": rows[record["category"]], "extra": extra, "synced_at": now})


class Watch:
    """Notes what a browser's page does that it should not. Made before the first page is loaded."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.faults: list[str] = []
        page.on("dialog", self._dialog)
        page.on("console", lambda line: self._note(f"console {line.type}: {line.text}", line.type == "error"))
        page.on("pageerror", lambda fault: self._note(f"script fault: {fault}"))
        page.on("request", lambda asked: self._note(f"asked for {asked.url}", TRACKER in asked.url))

    async def begin(self) -> None:
        """From the next page on violations of the policy are noted too, also those that the console leaves out."""
        await self._page.expose_function("noteViolation", self._note)
        await self._page.add_init_script(
            "document.addEventListener('securitypolicyviolation', violation => noteViolation("
            "`${violation.violatedDirective} ${violation.blockedURI} ${violation.sourceFile}:${violation.lineNumber}`))"
        )

    async def look(self) -> None:
        """Fails when the page that is shown does anything that the marketplace wrote, or breaks its own policy."""
        found = await self._page.evaluate(
            """([mark, tracker]) => ({
                sprung: window.sprung ?? null,
                elements: [...document.querySelectorAll(`[${mark}]`)].map(it => it.outerHTML),
                addresses: [...document.querySelectorAll('[href], [src], [action], [formaction], [srcset], [poster]')]
                    .flatMap(it => ['href', 'src', 'action', 'formaction', 'srcset', 'poster'].map(it.getAttribute, it))
                    .filter(it => it !== null)
                    .map(it => it.replace(/[\\t\\n\\r]/g, '').trim().toLowerCase())
                    .filter(it => /^(javascript|data|vbscript|file):/.test(it) || it.includes(tracker)
                        && !it.startsWith('/') && !it.startsWith('?')),
            })""",
            [MARK, TRACKER.removeprefix("https:")],
        )
        assert found == {"sprung": None, "elements": [], "addresses": []}, self._page.url
        assert self.faults == [], self._page.url

    def _note(self, what: str, wrong: bool = True) -> None:
        if wrong:
            self.faults.append(f"{self._page.url}: {what}")

    async def _dialog(self, dialog: Any) -> None:
        self._note(f"dialog: {dialog.message}")
        await dialog.dismiss()

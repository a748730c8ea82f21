"""Make the first records of a marketplace: from files, or by a seeded generator."""

import gzip
import random
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from marketplace_sync.simulator.marketplace import Message, Record
from marketplace_sync.simulator.wire import SimulatorError, read_time, write_time


class Catalog(NamedTuple):
    """The first records. `reserve`: skills that are not published yet, for `Churn` to create."""

    skills: list[Record]
    categories: list[Record]
    reserve: list[Record]


def load_skills(path: Path) -> list[Record]:
    """Read the skills of a JSON lines file. Raises `SimulatorError`, naming file and line."""
    return _records(path, "skill_id")


def load_categories(path: Path) -> list[Record]:
    """Read the categories of a JSON lines file. Raises `SimulatorError`, naming file and line."""
    return _records(path, "name")


def derive_categories(skills: Iterable[Record], known: Iterable[str] = ()) -> list[Record]:
    """Return a bare category for each that skills name and `known` does not have, with the time of its first skill."""
    listed = set(known)
    found: dict[str, Record] = {}
    for skill in skills:
        name = skill.get("category")
        if not isinstance(name, str) or not name or name in listed:
            continue
        seen = skill.get("created_at") or skill.get("updated_at")
        category = found.setdefault(name, bare_category(name, seen))
        category["skill_count"] += 1
        if seen and (category["created_at"] is None or seen < category["created_at"]):
            category |= {"created_at": seen, "updated_at": seen}
    return list(found.values())


def bare_category(name: str, seen: str | None) -> Record:
    return {
        "name": name, "description": "", "skill_count": 0, "icon_url": None, "created_at": seen, "updated_at": seen,
    }  # fmt: skip


def read_lines(path: Path) -> Iterator[tuple[int, bytes, Message]]:
    """Yield line number, bytes and object of every line of a JSON lines file, plain or `.gz`; skip blank lines.

    Raises `SimulatorError`, naming file and line.
    """
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                raw = line.strip()
                if not raw:
                    continue
                try:
                    value = msgspec.json.decode(raw)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise SimulatorError(f"{path}, line {number}: not JSON ({error}).") from None
                if not isinstance(value, dict):
                    raise SimulatorError(f"{path}, line {number}: not a JSON object.")
                yield number, raw, value
    except (OSError, EOFError) as error:
        raise SimulatorError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _records(path: Path, key: str) -> list[Record]:
    found: dict[str, Record] = {}
    for number, _, record in read_lines(path):
        value = record.get(key)
        if not isinstance(value, str) or not value:
            raise SimulatorError(f"{path}, line {number}: {key} is missing or not a text.")
        if value in found:
            raise SimulatorError(f"{path}, line {number}: {key} {value!r} is in an earlier line too.")
        if record.get("updated_at") is not None and read_time(record["updated_at"]) is None:
            raise SimulatorError(f"{path}, line {number}: updated_at is not an ISO 8601 time.")
        found[value] = record
    return list(found.values())


_CATEGORIES = {
    "automation": "Chores that need no person",
    "communication": "Mail, chat and calls",
    "data": "Tables, queries and charts",
    "development": "Code, reviews and releases",
    "documents": "Reading, writing and converting",
    "media": "Pictures, sound and film",
    "research": "Finding things out",
    "数据分析": "表格、查询和图表",
}
_VERBS = ("Send", "Fetch", "Summarise", "Translate", "Plan", "Check", "Convert", "Archive", "Compare", "Watch")
_NOUNS = ("Email", "Calendar", "Invoice", "Report", "Web Page", "Spreadsheet", "Photo", "Log File", "Feed", "Ticket")
_SENTENCES = (
    "Does one thing and reports when it can't.",
    "Reads the input, checks it, and writes what changed.",
    "Works offline; asks before it spends money.",
    "Liest die Eingabe, prüft sie und schreibt nur, was sich geändert hat.",
    "Fragt nach, bevor etwas gelöscht wird – auch größere Mengen.",
    "Lit l'entrée, la vérifie et n'écrit que ce qui a changé.",
    "Funciona sin conexión y avisa cuando algo falla.",
    "Aceita ficheiros até 20 MB; não guarda cópias.",
    "入力を検証し、変更点だけを書き出します。",
    "支持批量处理，失败时自动重试，并给出清晰的错误信息。",
    "يتحقق من المدخلات قبل الكتابة.",
    "Проверяет данные и повторяет попытку при сбое.",
    'Quotes "like these", back\\slashes and <tags> are kept as they are. 🚀',
)
_PACKAGES = ("pandas>=1.3", "requests==2.32.3", "beautifulsoup4", "openpyxl>=3.1", "pillow", "feedparser~=6.0")
_NPM = ("axios@^1.7.0", "cheerio", "left-pad@1.3.0", "zod@^3")
_TAGS = ("email", "calendar", "pdf", "web", "ocr", "翻译", "größe", "batch", "offline", "beta")
_COMMANDS = {"python": "python", "bash": "bash", "node": "javascript"}


def describe(rng: random.Random) -> str:
    """Return one to three sentences, in any of several languages."""
    return " ".join(rng.sample(_SENTENCES, rng.randint(1, 3)))


def generate(count: int, seed: int, now: datetime) -> Catalog:
    """Generate `count` skills of 1 to 2 KB, and a reserve of 5 % (at least 20), the same for the same seed.

    A skill depends on the seed and its number alone, so a larger catalogue begins with the smaller one.
    Creation times are spread over the hour before `now`; `updated_at` lies within the last `count` microseconds, so
    that everything from a restarted simulator is newer than what it sent before.
    """
    skills = [_skill(number, seed, now, count) for number in range(count)]
    reserve = [_skill(number, seed, now, count) for number in range(count, count + max(20, count // 20))]
    counts: dict[str, int] = dict.fromkeys(_CATEGORIES, 0)
    for skill in skills:
        counts[skill["category"]] += 1
    stamp = write_time(now)
    categories: list[Record] = [
        {
            "name": name, "description": text, "skill_count": counts[name],
            "icon_url": f"https://icons.example/{number}.svg", "created_at": stamp, "updated_at": stamp,
        }
        for number, (name, text) in enumerate(_CATEGORIES.items())
    ]  # fmt: skip
    return Catalog(skills, categories, reserve)


def _skill(number: int, seed: int, now: datetime, count: int) -> Record:
    rng = random.Random(f"skill {seed} {number}")
    name = f"{rng.choice(_VERBS)} {rng.choice(_NOUNS)} {number + 1}"
    command = rng.choice([*_COMMANDS])
    rated = rng.randint(0, 400) if rng.random() < 0.85 else 0
    # Older skills come first in the catalogue, within the hour.
    age = timedelta(minutes=60) * (1 - (number + rng.random()) / (count + max(20, count // 20)))
    return {
        "skill_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "name": name,
        "description": describe(rng),
        "version": f"{rng.randint(0, 4)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}",
        "code": _code(rng, name, _COMMANDS[command]),
        "command": command,
        "python_packages": rng.sample(_PACKAGES, rng.randint(0, 3)) if command == "python" else [],
        "npm_packages": rng.sample(_NPM, rng.randint(0, 2)) if command == "node" else [],
        "tags": rng.sample(_TAGS, rng.randint(0, 4)),
        "metadata": {"author": f"author-{rng.randint(1, 60)}", "documentation_url": f"https://docs.example/{number}"},
        "category": rng.choice([*_CATEGORIES]),
        "average_rating": round(rng.uniform(1, 5), 2) if rated else None,
        "rating_count": rated,
        "created_at": write_time(now - age),
        "updated_at": write_time(now - timedelta(microseconds=max(1, count - number))),
    }


def _code(rng: random.Random, name: str, language: str) -> str:
    target = rng.randint(500, 1_200)
    lines = [f"# {name}", "", f"```{language}"]
    while sum(map(len, lines)) < target:
        value = rng.choice(_NOUNS).lower().replace(" ", "_")
        lines.append(f"{value}_{rng.randint(1, 99)} = load({value!r}, limit={rng.randint(1, 500)})")
        if rng.random() < 0.3:
            lines.append(f"# {rng.choice(_SENTENCES)}")
    return "\n".join([*lines, "```", ""])

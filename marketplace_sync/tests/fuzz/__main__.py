"""`python -m marketplace_sync.tests.fuzz --minutes N --seed S`: try millions of inputs on the decoders.

Guided by coverage where atheris is installed (requirements/fuzz.txt), else by the grammar alone. Every
finding becomes a file, and the run goes on; the exit status is 1 when there was one.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NoReturn

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None:
    # Before anything else imports them: their coverage guides the fuzzer.
    with atheris.instrument_imports(include=["marketplace_sync.protocol"]):
        from marketplace_sync.tests.fuzz.checks import check_where_it_fits
else:
    from marketplace_sync.tests.fuzz.checks import check_where_it_fits
from marketplace_sync.tests.fuzz.grammar import spoiled, starters

CORPUS = Path(__file__).resolve().parent / "corpus"
MAX_INPUT_BYTES = 4_096
# Processor time for one input of that size in all decoders; the slowest took 30 ms.
MAX_SECONDS_AN_INPUT = 1.0
# One input must not make the process grow by more than this.
MAX_GROWTH_MIB = 64
MUTATED_BYTES_SHARE = 0.4
_LOOK_EVERY = 1_000


class Run:
    """One run of the fuzzer. It counts, keeps findings, and ends the process."""

    def __init__(self, seed: int, minutes: float, inputs: int, findings: Path, record: Path | None) -> None:
        self.seed, self.inputs, self.findings, self.record = seed, inputs, findings, record
        self.rng = random.Random(seed)
        self.began = time.monotonic()
        self.ends = self.began + minutes * 60
        self.tried = 0
        self.found: Counter[str] = Counter()
        self.slowest = 0.0
        self.grown_to = _resident_mib()

    def one(self, data: bytes) -> None:
        """Try one input. Keep a finding and go on."""
        before = time.process_time()
        try:
            check_where_it_fits(data)
        except Exception as error:  # noqa: BLE001 - every exception is a finding
            self._find(data, f"{type(error).__name__}: {error}", traceback.extract_tb(error.__traceback__)[-1])
        seconds = time.process_time() - before
        self.slowest = max(self.slowest, seconds)
        if seconds > MAX_SECONDS_AN_INPUT:
            self._find(data, f"took {seconds:.1f} s of processor time", None)
        grown = _resident_mib()
        if grown > self.grown_to + MAX_GROWTH_MIB and self.tried:
            self._find(data, f"grew the process from {self.grown_to:.0f} to {grown:.0f} MiB", None)
        self.grown_to = max(self.grown_to, grown)
        self.tried += 1
        if self.tried >= self.inputs or (not self.tried % _LOOK_EVERY and time.monotonic() >= self.ends):
            self.leave()

    def mutate(self, data: bytes, most: int, _seed: int) -> bytes:
        """Return the next input, made of one of the corpus."""
        if self.rng.random() < MUTATED_BYTES_SHARE:
            return atheris.Mutate(data, most)
        return spoiled(data, self.rng)[:most]

    def leave(self) -> NoReturn:
        """Print the result and end the process; atheris has no other way to end."""
        seconds = time.monotonic() - self.began
        result = {
            "engine": "atheris" if atheris is not None else "grammar", "seed": self.seed, "inputs": self.tried,
            "seconds": round(seconds), "inputs_a_second": round(self.tried / seconds), "findings": len(self.found),
            "slowest_input_seconds": round(self.slowest, 3), "memory_mib": round(self.grown_to),
        }  # fmt: skip
        text = json.dumps(result, indent=1)
        if self.record is not None:
            self.record.write_text(text + "\n")
        sys.stdout.write(text + "\n")
        for finding, times in self.found.most_common():
            sys.stdout.write(f"{times} times {finding}\n")
        sys.stdout.flush()
        os._exit(1 if self.found else 0)

    def _find(self, data: bytes, what: str, frame: traceback.FrameSummary | None) -> None:
        where = f" at {Path(frame.filename).name}:{frame.lineno}" if frame else ""
        name = hashlib.blake2b((what[:40] + where).encode("utf-8", "replace"), digest_size=6).hexdigest()
        known = self.findings / name
        self.found[f"{what[:300]!a}{where}: {known}"] += 1
        if not known.exists() or known.stat().st_size > len(data):
            self.findings.mkdir(parents=True, exist_ok=True)
            known.write_bytes(data)


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _by_grammar(run: Run) -> NoReturn:
    known = [*starters(), *(path.read_bytes() for path in sorted(CORPUS.iterdir()) if path.is_file())]
    while True:
        data = run.rng.choice(known)
        for _ in range(run.rng.randint(1, 4)):
            data = spoiled(data, run.rng)
        run.one(data[:MAX_INPUT_BYTES])


def _by_coverage(run: Run, corpus: Path) -> NoReturn:
    options = [f"-seed={run.seed}", f"-max_len={MAX_INPUT_BYTES}", "-print_final_stats=1", "-rss_limit_mb=2048",
               "-verbosity=0"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus), str(CORPUS)], run.one, custom_mutator=run.mutate)
    atheris.Fuzz()
    raise SystemExit(1)


def main() -> NoReturn:
    asked = argparse.ArgumentParser(prog="python -m marketplace_sync.tests.fuzz", description=__doc__)
    asked.add_argument("--minutes", type=float, default=5.0)
    asked.add_argument("--inputs", type=int, default=10_000_000, help="end after so many at the latest")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="a file for each finding goes here")
    asked.add_argument("--corpus", type=Path, help="where new coverage is collected; a folder that is thrown away")
    asked.add_argument("--record", type=Path, help="the figures of the run as JSON go here")
    options = asked.parse_args()
    run = Run(options.seed, options.minutes, options.inputs, options.findings, options.record)
    if atheris is None:
        _by_grammar(run)
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(starters()):
        (corpus / f"starter-{number}").write_bytes(data)
    _by_coverage(run, corpus)


if __name__ == "__main__":
    main()

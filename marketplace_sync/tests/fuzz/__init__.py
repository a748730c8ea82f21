"""A fuzzer for everything that reads what the marketplace sends: `python -m marketplace_sync.tests.fuzz`.

`checks` says what must hold whatever arrives, `grammar` makes inputs worth trying, `__main__` runs them by the
million, led by coverage where atheris is installed. What it finds is kept in `tests/corpus/` and run in the suite.
"""

"""A fuzzer for everything that reads what the marketplace sends: `python -m marketplace_sync.tests.fuzz`.

`checks` has the properties of every input, `grammar` makes inputs worth trying, `__main__` runs millions of them,
guided by coverage where atheris is installed. Its findings are kept in `tests/corpus/` and run in the suite.
"""

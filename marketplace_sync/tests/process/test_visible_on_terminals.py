"""Text of the marketplace on a terminal, as commands print it."""

import pytest

from marketplace_sync.tests.support.processes import Environment, mirrored


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sqlite")  # the text comes from the marketplace, not from the database
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
async def test_dry_run_and_comparison_print_no_terminal_controls(
    program_environment: Environment, encoding: str
) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\ncreate forged\u202eé日\x9b1m"
    escaped = "<U+001B>]0;owned<U+0007><U+001B>[2J<U+000A>create forged<U+202E>é日<U+009B>1m"
    # Read as UTF-8, whatever it is.
    expected = escaped.encode(encoding, "backslashreplace").decode(errors="replace")
    async with mirrored(program_environment) as (server, _, start):
        server.market.put_skill({"skill_id": hostile, "name": hostile}, announce=False)
        foreseen = await start.run("runsync", "--dry-run", PYTHONIOENCODING=encoding)
        assert foreseen.status == 0, foreseen.err
        assert f"create {expected}" in foreseen.out.splitlines()
        compared = await start.run("verifysync", PYTHONIOENCODING=encoding)
        assert compared.status == 1, compared.err
        assert f"  {expected}" in compared.out.splitlines()
        as_json = await start.run("verifysync", "--json", PYTHONIOENCODING=encoding)
        assert as_json.status == 1
        assert as_json.out.isascii()
        assert "\x1b" not in as_json.out

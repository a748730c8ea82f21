"""Limits of what is accepted from the marketplace, each with its reason."""

from datetime import timedelta

# The marketplace's own limit for a message; larger ones become dead letters.
MAX_MESSAGE_BYTES = 1_048_576
# The socket refuses (close code 1009) only this many times above it, so that a message a little
# over the limit costs a dead letter and not the connection.
HARD_LIMIT_FACTOR = 4

# Rows of one body. The marketplace sends 1,000 skills per page; a server that ignores the page size may send them all.
# A refused row takes some 600 bytes of memory and 10 µs to read.
MAX_ROWS = 100_000
# Commas and opening brackets of one body, counted before it is parsed: there are at most as many values, which take
# up to 200 bytes each. Without it 60 MiB of the smallest records became 1.3 GiB and blocked the reader for 25 s. An
# honest page of 1,000 skills has 30,000; 64 MiB of nothing but code have fewer than this.
MAX_BODY_MARKS = 3_000_000

# UUIDs are 36 characters; ids of other servers are paths or slugs. Indexed, so kept short of a B-tree page.
MAX_ID_CHARS = 255
# Shown in lists; the longest name in the known catalogue has 53. Indexed together with an id, and at four bytes
# a character both must fit into the 2,704 that PostgreSQL's B-tree takes of a row: one over it could not be written.
MAX_NAME_CHARS = 400
MAX_CATEGORY_CHARS = 255
MAX_VERSION_CHARS = 255
MAX_COMMAND_CHARS = 1_000
MAX_URL_CHARS = 2_000
# Packages or tags of one skill. More than this is an attack, not a skill.
MAX_LIST_ITEMS = 1_000
# JSON depth of a message. PostgreSQL and Python both go deeper; no honest record does.
MAX_DEPTH = 64
# Of counts. Every JSON reader, JavaScript's included, reads integers up to here exactly.
MAX_INTEGER = 2**53 - 1
# Of integers in `metadata` and unknown fields, which are stored as they were sent: real records have
# blockchain addresses (160 bits) and token amounts (256) as plain numbers. PostgreSQL's `jsonb` and
# Python's JSON keep these exactly; Python's stops at 4,300 digits.
MAX_FREE_INTEGER = 2**256 - 1
# A time further ahead of the server's own clock than this is treated as none: one bad record
# must not freeze a skill for years.
MAX_AHEAD = timedelta(hours=24)

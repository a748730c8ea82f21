"""A campaign of random troubles against the whole daemon: `python -m marketplace_sync.tests.chaos`.

`script` makes a run out of a seed, `world` has the processes, the network and the marketplace, `hands` do to them what
the script says, `eyes` look all the while whether what is shown is true, `judge` says what must hold in the end,
`report` makes the record and the table.
"""

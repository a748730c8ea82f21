"""The answers to failed requests: pages with a reason and links, JSON under `/api/`. Also the time limit of queries."""

"""What a browser gets when a request fails: pages with a reason and a way back, JSON under `/api/`."""

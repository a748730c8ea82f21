"""What the mirror costs, measured beside what people write instead. `make bench`, or one piece: see bench/README.md."""

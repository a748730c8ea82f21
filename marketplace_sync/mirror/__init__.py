"""Everything that writes the mirror. It knows the database, but neither sockets nor actors."""

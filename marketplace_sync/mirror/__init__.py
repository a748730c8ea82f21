"""All that writes the mirror. Knows the database, and neither sockets nor who asked."""

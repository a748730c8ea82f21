"""Write the mirror's tables, and read what the writing needs. Knows the database, but neither sockets nor actors."""

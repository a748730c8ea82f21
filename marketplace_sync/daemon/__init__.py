"""The daemon: the one place where sockets, engine and mirror are wired into tasks."""

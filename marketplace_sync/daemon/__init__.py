"""The daemon: tasks that connect the marketplace (`upstream`), the decisions (`engine`) and the tables (`mirror`)."""

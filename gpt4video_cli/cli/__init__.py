"""One file for each command; nothing else in the program imports this room."""

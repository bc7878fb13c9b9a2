"""The small model and the clips that ship with the program."""

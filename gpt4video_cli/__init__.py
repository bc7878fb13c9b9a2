"""gpt4video: a command-line video assistant that watches clips, talks about them and films new ones.

Importing this package costs nothing; read ``assistant.py`` first.
"""

__version__ = "0.1.0"

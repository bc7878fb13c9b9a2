"""A conversation as a document for people: Markdown with pictures beside it, or one page of HTML."""

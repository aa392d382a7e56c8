"""Which recordings a batch has: found in a folder or listed in a file, named, and recognised again."""

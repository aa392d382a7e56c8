"""The trajectory file: its schema, writer, reader, recovery, compression and statistics."""

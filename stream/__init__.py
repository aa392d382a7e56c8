"""Messages between the pipeline stages and their transport: lossless message links, monitor, commands, status."""

"""Messages and transport: what passes between the stages, and how nothing is lost on the way."""

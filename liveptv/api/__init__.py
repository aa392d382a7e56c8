"""The public Python interface, re-exported by `import liveptv`; docs/python.md shows it."""

"""The commands. Each is a function that typer reads; `lumbar.cli` lists them.

These modules are loaded for ``lumbar --help``: a command imports what it needs when it runs.
"""

"""``python -m llbook`` is the command ``llbook``."""

from llbook.cli import main

main()

"""``python -m iceshelves`` is the command ``iceshelves``."""

from iceshelves.cli.main import main

main()

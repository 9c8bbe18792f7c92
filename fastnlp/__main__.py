"""``python -m fastnlp`` is the command ``fastnlp``."""

from fastnlp.cli import main

if __name__ == "__main__":
    main()

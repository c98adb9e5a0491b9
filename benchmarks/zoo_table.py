"""The documents' table of shipped experts, from the scores that are shipped with them.

python -m benchmarks.zoo_table            # print it
python -m benchmarks.zoo_table --write    # put it into README.md, between its two lines
"""

import argparse
from pathlib import Path

from actor_mimic.report.zoo import markdown_table, replace_table
from actor_mimic.storage.shipped import read_shipped, shipped_names

DOCUMENTS = (Path(__file__).parents[1] / "README.md",)


def main() -> None:
    """Prints or writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into the documents")
    options = parser.parse_args()
    table = markdown_table([read_shipped(name) for name in shipped_names()])
    if not options.write:
        print(table)
        return
    for path in DOCUMENTS:
        path.write_text(replace_table(path.read_text(), table))
        print(f"{path.name}: written")


if __name__ == "__main__":
    main()

"""Methods on the tasks of the bench: what their policies earn, and what that took.

    python experiments/bench.py                                  every method per act, resumable
    python experiments/bench.py --tasks twenty --methods bc mc   some of it, or methods per token and turn
    python experiments/bench.py --table                          merge what is there: bench.json, bench.md

It is `turnwise bench` with its defaults, and its table. The logs name their acts. All settings are the
algorithms' own, chosen without these returns. With one seed an interval is over conversations, with several
over seeds (Student's). CPU-s are of the training alone.
"""

from __future__ import annotations

import json

from common import add_choice, add_seeds, options, parse, story_of, write_page, write_results

from turnwise.recipes.bench import FILE, bench, lines_of, table_of
from turnwise.recipes.settings.bench import METHODS, PER_ACT, TASKS, BenchSettings


def main() -> None:
    """Fill the cells that are missing, and merge."""
    parser = options(__doc__, "bench")
    add_seeds(parser, 0)
    add_choice(parser, "--tasks", TASKS, "tasks of the table")
    add_choice(parser, "--methods", METHODS, "methods of the table; by default those per act")
    parser.set_defaults(methods=list(PER_ACT))
    a = parse(parser)
    asked = BenchSettings(a.runs, tuple(a.tasks), tuple(a.methods), tuple(a.seeds), workers=0)
    if a.table:
        known = json.loads((a.runs / FILE).read_text("utf-8")) if (a.runs / FILE).exists() else vars(asked)
        found = table_of(a.runs, {k: known[k] for k in ("conversations", "talks", "episodes")})
    else:
        found = bench(asked, print)
    page = [f"# Methods on tasks\n\n{story_of(__doc__)}\n", *lines_of(found)]
    write_page(a.runs, "bench", "\n".join(page))
    write_results(a.runs, "bench", found)


if __name__ == "__main__":
    main()

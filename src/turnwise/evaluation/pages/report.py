"""The report page of a run, a solved problem or a comparison of runs: which kind of page a folder has.

What is in the folder is shown; what is not is named, with what its absence means. From a number on a page
to where it is computed: the template that shows it names the function that makes its values; that function
reads the number from the run's file, or computes it. `templates/` has a folder for logs, for partners, for
feedback (reward models and replies), for agents, for worlds, for solutions and for playbooks; what several of
them use lies outside these.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from turnwise.evaluation.pages import bench, compared, improved
from turnwise.evaluation.pages.acts import acts_page
from turnwise.evaluation.pages.agents import agent_page
from turnwise.evaluation.pages.estimates import with_estimate
from turnwise.evaluation.pages.layout import Page, render
from turnwise.evaluation.pages.logs import comparison_page, logs_page
from turnwise.evaluation.pages.partners import partner_page
from turnwise.evaluation.pages.playbook.view import picture_of, playbook_page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.replies import reply_page
from turnwise.evaluation.pages.reward_models import reward_page
from turnwise.evaluation.pages.run_files import RUN_FILES, RunFiles, read_run
from turnwise.evaluation.pages.solutions.solved import solution_page
from turnwise.evaluation.pages.steps import with_step
from turnwise.evaluation.pages.training import training_view
from turnwise.evaluation.pages.worlds import world_page
from turnwise.run.errors import InputError
from turnwise.run.folder import write_text


def write_report(folder: Path) -> Path:
    """Write `report.html` into a folder of a run, a solved problem or a comparison; its path. What
    `turnwise compare` found is `compare.html`.

    A playbook also becomes a picture that stands alone, `playbook.svg`. Each file is replaced whole or not at
    all. Raises InputError for a folder that is none of these, and for a file that is there but cannot be
    read, naming file and line.
    """
    path = folder / (compared.PAGE if (folder / compared.FILE).is_file() else "report.html")
    write_text(path, render(page_of(folder)))
    if (folder / "playbook.json").is_file():
        write_text(folder / "playbook.svg", picture_of(folder))
    return path


def page_of(folder: Path) -> Page:
    """The page of a folder, by the document in it or by the family that its run declares."""
    if (folder / compared.FILE).is_file():
        return compared.compared_page(folder)
    if (folder / improved.FILE).is_file():
        return improved.improved_page(folder)
    if (folder / bench.FILE).is_file():
        return bench.bench_page(folder)
    if (folder / "comparison.json").is_file():
        return comparison_page(folder)
    if (folder / "solution.json").is_file():
        return solution_page(folder)
    if (folder / "playbook.json").is_file():
        run = read_run(folder, folder.resolve().name)
        return with_estimate(playbook_page(run), run)
    if not any((folder / name).is_file() for name in RUN_FILES):
        raise InputError(
            f"{folder}: neither a run (config.yaml), a solved problem (solution.json), a playbook "
            "(playbook.json) nor a comparison (comparison.json)"
        )
    # Resolved, so that `turnwise report --run .` still has a name to show.
    run = read_run(folder, folder.resolve().name)
    return with_step(with_estimate(PAGES[run.algorithm.family](run), run), run)


def plain_page(run: RunFiles) -> Page:
    """A run that does not say what kind it is: its curves and its settings, and no guess."""
    source = next(run.folder / name for name in RUN_FILES if (run.folder / name).is_file())
    shown = {"id": "r0", "title": run.name, "folder": run.folder.name, "there": True, **training_view(run)}
    values = {
        "title": run.name,
        "aim": None,
        "facts": facts_of_runs([run], source),
        "runs": [shown],
    }
    return Page(("plain.html", "curves.html"), "words.html", values, [run])


def plan_page(run: RunFiles) -> Page:
    """A plan in an environment. One that converses has a playbook for a page, once its run has ended."""
    return world_page(run) if "env" in (run.config or {}) else plain_page(run)


PAGES: dict[str | None, Callable[[RunFiles], Page]] = {
    "logs": logs_page,
    "partners": partner_page,
    "codebooks": acts_page,
    "act_agents": logs_page,
    "plans": plan_page,
    "talkers": logs_page,
    "conversations": logs_page,
    "preferences": reply_page,
    "replies": reply_page,
    "reward": reward_page,
    "acting": agent_page,
    None: plain_page,
}
"""The page of a run, by the family of its algorithm as the run declares it; None if it declares none."""

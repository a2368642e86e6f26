"""Changes of a scenario, one function per route. A change applies to every part that its place names. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from proctor_api.catalog.faults import bad, unknown
from proctor_api.catalog.scenarios.shape import (
    Installer,
    NewOwner,
    Project,
    Score,
    SomePart,
    TrustIndicator,
    Version,
    read,
    read_all,
    read_names,
)
from proctor_common.errors import Code, ProctorError

Found = TypeVar("Found")


class Action(StrEnum):
    """What to do with a list: add the members of the body, replace the list by them, or remove them by name."""

    ADD = "add"
    REPLACE = "replace"
    REMOVE = "remove"


Edit = Callable[[list[Installer]], list[Installer]]
"""Changes a scenario's installers in place and returns them. Raises 404 or 409."""


@dataclass(frozen=True, slots=True)
class PlaceInScenario:
    """A place in a scenario; None or empty: not given."""

    installer: str | None = None
    version: str | None = None
    project: str | None = None

    def require(self, *names: str) -> None:
        """Raises 400 unless all of these are given."""
        for name in names:
            if not getattr(self, name):
                raise bad(f"the query must name the {name}: ?{'&'.join(f'{one}=<name>' for one in names)}")

    def installers(self, installers: Sequence[Installer]) -> list[Installer]:
        """The installers with this name. Raises 404."""
        return _there([one for one in installers if one.installer == self.installer], "installer", self.installer)

    def versions(self, installers: Sequence[Installer]) -> list[Version]:
        """The versions with this name. Raises 404."""
        found = [one for installer in self.installers(installers) for one in installer.versions]
        return _there([one for one in found if one.version == self.version], "version", self.version)

    def projects(self, installers: Sequence[Installer]) -> list[Project]:
        """The projects with this name. Raises 404."""
        found = [one for version in self.versions(installers) for one in version.projects]
        return _there([one for one in found if one.project == self.project], "project", self.project)


def add_score(place: PlaceInScenario, body: Any) -> Edit:
    """Append a score to a project."""
    place.require("installer", "version", "project")
    score = read(Score, body)

    def edit(installers: list[Installer]) -> list[Installer]:
        for project in place.projects(installers):
            project.scores.append(score)
        return installers

    return edit


def add_trust_indicator(place: PlaceInScenario, body: Any) -> Edit:
    """Append a trust indicator to a project."""
    place.require("installer", "version", "project")
    indicator = read(TrustIndicator, body)

    def edit(installers: list[Installer]) -> list[Installer]:
        for project in place.projects(installers):
            project.trust_indicators.append(indicator)
        return installers

    return edit


def change_owner(place: PlaceInScenario, body: Any) -> Edit:
    """Give a version another owner."""
    place.require("installer", "version")
    owner = read(NewOwner, body).owner

    def edit(installers: list[Installer]) -> list[Installer]:
        for version in place.versions(installers):
            version.owner = owner
        return installers

    return edit


def change_customs(place: PlaceInScenario, body: Any, action: Action) -> Edit:
    """Change a project's own test cases: a list of names, each kept once."""
    place.require("installer", "version", "project")
    given = read_names(body)

    def changed(customs: list[str]) -> list[str]:
        if action is Action.REMOVE:
            return [name for name in customs if name not in given]
        return list(dict.fromkeys([*customs, *given] if action is Action.ADD else given))

    def edit(installers: list[Installer]) -> list[Installer]:
        for project in place.projects(installers):
            project.customs = changed(project.customs)
        return installers

    return edit


def change_projects(place: PlaceInScenario, body: Any, action: Action) -> Edit:
    """Change the projects of a version."""
    place.require("installer", "version")
    change = _change(Project, body, action)

    def edit(installers: list[Installer]) -> list[Installer]:
        for version in place.versions(installers):
            version.projects = change(version.projects)
        return installers

    return edit


def change_versions(place: PlaceInScenario, body: Any, action: Action) -> Edit:
    """Change the versions of an installer."""
    place.require("installer")
    change = _change(Version, body, action)

    def edit(installers: list[Installer]) -> list[Installer]:
        for installer in place.installers(installers):
            installer.versions = change(installer.versions)
        return installers

    return edit


def change_installers(body: Any, action: Action) -> Edit:
    """Change the installers of a scenario."""
    return _change(Installer, body, action)


def _change(kind: type[SomePart], body: Any, action: Action) -> Callable[[list[SomePart]], list[SomePart]]:
    """Read the body (raises 400, 409). Returns a function that changes a list (raises 409)."""
    if action is Action.REMOVE:
        gone = set(read_names(body))
        return lambda parts: [part for part in parts if part.key not in gone]
    given = read_all(kind, body)

    def changed(parts: list[SomePart]) -> list[SomePart]:
        if action is Action.REPLACE:
            return given
        known = {part.key for part in parts}
        for part in given:
            if part.key in known:
                raise ProctorError(Code.CONFLICT, f"the {kind.KEY} exists already: {part.key}")
        return [*parts, *given]

    return changed


def _there(found: list[Found], what: str, name: str | None) -> list[Found]:
    if not found:
        raise unknown(what, name or "")
    return found

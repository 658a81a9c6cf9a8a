"""Models: artifacts of the type "model", each version with an id of its own and a state that people give it."""

from collections.abc import Iterable

from dropoff import arguments
from dropoff.answers import Changed, LinkList, VersionReport
from dropoff.asking import ask
from dropoff.conditions import conditions, quoted
from dropoff.errors import NotStoredError
from dropoff.finding import Moment, asked, pages, seconds
from dropoff.questions import Links, Role, RunId, SetState, Subject, VersionState
from dropoff.reading import StoredVersion, open_version
from dropoff.settings import Settings

MODEL = "model"


class StoredModel(StoredVersion):
    """A version of a model. Made by `find_models`, `open_model`, and whatever finds a version of that type."""

    def __init__(self, settings: Settings, report: VersionReport) -> None:
        super().__init__(settings, report)
        self.id = report.job
        """Its own, wherever it is copied to; `open_model` finds it by that."""
        self.framework = str(report.metadata.get("framework", ""))
        self.state = report.state
        """As it was when it was found."""

    def __repr__(self) -> str:
        return f"<StoredModel {self.project}/{self.name}:v{self.version} ({self.state})>"

    def publish(self) -> None:
        """Say that others may rely on it: no rule of what to keep removes it."""
        self._set_state(VersionState.PUBLISHED)

    def archive(self) -> None:
        """Say that it is past: `find_models` passes over it unless it is asked for such."""
        self._set_state(VersionState.ARCHIVED)

    def restore(self) -> None:
        """Take back that it was published or archived."""
        self._set_state(VersionState.DRAFT)

    def _set_state(self, state: VersionState) -> None:
        said = SetState(
            store=self._id.store, project=self.project, artifact=self.name, which=f"v{self.version}", state=state
        )
        ask(self._settings, said, Changed)
        self.state = state


def find_models(
    project: str = "",
    name: str = "",
    *,
    framework: str = "",
    tags: Iterable[str] = (),
    where: str | Iterable[str] = (),
    states: Iterable[VersionState | str] = (VersionState.DRAFT, VersionState.PUBLISHED),
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    store: str | None = None,
    settings: Settings | None = None,
) -> list[StoredModel]:
    """Return models, the newest first; archived ones only where `states` names that.

    The other arguments are as for `find_versions`.
    """
    wanted = conditions(where) + conditions([f"framework={quoted(framework)}"] if framework else ())
    settings, find = asked(
        Subject.VERSION, store, settings, project=project, name=name, artifact_type=MODEL, tags=arguments.tags(tags),
        where=wanted, states=tuple(arguments.choice(VersionState, one, "a state") for one in states),
        since=seconds(since), until=seconds(until),
    )  # fmt: skip
    return [StoredModel(settings, report) for page in pages(settings, find, limit) for report in page.versions]


def open_model(id: str, *, store: str | None = None, settings: Settings | None = None) -> StoredModel:  # noqa: A002  # its name
    """Look a model up by its id, in all projects of a store; raises NotStoredError."""
    settings, find = asked(Subject.VERSION, store, settings, artifact_type=MODEL, job=id)
    for page in pages(settings, find):
        for report in page.versions:
            return StoredModel(settings, report)
    raise NotStoredError(
        f"unable to find the model {id!r} in {find.store}: it is not there",
        hint="`dropoff find --kind version --type model --json` lists them, each with its job's id",
    )


def models_of(settings: Settings, run: RunId) -> dict[str, list[StoredModel]]:
    """Return the models that a run used, under "input", and made, under "output", in the order of their making."""
    found: dict[str, list[StoredModel]] = {Role.INPUT.value: [], Role.OUTPUT.value: []}
    for link in ask(settings, Links(run), LinkList).links:
        version = open_version(
            f"{link.artifact}:v{link.version}", project=link.project, store=run.store, settings=settings
        )
        if isinstance(version, StoredModel):
            found[link.role.value].append(version)
    for models in found.values():
        models.sort(key=lambda one: one.created)
    return found

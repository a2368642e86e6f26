"""Templates and conditions of a plan: compiles Heat's maps and looks up every name that they read. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.spelling import hint
from proctor_controller.domain.expressions.cost import MAX_WORK
from proctor_controller.domain.expressions.evaluate import (
    ExpressionFault,
    fill,
    references_of,
    unknown_functions,
    work_of,
)
from proctor_controller.domain.expressions.names import CALLED, CALLED_ON, MACROS, ROOTS
from proctor_controller.domain.expressions.source import Called, Reference
from proctor_controller.domain.expressions.text import OPENING, split_text
from proctor_controller.domain.plan.conditions import strange_kind
from proctor_controller.domain.plan.hot import ATTRIBUTES, BadHot, compile_hot, is_hot
from proctor_controller.domain.plan.model import Parameter, Path
from proctor_controller.domain.plan.reader import UNKNOWN, Faults, Reader, Unknown

BEFORE = frozenset({"params", "steps", "hosts", "volumes", "matrix", "host", "run"})
"""Roots that may be read before a step has run."""
AFTER = BEFORE | {"self", "result"}
OF_RUN = frozenset({"params", "steps", "hosts", "volumes", "run"})
MAX_EARLY_WORK = 4 * MAX_WORK
"""Units of work for all expressions together that are evaluated at submission."""
_OF_RUN_MEMBERS = frozenset({"id", "name", "url", "parent"})
_OF_HOST = frozenset({"host", "labels", "address"})
_OF_VOLUME = frozenset({"id", "name", "type", "size_gb", "path"})
_OF_SELF = frozenset({"result", "outputs", "host"})


@dataclass(frozen=True, slots=True)
class Names:
    """What the expressions at one place may read."""

    roots: frozenset[str]
    hidden: bool = False
    """Hidden values too; whether the field may have them is checked later with the method's schema."""
    matrix: frozenset[str] | None = frozenset()
    """Keys of the matrix; None if they cannot be known."""
    step: str | None = None
    """The step that the place belongs to."""
    own: frozenset[str] | None = None
    """The outputs that ``self`` has by then; None if they cannot be known."""


@dataclass(slots=True)
class Known:
    """What the document declares."""

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    """Of the parameters, as far as known."""
    outputs: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """Of each step; None if their names are not known here."""
    roles: Mapping[str, Any] = field(default_factory=dict)
    volumes: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    """Roots whose declarations cannot be read, which is a fault already; names below them may exist."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Number of hosts or volumes by ``hosts.NAME`` and ``volumes.NAME``, as far as known."""
    asked: list[tuple[Path, str, str]] = field(default_factory=list)
    """Outputs that are read of steps whose output names are not known here: location, step, output."""


class Templates(Reader):
    """Reads templates. ``refs`` collects the steps that they name."""

    def __init__(self, faults: Faults, known: Known) -> None:
        super().__init__(faults)
        self.known = known
        self._early_work = 0

    def early(self, value: Any, path: Path) -> Any:
        """The value evaluated now, with parameters only; UNKNOWN if one of them is unknown."""
        template = self.early_template(value, path, Names(frozenset({"params"})))
        return UNKNOWN if isinstance(template, Unknown) else self.fill_early(template, path)

    def early_template(self, value: Any, path: Path, names: Names) -> Any:
        """The value's template; UNKNOWN if it has a fault."""
        before = len(self.faults)
        template = self.template(value, path, names, set()) if _is_template(value) else value
        return template if len(self.faults) == before else UNKNOWN

    def reads(self, template: Any, root: str) -> bool:
        """Whether a checked template reads something below a root."""
        return any(each.root == root for _, source in sources_in(template) for each in references_of(source))

    def fill_early(self, template: Any, path: Path, more: Mapping[str, Any] | None = None) -> Any:
        """A checked template filled in with the parameters and ``more``; UNKNOWN if a value is unknown."""
        if not _is_template(template):
            return template
        values = self.known.values
        if self._early_work > MAX_EARLY_WORK or not _reads(template) <= values.keys():
            # Measuring what an expression reads takes time as well, so too much work is reported once.
            return UNKNOWN
        scope = {"params": values, **(more or {})}
        try:
            self._early_work += sum(work_of(source, scope) for _, source in sources_in(template))
            if self._early_work > MAX_EARLY_WORK:
                self.fault(
                    path, "all that is filled in at submission would take too long: use fewer macros", "too_large"
                )
                return UNKNOWN
            return fill(template, scope)
        except ExpressionFault as fault:
            self.fault(path, str(fault), "expression")
            return UNKNOWN

    def template(self, value: Any, path: Path, names: Names, refs: set[str]) -> Any:
        """The value with Heat's maps compiled and its expressions checked."""
        if isinstance(value, str):
            if OPENING in value:
                self._check_text(value, path, names, refs)
            return value
        if is_hot(value):
            try:
                compiled = compile_hot(value)
            except (BadHot, ExpressionFault) as fault:
                below = fault.path if isinstance(fault, BadHot) else ()
                self.fault((*path, *below), str(fault), "expression")
                return ""
            self._check_text(compiled, path, names, refs)
            return compiled
        if isinstance(value, dict):
            return {key: self.template(part, (*path, key), names, refs) for key, part in value.items()}
        if isinstance(value, list):
            return [self.template(part, (*path, index), names, refs) for index, part in enumerate(value)]
        return value

    def source(
        self,
        value: Any,
        path: Path,
        names: Names,
        refs: set[str],
        cells: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | None:
        """A condition: an expression, with or without its brackets, or just true or false. ``cells``: of the step's
        matrix, where they are known.
        """
        if isinstance(value, bool):
            return "true" if value else "false"
        if is_hot(value):
            value = self.template(value, path, names, refs)
        if not isinstance(value, str) or not value.strip():
            self.fault(path, "must be an expression")
            return None
        source: str | None = value.strip()
        if OPENING in value:
            try:
                pieces = split_text(value.strip())
            except ExpressionFault as fault:
                self.fault(path, str(fault), "expression")
                return None
            source = pieces[0].source if len(pieces) == 1 else None
            if source is None:
                self.fault(path, "must be one expression; the brackets may be left out", "expression")
                return None
        assert source is not None
        before = len(self.faults)
        self._check_source(source, path, names, refs)
        if len(self.faults) == before and (kind := strange_kind(source, self.known.parameters, cells)) is not None:
            said = f"can never be a condition: it is {kind}, and never true or false"
            self.fault(path, f"{said} (at 1 of the expression {source[:200]})", "expression")
        return source

    def _check_text(self, text: str, path: Path, names: Names, refs: set[str]) -> None:
        try:
            pieces = split_text(text)
        except ExpressionFault as fault:
            self.fault(path, str(fault), "expression")
            return
        for piece in pieces:
            if piece.source is not None:
                self._check_source(piece.source, path, names, refs)

    def _check_source(self, source: str, path: Path, names: Names, refs: set[str]) -> None:
        if self.faults.is_full:
            return
        try:
            found = references_of(source)
        except ExpressionFault as fault:
            self.fault(path, str(fault), "expression")
            return
        for called in unknown_functions(source):
            said = f"{_no_function(called)} (at {called.position} of the expression {source[:200]})"
            self.fault(path, said, "unknown_name")
        for reference in found:
            why = self._why_not(reference, names)
            if why is not None:
                message, code = why
                self.fault(path, f"{message} (at {reference.position} of the expression {source[:200]})", code)
                if reference.dashed is not None and code == "expression":
                    # The part after the dash was meant to be part of the name.
                    return
            member = reference.member or ""
            if reference.root != "steps" or member not in self.known.outputs or member == names.step:
                continue
            # Add an edge even if the step lacks what is read, so that a circle is reported as well.
            refs.add(member)
            if why is None and self.known.outputs[member] is None and reference.path[2:3] == ("outputs",):
                self.known.asked += [(path, member, name) for name in reference.path[3:4]]

    def _why_not(self, reference: Reference, names: Names) -> tuple[str, str] | None:
        """The fault of a reference, and its code; None if it has none."""
        root = reference.root
        if root not in names.roots and not (root == "secrets" and names.hidden):
            if root == "secrets":
                return "secrets are read in env and in the method's secret fields only", "hidden"
            if root in ROOTS:
                return f"{root} cannot be read here, only {', '.join(sorted(names.roots))}", "unknown_name"
            return f"there is no name {root[:60]!r}{hint(root, names.roots)}", "unknown_name"
        return None if root in self.known.unread else self._why_not_below(reference, names)

    def _why_not_below(self, reference: Reference, names: Names) -> tuple[str, str] | None:
        match reference.root:
            case "params":
                return self._why_not_param(reference, names)
            case "steps":
                return self._why_not_step(reference, names)
            case "hosts":
                return _unless(reference, self.known.roles, "role") or self._why_not_item(reference, _OF_HOST)
            case "volumes":
                return _unless(reference, self.known.volumes, "volume") or self._why_not_item(reference, _OF_VOLUME)
            case "secrets":
                return _unless(reference, self.known.secrets, "secret")
            case "matrix":
                return _unless(reference, names.matrix, "name in the matrix") if names.matrix is not None else None
            case "run":
                return _unless(reference, _OF_RUN_MEMBERS, "member of run") if reference.member else None
            case "self":
                return _why_not_self(reference, names) if reference.member else None
        return None

    def _why_not_item(self, reference: Reference, members: frozenset[str]) -> tuple[str, str] | None:
        """The fault of a reference to one of the hosts of a role, or of the volumes of a name."""
        name = ".".join(reference.path[:2])
        if len(reference.path) > 2:
            return f"{name} is a list: write {name}[0].{reference.path[2][:60]}", "unknown_name"
        size = self.known.sizes.get(name)
        if reference.index is not None and size is not None and reference.index >= size:
            return f"there is no {name}[{reference.index}]: the last one is {name}[{size - 1}]", "unknown_name"
        if reference.item is not None and reference.item not in members:
            near = hint(reference.item, members)
            return f"{name}[{reference.index}] has no {reference.item[:60]!r}{near}", "unknown_name"
        return None

    def _why_not_param(self, reference: Reference, names: Names) -> tuple[str, str] | None:
        why = _unless(reference, self.known.parameters, "parameter")
        if why is None and not names.hidden and self.known.parameters[reference.path[1]].hidden:
            return f"the parameter {reference.path[1]} is hidden: it is read in env and in secret fields only", "hidden"
        return why

    def _why_not_step(self, reference: Reference, names: Names) -> tuple[str, str] | None:
        known = self.known.outputs
        if reference.dashed is not None and len(reference.path) == 2:
            name = reference.dashed
            return f'steps.{name} is a subtraction: write steps["{name}"]', "expression"
        if (why := _unless(reference, known, "step")) is not None:
            return why
        step = reference.path[1]
        if step == names.step:
            return "a step cannot read what it has not come to itself", "cycle"
        if len(reference.path) < 3:
            return None
        if reference.path[2] not in ATTRIBUTES:
            near = hint(reference.path[2], ATTRIBUTES)
            return f"a step has no {reference.path[2][:60]!r}{near}", "unknown_name"
        outputs = known[step]
        if reference.path[2] == "outputs" and len(reference.path) > 3 and outputs is not None:
            name = reference.path[3]
            if name not in outputs:
                return f"the step {step} has no output {name[:60]!r}{hint(name, outputs)}", "unknown_name"
        return None


def _why_not_self(reference: Reference, names: Names) -> tuple[str, str] | None:
    why = _unless(reference, _OF_SELF, "member of self")
    if why is None and reference.path[1] == "outputs" and names.own is not None:
        for name in reference.path[2:3]:
            if name not in names.own:
                return f"the step has no output {name[:60]!r} by then{hint(name, names.own)}", "unknown_name"
    return why


def _no_function(called: Called) -> str:
    others = CALLED if called.on else CALLED_ON
    if called.name in others:
        how = f"write {called.name}(value)" if called.on else f"write value.{called.name}(…)"
        return f"the function {called.name} is not called so: {how}"
    return f"there is no function {called.name[:60]!r}{hint(called.name, CALLED_ON | MACROS if called.on else CALLED)}"


def _unless(reference: Reference, known: Any, what: str) -> tuple[str, str] | None:
    name = reference.member or ""
    if name in known:
        return None
    if reference.dashed is not None and reference.dashed in known:
        shown = f'{reference.root}["{reference.dashed}"]'
        return f"{reference.root}.{reference.dashed} is a subtraction: write {shown}", "expression"
    return f"there is no {what} {name[:60]!r}{hint(name, known)}", "unknown_name"


def _is_template(value: Any) -> bool:
    """Whether something in it has to be filled in (or unescaped)."""
    if isinstance(value, str):
        return OPENING in value
    if isinstance(value, dict):
        return is_hot(value) or any(map(_is_template, value.values()))
    return isinstance(value, list) and any(map(_is_template, value))


def _reads(template: Any) -> set[str]:
    """The parameters that a checked template reads."""
    return {
        reference.path[1]
        for _, source in sources_in(template)
        for reference in references_of(source)
        if reference.root == "params"
    }


def sources_in(template: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every expression in a template, with its location."""
    if isinstance(template, str):
        if OPENING in template:
            yield from ((path, piece.source) for piece in split_text(template) if piece.source is not None)
    elif isinstance(template, Mapping):
        for key, part in template.items():
            yield from sources_in(part, (*path, key))
    elif isinstance(template, list | tuple):
        for index, part in enumerate(template):
            yield from sources_in(part, (*path, index))


def hidden_leaves(template: Any, hidden: frozenset[str]) -> Iterator[tuple[Path, str]]:
    """Where a template reads a hidden parameter or a secret, and its name."""
    for path, source in sources_in(template):
        for reference in references_of(source):
            if reference.root == "secrets" or (reference.root == "params" and reference.member in hidden):
                yield path, dotted(list(reference.path[:2]))


def secrets_in(template: Any, known: Mapping[str, str]) -> list[str]:
    """The secrets that a template names, without those with faults."""
    try:
        found = {
            reference.path[1]
            for _, source in sources_in(template)
            for reference in references_of(source)
            if reference.root == "secrets"
        }
    except ExpressionFault:
        return []
    return sorted(found & known.keys())

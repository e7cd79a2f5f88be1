"""Conda files, read: what each line asks of conda or pip, and which lines cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from gpu_infer.errors import Finding

__all__ = ["CondaFile", "Package", "read_conda"]

_CONDA_LINE = re.compile(r"(?:[\w./-]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?P<rest>.*)")
_PIP_ONE_EQUALS = re.compile(r"[A-Za-z0-9_.\[\],-]+\s*=\s*[\d*]")
_PIP_FILE = re.compile(r"(-r|-c|-e|--requirement|--constraint|--editable)\b|\.{0,2}/|file:|.*\.(whl|tar\.gz|zip)$")


@dataclass(frozen=True, slots=True)
class Package:
    """One line of the file.

    Args:
        line: as it stands there.
        name: in the form that pip compares names in.
        where: which of the two installs it.
        versions: those that are asked for, empty for any; ``None`` where they cannot be told.
        extras: in brackets behind a pip name.
        build: the build string of a conda line.
    """

    line: str
    name: str
    where: Literal["conda", "pip"]
    versions: SpecifierSet | None
    extras: frozenset[str] = frozenset()
    build: str = ""

    @property
    def pinned(self) -> Version | None:
        """The one version (``1.12`` for ``1.12.*``) that is asked for; ``None`` for ``2.*`` too, which says little."""
        for specifier in self.versions or ():
            text = specifier.version.removesuffix(".*")
            if specifier.operator in ("==", "===") and ("." in text or text == specifier.version):
                try:
                    return Version(text)
                except InvalidVersion:
                    return None
        return None

    def stays_below(self, version: str) -> bool:
        """Whether only versions below that one will do."""
        if self.pinned is not None:
            return self.pinned < Version(version)
        return any(
            (operator == "<" and bound <= Version(version)) or (operator == "<=" and bound < Version(version))
            for operator, bound in self._bounds()
        )

    def starts_at(self, version: str) -> bool:
        """Whether no version below that one will do."""
        if self.pinned is not None:
            return self.pinned >= Version(version)
        return any(operator in (">=", ">") and bound >= Version(version) for operator, bound in self._bounds())

    def _bounds(self) -> Iterator[tuple[str, Version]]:
        """Lower and upper bounds; of ``~=1.2`` and ``==1.*`` both."""
        for specifier in self.versions or ():
            try:
                bound = Version(specifier.version.removesuffix(".*"))
            except InvalidVersion:
                continue
            if specifier.operator in ("~=", "=="):
                parts = bound.release[:-1] if specifier.operator == "~=" else bound.release
                yield ">=", bound
                yield "<", Version(".".join(str(part) for part in (*parts[:-1], parts[-1] + 1)))
            else:
                yield specifier.operator, bound


@dataclass(frozen=True, slots=True)
class CondaFile:
    """A conda file, read.

    Args:
        packages: of both sections.
        channels: in their order.
        options: lines of the pip section that are options.
        exported: whether it was written by ``conda env export`` on some machine.
        problems: what could not be read.
        gpu: whether the service is to run on a GPU.
        today: the day of the check.
    """

    packages: tuple[Package, ...] = ()
    channels: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    exported: bool = False
    problems: tuple[Finding, ...] = ()
    gpu: bool = True
    today: date = date.min

    def get(self, *names: str, where: str = "") -> Package | None:
        """The first package of one of these names."""
        return next((each for each in self.packages if each.name in names and where in ("", each.where)), None)

    @property
    def has_pip_section(self) -> bool:
        """Whether pip installs anything."""
        return bool(self.options) or any(each.where == "pip" for each in self.packages)


def read_conda(text: str) -> CondaFile:
    """Read a conda file; what cannot be read is among its problems."""
    import yaml

    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return CondaFile(problems=(_no_yaml(" ".join(str(error).split())),))
    if not isinstance(content, dict):
        return CondaFile(problems=(_no_yaml("it has no keys such as dependencies:"),))
    fields = cast("dict[str, Any]", content)
    dependencies: Any = fields.get("dependencies")
    if not isinstance(dependencies, list) or not dependencies:
        return CondaFile(problems=(_no_yaml("it has no list dependencies:"),))
    packages: list[Package] = []
    options: list[str] = []
    problems: list[Finding] = []
    for entry in cast("list[Any]", dependencies):
        if isinstance(entry, dict):
            _read_pip(cast("dict[str, Any]", entry), packages, options, problems)
        else:
            _read_conda_line(str(entry).strip(), packages, problems)
    channels: Any = fields.get("channels") or []
    return CondaFile(
        tuple(packages),
        tuple(str(channel) for channel in (cast("list[Any]", channels) if isinstance(channels, list) else [])),
        tuple(options),
        "prefix" in fields or any(each.build for each in packages if each.where == "conda"),
        tuple(problems),
    )


# --- inside -----------------------------------------------------------------------------------------------------------


def _no_yaml(why: str) -> Finding:
    fix = "A conda file has the lists channels: and dependencies:, the last of those a list pip:."
    return Finding("error", "conda-yaml", f"The conda file cannot be read: {why}.", fix)


def _read_conda_line(line: str, packages: list[Package], problems: list[Finding]) -> None:
    match = _CONDA_LINE.fullmatch(line)
    if match is None:
        problems.append(Finding("error", "conda-syntax", f"{line!r} is no package that conda can read."))
        return
    name, rest = match["name"], match["rest"].strip()
    if rest.startswith("[") and "=" not in rest:
        message = f"{line!r} stands in the conda section, and conda knows no extras in brackets."
        problems.append(Finding("error", "conda-syntax", message, f"Move it below pip: as {line!r}."))
        rest = ""
    version, build = _conda_version(rest)
    packages.append(Package(line, canonicalize_name(name), "conda", version, build=build))


def _conda_version(rest: str) -> tuple[SpecifierSet | None, str]:
    """For conda ``=1.12`` is what pip calls ``==1.12.*``; behind a second ``=`` stands the build."""
    match = re.fullmatch(r"(?P<operator>==?|)\s*(?P<version>\d[\w.+!*]*)(?:\s*=\s*|\s+|$)(?P<build>\S*)", rest)
    if match:
        fuzzy = match["operator"] != "==" and not match["version"].endswith("*") and not match["build"]
        text, build = f"=={match['version'].rstrip('.*')}", match["build"]
        text += ".*" if fuzzy or match["version"].endswith("*") else ""
    else:
        text, build = rest.replace(" ", ""), ""
    try:
        return SpecifierSet(text), build
    except InvalidSpecifier:
        return None, build


def _read_pip(entry: dict[str, Any], packages: list[Package], options: list[str], problems: list[Finding]) -> None:
    for key, lines in entry.items():
        if key != "pip" or not isinstance(lines, list):
            fix = "Below dependencies: stand packages, and one list pip:."
            problems.append(Finding("error", "conda-syntax", f"Nothing can be made of {key!r} there.", fix))
            continue
        for line in (str(each).split(" #")[0].strip() for each in cast("list[Any]", lines)):
            _read_pip_line(line, packages, options, problems)


def _read_pip_line(line: str, packages: list[Package], options: list[str], problems: list[Finding]) -> None:
    if _PIP_FILE.match(line):
        message = f"{line!r} names a file, and only the conda file itself travels to where the image is built."
        problems.append(Finding("error", "conda-local-file", message, "Write the packages into the conda file."))
        return
    if line.startswith("-"):
        options.append(line)
        return
    if re.match(r"(git|hg|svn|bzr)\+|https?:", line):
        return
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        mended = re.sub(r"\s*=\s*", "==", line, count=1)
        fix = f"Write {mended!r}." if _PIP_ONE_EQUALS.match(line) else ""
        why = "pip compares versions with two equals signs" if fix else "it is no requirement"
        problems.append(Finding("error", "conda-pip-syntax", f"pip cannot read {line!r}: {why}.", fix))
        match = re.match(r"[A-Za-z0-9_.-]+", line)
        if match:
            versions, _ = _conda_version(re.sub(r"^[^=]*", "", line))
            packages.append(Package(line, canonicalize_name(match[0]), "pip", versions))
        return
    name = canonicalize_name(requirement.name)
    extras = frozenset(extra.lower() for extra in requirement.extras)
    packages.append(Package(line, name, "pip", requirement.specifier, extras))

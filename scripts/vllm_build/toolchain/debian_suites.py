# SPDX-License-Identifier: Apache-2.0
"""The Debian suites of the channel's packages, and the package lists that apt reads for them."""

from __future__ import annotations

from dataclasses import dataclass

#: Base suites of releases. They do not change once released, so a lock of them stays valid.
SUITES = ("bullseye", "bookworm", "trixie")
#: Suites that replace versions: a lock of them needs an update when the mirror drops a version.
#: LLVM 22 for glibc 2.36 exists in the first only, ROCm 7.2 in the second only.
MOVING_SUITES = ("bookworm-security", "experimental")
#: The archive's components. A suite alone means main; "trixie/non-free" names another one.
COMPONENTS = ("main", "non-free")


@dataclass(frozen=True)
class ListGroup:
    """Package lists that apt reads together, in a state of their own.

    A mirror without one group goes on serving builds that need only the others.

    Attributes:
        name: names the group's folder.
        suites: the suites, as Debian calls them.
        component: the one component that is read.
    """

    name: str
    suites: tuple[str, ...]
    component: str

    @property
    def security(self) -> bool:
        """Whether the suites are in the security archive, which has an address of its own."""
        return all(suite.endswith("-security") for suite in self.suites)


_GROUPS = {
    **{component: ListGroup(component, SUITES, component) for component in COMPONENTS},
    **{suite: ListGroup(suite, (suite,), COMPONENTS[0]) for suite in MOVING_SUITES},
}
#: All groups, the usual one first.
GROUPS = tuple(_GROUPS.values())
MAIN = GROUPS[0]
#: Every spelling of a suite in ``sources.toml`` and in the lock.
SPELLINGS = (
    *SUITES,
    *(f"{suite}/{component}" for suite in SUITES for component in COMPONENTS[1:]),
    *MOVING_SUITES,
)


def split_suite(suite: str) -> tuple[str, str]:
    """Return release and component of a suite as ``sources.toml`` and the lock spell it."""
    release, _, component = suite.partition("/")
    return release, component or COMPONENTS[0]


def find_group(suite: str) -> ListGroup:
    """Return the lists that have ``suite``, spelled as in ``sources.toml``."""
    release, component = split_suite(suite)
    return _GROUPS[release if release in MOVING_SUITES else component]

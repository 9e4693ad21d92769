"""Run the tests of Perl's Minion against this server: over REST, or on its database.

Minion's tests make a schema of their own and a Minion on it, and change the database directly, to
let time pass. A copy of each test uses the existing schema and Minion instead.
"""

from __future__ import annotations

import re
from pathlib import Path

# From the first mention of the database to the Minion that works on it.
_OWN_SCHEMA = re.compile(
    r"^# Isolate tests\n.*?^(?P<minion>my \$minion = Minion->new|plugin Minion => \{)"
    r"\(?Pg => \$ENV\{TEST_ONLINE\}(?P<end>[)}]);\n[^\n]*search_path[^\n]*\n",
    re.MULTILINE | re.DOTALL,
)
_DROP_SCHEMA = re.compile(r"^\$pg->db->query\('DROP SCHEMA [^\n]*\n", re.MULTILINE)
# It takes all tables away, and makes those of Minion again, under the server's feet.
_MIGRATION = re.compile(
    r"^subtest 'Migrate up and down' => sub \{\n.*?^\};\n", re.MULTILINE | re.DOTALL
)
# It holds the lock by which Minions on one PostgreSQL agree who dispatches schedules.
_BLOCKER = re.compile(r"^  my \$blocker .*?^  undef \$blocker;\n", re.MULTILINE | re.DOTALL)


def adapt(source: str, *, rest: bool, postgresql: bool, tests: Path) -> str:
    """Return a test of Minion's, adapted to an existing queue.

    Args:
        source: The test.
        rest: Whether it uses REST; else it uses the database.
        postgresql: Whether the database is PostgreSQL.
        tests: Its folder.
    """
    backend = "MinionJudge->backend" if rest else "Pg => $ENV{TEST_ONLINE}"

    def on_what_is_there(found: re.Match[str]) -> str:
        opening = "(" if found["end"] == ")" else ""
        return f"use MinionJudge;\n{found['minion']}{opening}{backend}{found['end']};\n"

    adapted, count = _OWN_SCHEMA.subn(on_what_is_there, source)
    assert count == 1, "the test does not begin as expected"
    adapted, count = _DROP_SCHEMA.subn("", adapted)
    assert count == 1, "the test does not end as expected"
    adapted = adapted.replace("curfile->sibling('lib')->to_string", f"'{tests / 'lib'}'")
    if rest:
        adapted = adapted.replace("$minion->backend->pg", "MinionJudge->pg")
    if not postgresql:
        adapted = _BLOCKER.sub("", adapted)
    return _MIGRATION.sub("", adapted)

"""A part of a source, for one of several machines: ``2/8`` is the second of eight."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lumbar.cache.errors import InputError
from lumbar.cache.volumes import crc32c


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` of ``count`` parts of a source: a study's id alone decides its shard.

    So no study is ever in two shards, even if files come and go between their runs.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse ``i/n``, counted from 1; raise `InputError` for anything else."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise InputError(
                what="shard",
                where="--shard",
                got=text,
                expected="i/n with i from 1 to n, such as 1/8",
                cure="give each task of the array its own i, from 1",
            )
        return cls(number, count)

    def holds(self, study_id: str) -> bool:
        """Tell whether a study belongs to this shard."""
        return crc32c(study_id.encode()) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

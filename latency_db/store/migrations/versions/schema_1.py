"""The first schema: measurements and the four parts of their key. Databases were created with it."""

from __future__ import annotations

revision = "1"
down_revision = None

"""What every section of a job file is: frozen, and closed to keys that it does not know.

It does not know any of them.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

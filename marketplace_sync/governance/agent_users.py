"""Make the Django user of an agent, for any user model.

The model's manager is not used: its `create_user` may require arguments that no agent has.
"""

from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import NOT_PROVIDED, CharField, EmailField, Model, TextField, UniqueConstraint


def new_user(agent_name: str) -> Any:
    """Return a user for this agent, not saved yet. It has no password, so it cannot log in.

    The user name is `agent:NAME`; if the user name is an e-mail address, it is one that cannot receive mail. Other
    texts that must be unique get the same value.
    """
    model = get_user_model()
    user = model(**{field.name: _value(field, agent_name) for field in _identifying(model)})
    user.set_unusable_password()
    return user


def fields_without_value(model: type[Model]) -> list[str]:
    """Return the fields that a user of this model must have and `new_user` has no value for."""
    known = {"password", *(field.name for field in _identifying(model))}
    return [
        field.name
        for field in model._meta.concrete_fields
        if field.name not in known
        and not (field.null or field.primary_key or field.empty_strings_allowed)
        and field.default is NOT_PROVIDED
        and field.db_default is NOT_PROVIDED
        and not (getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False))
        and not field.generated
    ]


def _identifying(model: Any) -> Iterator[Any]:
    """Yield the text fields that must be unique: the user name, and all fields of a constraint on uniqueness."""
    names = {model.USERNAME_FIELD, *(field.name for field in model._meta.concrete_fields if field.unique)}
    names.update(name for group in model._meta.unique_together for name in group)
    for constraint in model._meta.constraints:
        if isinstance(constraint, UniqueConstraint):
            expressions: Any = constraint.expressions
            parts = [part for whole in expressions for part in whole.flatten()]
            names.update(constraint.fields, (part.name for part in parts if hasattr(part, "name")))
    for field in model._meta.concrete_fields:
        if field.name in names and isinstance(field, CharField | TextField) and not field.primary_key:
            yield field


def _value(field: Any, agent_name: str) -> str:
    return f"{agent_name}@agent.invalid" if isinstance(field, EmailField) else f"agent:{agent_name}"

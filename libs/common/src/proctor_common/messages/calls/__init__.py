"""The api's requests to the controllers: a module for each noun, with its requests and operations."""

from importlib import import_module
from pkgutil import iter_modules

from proctor_common.messages.calls.operation import AnyOperation, Operation

OPERATIONS: dict[str, AnyOperation] = {
    found.name: found
    for module in iter_modules(__path__, f"{__name__}.")
    for found in vars(import_module(module.name)).values()
    if isinstance(found, Operation)
}
"""All of them, by name."""

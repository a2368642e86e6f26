"""The names that an expression may use: roots, macros, functions, types. Pure."""

MEMBERS_ONLY = frozenset({"steps", "params", "hosts", "volumes", "matrix", "secrets"})
"""Roots that may be used only as ``root.name…`` or ``root["literal"]…``."""
ROOTS = MEMBERS_ONLY | {"host", "run", "self", "result"}
MACROS = frozenset({"map", "filter", "all", "exists", "exists_one", "existsOne"})
RENAMED = {
    "matches": "proctor_matches",
    "size": "proctor_size",
    "json.decode": "proctor_json_decode",
    "json.encode": "proctor_json_encode",
    "regex.extract": "proctor_regex_extract",
    "regex.extractAll": "proctor_regex_extract_all",
    "regex.replace": "proctor_regex_replace",
}
"""Functions that the library has and that are ours all the same, and those with a name before the dot."""
SPACES = frozenset(name.partition(".")[0] for name in RENAMED if "." in name)
OURS_ON = frozenset({
    "charAt", "distinct", "flatten", "format", "indexOf", "join", "lastIndexOf", "lowerAscii", "replace", "reverse",
    "slice", "sort", "split", "substring", "trim", "upperAscii",
})  # fmt: skip
"""Ours, written after their subject: what CEL's own extensions have under these names."""
MAKES_PARTS = frozenset({"split", "json.decode", "regex.extractAll"})
"""Functions that make a list or a map of a text."""
GROWS = frozenset({"format", "join", "json.encode", "regex.replace", "replace"})
"""Functions that may come to more than they are given."""
FUNCTIONS = OURS_ON | RENAMED.keys() | {"bool", "join", "string", "text"}
"""Ours, all of them; ``string`` and ``bool`` for the values that the library's do not take."""
MAKE_TEXT = frozenset({"join", "string", "text"})
"""What numbers are given to with their spelling."""
CALLED = frozenset(name for name in RENAMED if "." in name) | {
    "bool", "bytes", "double", "duration", "dyn", "has", "int", "join", "size", "string", "text", "timestamp", "type",
    "uint",
}  # fmt: skip
"""Functions that stand by themselves: ``size(params.sites)``."""
CALLED_ON = OURS_ON | {
    "contains", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
    "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "matches", "size", "startsWith",
}  # fmt: skip
"""Functions that are written after their subject: ``params.image.startsWith("vnf")``."""
TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
"""What ``type(value)`` is compared with."""
NO_NAMES = frozenset({"true", "false", "null", "in"})

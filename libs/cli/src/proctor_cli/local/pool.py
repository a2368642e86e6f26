"""The volume pool of a local system: its folder, and its settings file, which is checked before anything starts."""

from pathlib import Path

from proctor_cli.faults import Usage
from proctor_cli.init.files import replace
from proctor_cli.local.folders import DataDir

DEFAULT = """\
# The volume pool of this local system. Changes take effect with `proctor pools reload`.
# What each setting does: docs/volume-pool.md.
[volumes]
concurrency = 4

[volumes_backup]
volume_backup_types = igw,bgw,dhcp,cast
backup_nums_igw_bgw = 2
backup_nums_dhcp_cast = 1
backup_frequency_minute = 10
check_state_frequency_minute = 5

[pool]
backend = local
volume_size_gb = 1
"""


def check_pool(path: Path) -> Path:
    """The file's absolute path. Raises Usage with every fault in it."""
    from proctor_controller.domain.volumes.settings import BadPoolSettings, parse_pool

    try:
        parse_pool(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise Usage(f"--pool: cannot read {path}: {fault}") from None
    except BadPoolSettings as fault:
        raise Usage(f"--pool: {path}: {fault}") from None
    return path.resolve()


def own_file(data: DataDir) -> Path:
    """The local system's own file, made once, so that changes to it are kept. Raises CannotKeep."""
    path = data.root / "pool.ini"
    if not path.exists():
        replace(path, DEFAULT)
    return path

"""The pool's settings in the legacy form: what is read, what is refused, and that each fault names its key."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_controller.domain.volumes.settings import BadPoolSettings, parse_pool, split_names
from support.pool import LEGACY_SETTINGS

FORM = LEGACY_SETTINGS.format(a="igw", b="bgw", c="dhcp", d="cast", first=11, second=2)


def test_a_legacy_file_is_read_as_it_is() -> None:
    settings = parse_pool(FORM)
    assert {name: each.target for name, each in settings.types.items()} == {"igw": 11, "bgw": 11, "dhcp": 2, "cast": 2}
    assert settings.concurrency == 10
    assert (settings.backup_frequency_minute, settings.check_state_frequency_minute) == (10, 5)
    assert settings.create_volume_time_interval_second == 0
    assert settings.cloud.auth_project == settings.cloud.auth_user == settings.cloud.auth_passwd == "admin"
    assert settings.backend == "local"
    assert settings.notes == ("volume_queue has no effect: the pool needs no queue of its own",)


def test_keys_count_whatever_their_section_and_without_interpolation() -> None:
    settings = parse_pool("[a]\nvolume_backup_types = igw\n[b]\nbackup_nums_igw = 1\nauth_passwd = 100%(x)s\n")
    assert settings.types["igw"].target == 1
    assert settings.cloud.auth_passwd == "100%(x)s"


def test_an_address_or_a_cloud_means_cinder_unless_the_file_says_otherwise() -> None:
    assert parse_pool("[auth_args]\nauth_url = http://k/v3\n").backend == "cinder"
    assert parse_pool("[pool]\ncloud = lab\n").backend == "cinder"
    assert parse_pool("[pool]\nmax_age = 0\n", default_backend="cinder").backend == "cinder"
    assert parse_pool("[pool]\nbackend = local\ncloud = lab\n", default_backend="cinder").backend == "local"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[volumes]\nconcurrency = 0", "concurrency: must be a whole number of 1 to 200, not '0'"),
        ("[volumes]\nconcurrency = ten", "concurrency: must be a whole number"),
        ("[volumes]\nconcurency = 3", "concurency: no such setting in [volumes]; did you mean concurrency?"),
        ("[volumes_backup]\nbackup_frequency_minute = -1", "backup_frequency_minute: must be"),
        ("[volumes_backup]\nvolume_backup_types = igw\nbackup_nums_igv = 3", "backup_nums_igv: names a type that"),
        ("[volumes_backup]\nvolume_backup_types = igw\nbackup_nums_igw = 1.5", "backup_nums_igw: must be"),
        ("[x]\nvolume_backup_types = a,b\nbackup_nums_a_b = 1\nbackup_nums_b = 2", "b is counted twice"),
        ("[x]\nconcurrency = 1\n[y]\nconcurrency = 2", "concurrency: stands there twice"),
        ("[x]\nvolume_backup_types = a/b", "volume_backup_types: not the name of a type"),
        ("[pool]\nfail_rate = 2", "fail_rate: must be a number of 0 to 1"),
        ("[pool]\nmax_age = soon", "max_age: must be a number of seconds"),
        ("[pool]\nconcurrency", "concurrency: has no value"),
        ("no section\n[", "not an INI file"),
        (" \n", "the file is empty; to end the pool, leave volume_backup_types without a type"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(text: str, fault: str) -> None:
    with pytest.raises(BadPoolSettings) as refused:
        parse_pool(text)
    assert fault in str(refused.value)


def test_a_pool_is_ended_by_a_list_without_types() -> None:
    assert parse_pool("[volumes_backup]\nvolume_backup_types =\n").types == {}


def test_all_faults_are_told_at_once_and_no_password() -> None:
    with pytest.raises(BadPoolSettings) as refused:
        parse_pool(f"[a]\nconcurrency = x\nfail_rate = y\nauth_passwd = {'s3cret' * 500}\n")
    assert len(refused.value.faults) == 3
    assert "s3cret" not in str(refused.value)


@given(st.lists(st.sampled_from(["igw", "bgw", "a_b", "a", "b_c", "x.y"]), min_size=1, max_size=4, unique=True))
def test_names_joined_by_underscores_are_found_again(names: list[str]) -> None:
    found = split_names("_".join(names), ["igw", "bgw", "a_b", "a", "b_c", "x.y"])
    assert found is not None
    assert "_".join(found) == "_".join(names)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BadPoolSettings):
        parse_pool(text)

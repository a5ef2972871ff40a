"""The users that the seed creates in Milvus, with a role each."""

from typing import Any

import pytest
from pymilvus.exceptions import MilvusException

from ecrs_seed import milvus_users
from ecrs_seed.milvus_users import PRIVILEGES, MilvusUsersSettings, create_users

Grant = tuple[str, str]


class FakeRoot:
    """The client methods of root that manage users; keeps passwords by user and privileges by role."""

    def __init__(self) -> None:
        self.passwords = {"root": "of root"}
        self.roles: dict[str, set[Grant]] = {}
        self.role_of: dict[str, str] = {}

    def list_users(self) -> list[str]:
        return list(self.passwords)

    def list_roles(self) -> list[str]:
        return list(self.roles)

    def create_user(self, user: str, password: str) -> None:
        assert user not in self.passwords
        self.passwords[user] = password

    def drop_user(self, user: str) -> None:
        del self.passwords[user], self.role_of[user]

    def create_role(self, role: str) -> None:
        assert role not in self.roles
        self.roles[role] = set()

    def grant_role(self, user: str, role: str) -> None:
        self.role_of[user] = role

    def grant_privilege(self, role: str, kind: str, privilege: str, name: str) -> None:
        self.roles[role].add((kind, privilege))

    def revoke_privilege(self, role: str, kind: str, privilege: str, name: str) -> None:
        self.roles[role].remove((kind, privilege))

    def describe_role(self, role: str) -> dict[str, Any]:
        return {
            "privileges": [
                {"object_type": kind, "privilege": privilege} for kind, privilege in self.roles[role]
            ]
        }

    def close(self) -> None:
        pass


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> FakeRoot:
    root = FakeRoot()

    def signed_in(address: dict[str, str], token: str) -> FakeRoot:
        user, _, password = token.partition(":")
        if root.passwords.get(user) != password:
            raise MilvusException(message="auth check failure")
        return root

    monkeypatch.setattr(milvus_users, "signed_in", signed_in)
    return root


def create(root: FakeRoot, recall: str = "of recall", seed: str = "of seed") -> list[str]:
    settings = MilvusUsersSettings(
        vectors="milvus://milvus:19530", milvus_recall_password=recall, milvus_seed_password=seed
    )
    return create_users(settings, root)  # type: ignore[arg-type]


def test_each_user_has_a_role_with_its_privileges_only(root: FakeRoot) -> None:
    assert create(root) == ["recall", "seed"]
    assert root.passwords == {"root": "of root", "recall": "of recall", "seed": "of seed"}
    assert root.role_of == {"recall": "recall", "seed": "seed"}
    for user, privileges in PRIVILEGES.items():
        assert root.roles[user] == {(kind, name) for kind, names in privileges.items() for name in names}


def test_creating_users_again_changes_nothing(root: FakeRoot) -> None:
    create(root)
    assert create(root) == []


def test_a_changed_password_replaces_the_user(root: FakeRoot) -> None:
    create(root)
    assert create(root, recall="new") == ["recall"]
    assert root.passwords["recall"] == "new"
    assert root.role_of["recall"] == "recall"


def test_a_privilege_that_a_role_no_longer_needs_is_revoked(root: FakeRoot) -> None:
    create(root)
    root.grant_privilege("recall", "Global", "DropCollection", "*")
    assert create(root) == ["recall"]
    assert ("Global", "DropCollection") not in root.roles["recall"]
